"""Changes by hand of what was installed: the active release's environment, and the service's definition.

They are found by comparison with what the state says was installed, and are named and kept before they are overwritten.
"""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Mapping
from pathlib import Path

from ..core import records, variables
from ..core.errors import ConfigError, ReleaseInvalid
from ..service.manager import Definition, Manager
from ..service.unit import Unit
from ..stages import DeployWarning, Edit
from . import environment, installed
from .prefix import Prefix


def of_environment(prefix: Prefix) -> tuple[Edit, ...]:
    """Edits of the active release's environment file; none where it is not known what was installed."""
    known = installed.read(prefix).find(prefix.active())
    if known is None or not known.environment:
        return ()
    folder = prefix.release(known.id)
    try:
        now = variables.all_masked(environment.read(folder))
    except ReleaseInvalid:
        return ()  # unreadable, which health reports
    return tuple(_compare(folder / environment.FILE_NAME, known.environment, now))


def of_definition(prefix: Prefix, manager: Manager, definition: Definition) -> tuple[Edit, ...]:
    """Edits of the service's definition, compared with the one that the configuration makes now."""
    known, file = installed.read(prefix), Path(manager.registration.file)
    if not known.unit_sha256 or known.registration() != manager.registration:
        return ()
    if manager.digest() in ("", known.unit_sha256):
        return ()
    before, now = manager.describe(manager.render(definition)), manager.describe(file.read_bytes())
    if not now:
        return (Edit(file=file, name="", change="changed", before="", after=""),)
    shown = ({key: variables.masked(_last(key), value) for key, value in one.items()} for one in (before, now))
    return tuple(_compare(file, *shown)) or (Edit(file=file, name="", change="changed", before="", after=""),)


def keep(found: tuple[Edit, ...], given: Mapping[str, str], prefix: Prefix, unit: Unit) -> tuple[DeployWarning, ...]:
    """Copy the edited files to logs/, and say what is lost when `given` and a new definition replace them."""
    shown = variables.all_masked(given)
    lost = [one for one in found if one.name not in shown or one.change == "removed" or one.after != shown[one.name]]
    now = datetime.datetime.now(datetime.UTC)
    copies = {}
    for file in dict.fromkeys(one.file for one in lost):
        copies[file] = prefix.logs / f"{file.name}.edited-{now:%Y%m%dT%H%M%S%fZ}"
        records.write_bytes(copies[file], file.read_bytes(), mode=0o600)
    return tuple(
        DeployWarning(
            about=str(one.file),
            message=f"{_described(one)} by hand, which this overwrites; a copy is {copies[one.file]}",
            remedy=_remedy(one, unit),
        )
        for one in lost
    )


def _compare(file: Path, before: Mapping[str, str], now: Mapping[str, str]) -> list[Edit]:
    edits = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old is None:
            edits.append(Edit(file=file, name=name, change="added", before="", after=new or ""))
        elif new is None:
            edits.append(Edit(file=file, name=name, change="removed", before=old, after=""))
        elif old != new:
            edits.append(Edit(file=file, name=name, change="changed", before=old, after=new))
    return edits


def _described(edit: Edit) -> str:
    name = edit.name or "the file"
    match edit.change:
        case "added":
            return f"{name}={edit.after} was added"
        case "removed":
            return f"{name}={edit.before} was removed"
    return f"{name} was changed from {edit.before!r} to {edit.after!r}" if edit.name else f"{name} was changed"


def _remedy(edit: Edit, unit: Unit) -> str:
    """The setting that makes the edit permanent."""
    name = _last(edit.name)
    if setting := unit.variables.settings.get(name):
        return f"to have it always, set {setting}"
    try:
        variables.check({name: ""})
    except ConfigError:
        return "compare with the copy; there is no setting for it"
    if edit.change == "removed":
        return f"to leave it out always, remove {name} from deploy.environment"
    value = "..." if variables.masked(name, edit.after) != edit.after or "(secret" in edit.after else edit.after
    return f"to have it always: {shlex.join(['--set', f'deploy.environment.{name}={value}'])}"


def _last(name: str) -> str:
    return name.rpartition(".")[2]
