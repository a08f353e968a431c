"""What the service is given: every variable of its environment, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil

from ..core.config import Config
from ..core.records import record
from ..core.variables import masked
from ..service import units
from ..service.unit import Unit
from ..stages import Edit
from . import environment
from .prefix import Prefix

_OF_THE_SHELL = frozenset({"PWD", "OLDPWD", "SHLVL", "_"})

_UNSET = "(not set)"


@record
class GivenVariable:
    """A variable of the service. Secrets are shown by the first digits of their digest."""

    name: str
    value: str
    source: str
    """a setting with its origin, an edit by hand, or the service manager"""
    running: str
    """what the running process has instead, since it started earlier; empty: the same, or nothing is running"""


@record
class GivenEnvironment:
    """The environment of the service."""

    release: str
    """active one; empty when nothing is installed"""
    pid: int
    file: Path
    readable: bool
    """whether the running process shows its variables; those of the service manager are listed only then"""
    variables: tuple[GivenVariable, ...]


def look(config: Config, prefix: Prefix, pid: int, edits: tuple[Edit, ...]) -> GivenEnvironment:
    """The variables of the active release's file, and of the process `pid`. Raises `ReleaseInvalid`."""
    active = prefix.active()
    values = environment.read(prefix.release(active)) if active else {}
    unit, running = units.choose(values), _of_process(pid)
    found = [
        GivenVariable(
            name=name,
            value=masked(name, value),
            source=_source(name, value, config, unit, edits),
            running="" if running is None or running.get(name) == value else masked(name, running.get(name, _UNSET)),
        )
        for name, value in values.items()
    ]
    found += [
        GivenVariable(name=name, value=masked(name, value), source="the service manager", running="")
        for name, value in sorted((running or {}).items())
        if name not in values and name not in _OF_THE_SHELL
    ]
    return GivenEnvironment(
        release=active,
        pid=pid,
        file=prefix.current / environment.FILE_NAME,
        readable=running is not None,
        variables=tuple(found),
    )


def _source(name: str, value: str, config: Config, unit: Unit, edits: tuple[Edit, ...]) -> str:
    if any(edit.name == name for edit in edits):
        return "an edit by hand"
    if setting := unit.variables.settings.get(name):
        return setting
    if config.deploy.environment.get(name) == value:
        key = f"deploy.environment.{name}"
        return f"{key} ({config.origins.get(key, 'default')})"
    return "the last installation"


def _of_process(pid: int) -> Mapping[str, str] | None:
    """The variables of a process; None if it does not show them."""
    try:
        return psutil.Process(pid).environ() if pid else None
    except (psutil.Error, OSError):
        return None
