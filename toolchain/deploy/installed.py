"""What is installed: the releases with their parents, and where the service is registered.

state.json says it, and each release says it of itself (installed.json), so that a state that is lost or damaged is
rebuilt from the releases. Neither is trusted: what no deploy writes makes a state damaged, and what a release says of
itself is only used where it fits.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..build import release as built
from ..core import records
from ..core.errors import RecordError, ReleaseInvalid
from ..core.records import record
from ..service.manager import Registration
from .prefix import Prefix, is_release_id

OWN_RECORD = "installed.json"
"""in each release: its `InstalledRelease`"""
PARENT_FILE = "parent"
"""in each release: its parent's id, for the shim"""

_FORMER_NAMES = {"plist": "unit_file", "plist_sha256": "unit_sha256"}
"""former names of fields, in an installation that an earlier version of this toolkit made"""
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,120}")
_DOMAIN = re.compile(r"|system|(gui|user)/[0-9]{1,10}")


@record
class InstalledRelease:
    """A release that was found healthy. `parent` was active when it was installed; empty for the first."""

    id: str
    parent: str
    version: str
    installed: str
    """UTC, ISO 8601"""
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    """what it was given, with secrets masked, so that an edit by hand is noticed; empty: unknown"""


@record
class Fallback:
    """A release that kept exiting, and its parent, which the shim started instead. `at` is UTC, ISO 8601."""

    bad: str
    parent: str
    at: str


@record
class InstallState:
    """state.json. `releases` are in order of installation, the newest last.

    `label`, `domain`, `unit_file` and `manager` say where the service was registered. `unit_sha256` is the digest of
    the loaded definition; the service is loaded again only if it changes.
    """

    active: str = ""
    releases: tuple[InstalledRelease, ...] = ()
    label: str = ""
    domain: str = ""
    unit_file: str = ""
    unit_sha256: str = ""
    manager: str = ""
    """as deploy.service_manager names it; empty if an earlier version wrote the state"""
    fallback: Fallback | None = None
    """how the active release became active, if its successor kept exiting"""

    def find(self, identifier: str) -> InstalledRelease | None:
        """The record of a release."""
        return next((release for release in self.releases if release.id == identifier), None)

    def parent(self) -> str:
        """Id of the release that a rollback from the active one goes to: its parent, when that is still installed."""
        active = self.find(self.active)
        return active.parent if active and self.find(active.parent) else ""

    def registration(self) -> Registration | None:
        """Where the service was registered; None before it ever was."""
        if not self.label:
            return None
        return Registration(label=self.label, domain=self.domain, file=self.unit_file, manager=self.manager)

    def registered(self, registration: Registration, digest: str) -> InstallState:
        """The state after the service was registered there, with a definition of that digest."""
        return replace(
            self,
            label=registration.label,
            domain=registration.domain,
            unit_file=registration.file,
            unit_sha256=digest,
            manager=registration.manager,
        )

    def blessed(self, release: InstalledRelease) -> InstallState:
        """The state after `release` was blessed: active and the newest."""
        others = tuple(other for other in self.releases if other.id != release.id)
        return replace(self, active=release.id, releases=(*others, release), fallback=None)

    def activated(self, identifier: str) -> InstallState:
        """The state after an installed release became active again, with its old parent."""
        return replace(self, active=identifier, fallback=None)

    def without(self, identifiers: set[str]) -> InstallState:
        """The state without those releases."""
        return replace(self, releases=tuple(one for one in self.releases if one.id not in identifiers))


def read(prefix: Prefix, path: Path | None = None) -> InstallState:
    """The state of a prefix, or that in a copy; an empty one if there is none; rebuilt, not written, if damaged."""
    return rebuilt(prefix) if damage(prefix, path) else _stored(path or prefix.state)


def write(prefix: Prefix, state: InstallState) -> None:
    """Replace state.json atomically."""
    records.write(prefix.state, state)


def note(prefix: Prefix, state: InstallState) -> None:
    """Write what `state` says of each release into that release, where it says something else."""
    for release in state.releases:
        if not prefix.has(release.id):
            continue
        if _own_record(prefix.release(release.id)) != release:
            write_own(prefix, release)
        name_parent(prefix, release.id, release.parent)


