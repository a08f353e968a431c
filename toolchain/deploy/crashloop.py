"""A release that keeps exiting after its deploy: the shim starts its parent instead, once, and this makes it regular.

The shim decides, since it also runs after a reboot, when nobody calls this toolkit. What it goes by:

    releases/<id>/parent  id of the parent, written when the release is blessed (installed.py)
    run/starts            lines `id seconds`: the recent starts of the active release, the newest first
    run/fallback          `bad parent seconds`, written once; while it is there, no further release is given up
"""

from __future__ import annotations

import contextlib
import datetime
import os
from dataclasses import replace

from ..core.console import Console
from ..core.errors import ToolchainError
from . import installed, store
from .installed import Fallback, InstallState
from .prefix import Prefix

MOST_STARTS = 5
WITHIN_S = 120
"""more starts than that within so many seconds are a crash loop; managers start a service every 10 s at most"""
SLOW_STARTS = 8
SLOW_WITHIN_S = 600
"""so are these: of a release that lives for a while after each start"""
_FALLBACK = "fallback"
_STARTS = "starts"
_READ_BYTES = 1024


def forget(prefix: Prefix) -> None:
    """Forget starts and fallback: another release is about to be started."""
    for name in (_STARTS, _FALLBACK):
        with contextlib.suppress(OSError):
            (prefix.run / name).unlink(missing_ok=True)


def found(prefix: Prefix, known: InstallState) -> Fallback | None:
    """The fallback that the shim made and that is not regular yet. One that the state does not confirm is ignored."""
    try:
        descriptor = os.open(prefix.run / _FALLBACK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            bad, parent, at = file.read(_READ_BYTES).decode("ascii").split()
        moment = datetime.datetime.fromtimestamp(int(at), datetime.UTC)
    except (OSError, ValueError, OverflowError):
        return None
    record = known.find(bad)
    if bad != prefix.active() or record is None or record.parent != parent or not known.find(parent):
        return None
    return Fallback(bad=bad, parent=parent, at=moment.isoformat(timespec="seconds"))


def is_pending(prefix: Prefix) -> bool:
    """Whether the shim fell back and `settle` has not made that regular."""
    if not (prefix.run / _FALLBACK).exists():
        return False
    try:
        return found(prefix, installed.read(prefix)) is not None
    except (OSError, ToolchainError):
        return False


def settle(prefix: Prefix, console: Console) -> None:
    """Make the parent, which the shim has started, the active release."""
    if not is_pending(prefix):
        return
    known = installed.read(prefix)
    if fallback := found(prefix, known):
        console.warn(describe(fallback))
        try:
            installed.write(prefix, replace(known.activated(fallback.parent), fallback=fallback))
            store.swap(fallback.parent, prefix)
        except (OSError, ToolchainError) as error:
            console.warn(f"it is not recorded yet: {error}")


def describe(fallback: Fallback) -> str:
    """What happened, in one line."""
    return f"release {fallback.bad} kept exiting; rolled back to {fallback.parent} at {fallback.at}"
