"""What is installed: the releases with their parents, and the service that was loaded for them."""

from __future__ import annotations

from dataclasses import replace

from ..core import records
from ..core.records import record
from .layout import Layout


@record
class Installed:
    """A release that was found healthy. `parent` was active when it was installed; empty for the first."""

    id: str
    parent: str
    version: str
    installed: str
    """UTC, ISO 8601"""


@record
class State:
    """state.json. `releases` are in the order of their installation, the newest last.

    `label`, `domain` and `plist` name the service that was bootstrapped, and `plist_sha256` the bytes that launchd
    has a copy of: only other bytes need the bootout cycle.
    """

    active: str = ""
    releases: tuple[Installed, ...] = ()
    label: str = ""
    domain: str = ""
    plist: str = ""
    plist_sha256: str = ""

    def find(self, identifier: str) -> Installed | None:
        """The record of a release."""
        return next((release for release in self.releases if release.id == identifier), None)

    def parent(self) -> str:
        """Id of the release that a rollback from the active one goes to: its parent, when that is still installed."""
        active = self.find(self.active)
        return active.parent if active and self.find(active.parent) else ""

    def blessed(self, release: Installed) -> State:
        """`release` is active and the newest."""
        others = tuple(other for other in self.releases if other.id != release.id)
        return replace(self, active=release.id, releases=(*others, release))

    def activated(self, identifier: str) -> State:
        """An installed release is active again. Its parent stays what it was."""
        return replace(self, active=identifier)

    def without(self, identifiers: set[str]) -> State:
        """Those releases are gone."""
        return replace(self, releases=tuple(one for one in self.releases if one.id not in identifiers))


def read(layout: Layout) -> State:
    """The state of a prefix; an empty one where nothing was installed. Raises `RecordError`."""
    return records.read(layout.state, State) if layout.state.exists() else State()


def write(layout: Layout, state: State) -> None:
    """Replace state.json atomically."""
    records.write(layout.state, state)
