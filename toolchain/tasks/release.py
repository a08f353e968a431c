"""`./inv release`: from a verified release to files that anyone can check."""

from __future__ import annotations

from ..core.run import Run
from ..publishing import attestation
from .command import Group

group = Group("release")

_RELEASE = "id or directory of a release; empty: the newest one built"


@group.task(
    "workspace",
    release=_RELEASE,
    validation="JSON file of a validation of this release",
    firstrun="archive of a first run on its sources",
)
def attest(run: Run, release: str = "", validation: str = "", firstrun: str = "") -> None:
    """Add bill of materials and signed statements."""
    run.finish(attestation.attest(run, release, validation, firstrun))
