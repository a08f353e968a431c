"""The shell script that the manager starts: it reads the active release's environment and executes its program.

It also rotates the service's log. newsyslog and logrotate could not: they rename, and the service
goes on writing to the renamed file.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path

from ..core import process, templates, variables
from ..core.config import DeployConfig
from ..service import units
from ..service.manager import Manager
from . import crashloop
from .prefix import Prefix

_CLAIM = re.compile(r"claim\.([1-9][0-9]{0,8})")

ROTATION_INTERVAL_S = 10
_MB = 1_000_000
_ROTATION_TIMEOUT_S = 60.0


def render(prefix: Prefix, manager: Manager, config: DeployConfig) -> bytes:
    """The script. The same arguments give the same bytes, whatever release is active, and whatever program it is."""
    text = templates.render(
        "shim.sh.j2",
        prefix=shlex.quote(str(prefix.folder)),
        most_starts=crashloop.MOST_STARTS,
        within_s=crashloop.WITHIN_S,
        slow_starts=crashloop.SLOW_STARTS,
        slow_within_s=crashloop.SLOW_WITHIN_S,
        manager=manager.kind,
        rotation=_rotation(prefix.log, config),
        interval_s=ROTATION_INTERVAL_S,
        mark=variables.MARK,
        serve=variables.SERVE,
        programs={name: shlex.join(unit.program) for name, unit in units.UNITS.items()},
        paths=[name for unit in units.UNITS.values() for name in unit.variables.paths],
    )
    return text.encode()


def holder(prefix: Prefix) -> int:
    """Pid in the newest claim: of the copy that serves, if that process still runs. 0 without a claim."""
    claims: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for path in prefix.run.iterdir():
            if found := _CLAIM.fullmatch(path.name):
                claims[int(found[1])] = str(path.readlink())
    pid = claims[max(claims)].partition(" ")[0] if claims else ""
    return int(pid) if pid.isdecimal() else 0


def rotate(log: Path, config: DeployConfig) -> None:
    """Rotate the log now if it exceeds deploy.log_mb, with the shim's own commands. Raises `CommandFailed`."""
    script = f"{_rotation(log, config)}if log_is_large; then rotate; fi\n"
    process.run(("/bin/sh", "-c", script), timeout=_ROTATION_TIMEOUT_S, what="the rotation of the log")


def _rotation(log: Path, config: DeployConfig) -> str:
    return templates.render(
        "rotate.sh.j2", log=shlex.quote(str(log)), limit=config.log_mb * _MB, files=config.log_files
    )
