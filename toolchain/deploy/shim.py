"""The shell script that the manager starts: it reads the active release's environment and executes its program."""

from __future__ import annotations

import shlex

from ..core import templates
from ..service.manager import Manager
from ..service.unit import Unit
from . import processes
from .prefix import Prefix


def render(prefix: Prefix, unit: Unit, manager: Manager) -> bytes:
    """The script. The same arguments give the same bytes, whatever release is active."""
    program, *arguments = unit.program
    text = templates.render(
        "shim.sh.j2",
        prefix=shlex.quote(str(prefix.folder)),
        name=unit.name,
        manager=manager.kind,
        mark=processes.MARK,
        paths=unit.variables.paths,
        command=" ".join([f'"$release/{program}"', *map(shlex.quote, arguments)]),
    )
    return text.encode()
