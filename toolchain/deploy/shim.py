"""The shell script that the manager starts: it reads the active release's environment and executes its program."""

from __future__ import annotations

import contextlib
import re
import shlex

from ..core import templates
from ..service.manager import Manager
from ..service.unit import Unit
from .prefix import Prefix

_CLAIM = re.compile(r"claim\.([1-9]\d*)")


def render(prefix: Prefix, unit: Unit, manager: Manager) -> bytes:
    """The script. The same arguments give the same bytes, whatever release is active."""
    program, *arguments = unit.program
    text = templates.render(
        "shim.sh.j2",
        prefix=shlex.quote(str(prefix.folder)),
        name=unit.name,
        manager=manager.kind,
        command=" ".join([f'"$release/{program}"', *map(shlex.quote, arguments)]),
    )
    return text.encode()


def holder(prefix: Prefix) -> int:
    """Pid in the newest claim: of the copy that serves, if that process still runs. 0 without a claim."""
    claims: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for path in prefix.claims.iterdir():
            if found := _CLAIM.fullmatch(path.name):
                claims[int(found[1])] = str(path.readlink())
    pid = claims[max(claims)].partition(" ")[0] if claims else ""
    return int(pid) if pid.isdecimal() else 0
