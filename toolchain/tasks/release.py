"""`./inv release`: from a verified release to files that anyone can check."""

from __future__ import annotations

from ..core.run import Run
from ..publishing import attestation
from ..publishing import notes as noting
from .command import Group
from .flags import Names

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


@group.task(
    "workspace",
    release=_RELEASE,
    since="id or directory of the release to compare with; empty: none",
    results="page of measured tables to take in (repeatable, or with commas)",
    changelog="file that gets an entry, as CHANGELOG.md; empty: none",
)
def notes(run: Run, release: str = "", since: str = "", results: Names = Names(), changelog: str = "") -> None:
    """Write what changed and what is not known."""
    run.finish(noting.write(run, release, since, results, changelog))
