"""What is installed: the releases with their parents, and where the service is registered."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

from ..core import records
from ..core.records import record
from ..service.manager import Registration
from .prefix import Prefix

_FORMER_NAMES = {"plist": "unit_file", "plist_sha256": "unit_sha256"}
"""former names of fields, in an installation that an earlier version of this toolkit made"""


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
class InstallState:
    """state.json. `releases` are in order of installation, the newest last.

    `label`, `domain` and `unit_file` say where the service was registered. `unit_sha256` is the digest of the loaded
    definition; the service is loaded again only if it changes.
    """

    active: str = ""
    releases: tuple[InstalledRelease, ...] = ()
    label: str = ""
    domain: str = ""
    unit_file: str = ""
    unit_sha256: str = ""

    def find(self, identifier: str) -> InstalledRelease | None:
        """The record of a release."""
        return next((release for release in self.releases if release.id == identifier), None)

    def parent(self) -> str:
        """Id of the release that a rollback from the active one goes to: its parent, when that is still installed."""
        active = self.find(self.active)
        return active.parent if active and self.find(active.parent) else ""

    def registration(self) -> Registration | None:
        """Where the service was registered; None before it ever was."""
        return Registration(label=self.label, domain=self.domain, file=self.unit_file) if self.label else None

    def registered(self, registration: Registration, digest: str) -> InstallState:
        """The state after the service was registered there, with a definition of that digest."""
        return replace(
            self,
            label=registration.label,
            domain=registration.domain,
            unit_file=registration.file,
            unit_sha256=digest,
        )

    def blessed(self, release: InstalledRelease) -> InstallState:
        """The state after `release` was blessed: active and the newest."""
        others = tuple(other for other in self.releases if other.id != release.id)
        return replace(self, active=release.id, releases=(*others, release))

    def activated(self, identifier: str) -> InstallState:
        """The state after an installed release became active again, with its old parent."""
        return replace(self, active=identifier)

    def without(self, identifiers: set[str]) -> InstallState:
        """The state without those releases."""
        return replace(self, releases=tuple(one for one in self.releases if one.id not in identifiers))


def read(prefix: Prefix, path: Path | None = None) -> InstallState:
    """The state of a prefix, or that in a copy; an empty one if nothing is installed. Raises `RecordError`."""
    path = path or prefix.state
    if not path.exists():
        return InstallState()
    return records.read(path, InstallState, former_names=_FORMER_NAMES)


def write(prefix: Prefix, state: InstallState) -> None:
    """Replace state.json atomically."""
    records.write(prefix.state, state)