def name_parent(prefix: Prefix, identifier: str, parent: str) -> None:
    """Tell the shim which release is the parent of another. Raises `DiskFull` or `OSError`."""
    path = prefix.release(identifier) / PARENT_FILE
    wanted = f"{parent}\n".encode()
    if not parent:
        path.unlink(missing_ok=True)
    elif path.is_symlink() or not path.is_file() or path.read_bytes() != wanted:
        records.write_bytes(path, wanted)


def write_own(prefix: Prefix, release: InstalledRelease) -> None:
    """Write what a release says of itself; a folder in its place is deleted."""
    path = prefix.release(release.id) / OWN_RECORD
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    records.write(path, release)


def damage(prefix: Prefix, path: Path | None = None) -> str:
    """Why state.json, or a copy of it, cannot be used; empty if it can, also when there is none."""
    path = path or prefix.state
    try:
        state = _stored(path)
    except RecordError as error:
        return error.message.removeprefix(f"{path}: ")
    ids = [release.id for release in state.releases]
    for name in (*ids, *(release.parent for release in state.releases if release.parent)):
        if not is_release_id(name):
            return f"{name!r} is not a release id"
    if len(set(ids)) < len(ids):
        return "a release is in it twice"
    if state.active and state.active not in ids:
        return f"the active release {state.active!r} is not among its releases"
    if state.label and not _LABEL.fullmatch(state.label):
        return f"{state.label!r} is not a label"
    if not _DOMAIN.fullmatch(state.domain):
        return f"{state.domain!r} is not a domain"
    return ""


def rebuilt(prefix: Prefix, *, unfinished: str = "", running: str = "") -> InstallState:
    """The state that the releases, `current` and the process `running` (the id of its release) show.

    Where the service is registered is unknown then. `unfinished` is a release whose deploy was interrupted: it only
    counts when it says of itself that it was healthy.
    """
    found: list[InstalledRelease] = []
    for release, has_record in sorted(_found(prefix, unfinished), key=lambda one: (one[0].installed, one[0].id)):
        found.append(release if has_record or not found else replace(release, parent=found[-1].id))
    ids = [release.id for release in found]
    active = next((one for one in (prefix.active(), running, *reversed(ids)) if one in ids), "")
    return InstallState(active=active, releases=tuple(found))


def unlisted(prefix: Prefix, state: InstallState, *, unfinished: str = "") -> tuple[InstalledRelease, ...]:
    """The releases that are installed and that `state` does not list, the newest last.

    While it lists others, these are only those that say of themselves that they were healthy.
    """
    found = rebuilt(prefix, unfinished=unfinished).releases
    if state.releases:
        found = tuple(one for one in found if _own_record(prefix.release(one.id)))
    return tuple(one for one in found if not state.find(one.id))


def _stored(path: Path) -> InstallState:
    """state.json as it stands. Raises `RecordError`."""
    if not os.path.lexists(path):
        return InstallState()
    return records.read(path, InstallState, former_names=_FORMER_NAMES, follow=False)


def _found(prefix: Prefix, unfinished: str) -> Iterator[tuple[InstalledRelease, bool]]:
    """Each release of the prefix that can run, and whether it has a record of its own."""
    for folder in prefix.releases.iterdir() if prefix.releases.is_dir() else ():
        with suppress(ReleaseInvalid, OSError, ValueError, OverflowError):
            if not prefix.has(folder.name) or (manifest := built.load(folder)).id != folder.name:
                continue
            own = _own_record(folder)
            programs = built.programs(manifest)
            if not all((folder / name).is_file() for name in programs) or (not own and folder.name == unfinished):
                continue
            copied = datetime.datetime.fromtimestamp((folder / built.MANIFEST).stat().st_mtime, datetime.UTC)
            guessed = InstalledRelease(
                id=folder.name, parent="", version=manifest.version, installed=copied.isoformat(timespec="seconds")
            )
            yield (own or guessed), own is not None


def _own_record(folder: Path) -> InstalledRelease | None:
    """What a release says of itself; None where no deploy wrote it."""
    try:
        own = records.read(folder / OWN_RECORD, InstalledRelease, follow=False)
        datetime.datetime.fromisoformat(own.installed)
    except (RecordError, ValueError):
        return None
    return own if own.id == folder.name and (not own.parent or is_release_id(own.parent)) else None
