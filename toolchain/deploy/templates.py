"""The launchd property list and the shim, rendered from templates/."""

from __future__ import annotations

import plistlib
import shlex
from pathlib import Path
from xml.parsers.expat import ExpatError

from ..core import templates
from ..core.errors import ConfigError
from .layout import Layout

THROTTLE_S = 10
"""launchd's own default, stated so that the health check can rely on it"""
EXIT_TIMEOUT_S = 10
"""between SIGTERM and SIGKILL: Ollama ends its llama-server children in this time"""


def plist(layout: Layout, *, label: str, home: Path, user: str = "") -> bytes:
    """The property list. The same arguments give the same bytes, whatever release is active.

    `user` is the account of a system daemon. Raises `ConfigError` for text that XML cannot hold.
    """
    text = _render(
        "launchd.plist.j2",
        label=label,
        shim=layout.shim,
        log=layout.log,
        home=home,
        user=user,
        throttle_s=THROTTLE_S,
        exit_timeout_s=EXIT_TIMEOUT_S,
    )
    data = text.encode()
    try:
        parsed = plistlib.loads(data)
    except (plistlib.InvalidFileException, ExpatError, ValueError) as error:
        raise ConfigError(f"no property list can be made for prefix {str(layout.prefix)!r}: {error}") from error
    if parsed["ProgramArguments"] != [str(layout.shim)] or parsed["EnvironmentVariables"]["HOME"] != str(home):
        raise ConfigError(f"the path {str(layout.prefix)!r} or {str(home)!r} does not survive XML")
    return data


def shim(layout: Layout) -> bytes:
    """The shell script that launchd runs."""
    return _render("shim.sh.j2", prefix=shlex.quote(str(layout.prefix))).encode()


def _render(name: str, **values: object) -> str:
    return templates.render(name, **{key: str(value) for key, value in values.items()})
