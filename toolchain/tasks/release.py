"""`./inv release`: from a verified release to files that anyone can check."""

from __future__ import annotations

from pathlib import Path

from .. import pipeline
from ..build import find_release
from ..core.run import Run
from ..publishing import codesign, comparison, notary, packing
from .command import Group

group = Group("release")

_RELEASE = "id or directory of a release; empty: the newest one built"


@group.task("workspace", release=_RELEASE)
def sign(run: Run, release: str = "") -> None:
    """Make a release whose Mach-O files are signed."""
    run.finish(codesign.sign(run, find_release(run, release)))


@group.task("workspace", release=_RELEASE)
def notarize(run: Run, release: str = "") -> None:
    """Have Apple's notary accept a signed release."""
    run.finish(notary.notarize(run, find_release(run, release)))


@group.task(
    "workspace",
    release=_RELEASE,
    sequence="its number among the publication's releases; 0: the next one",
    unverified="pack it even without a successful verification",
)
def pack(run: Run, release: str = "", sequence: int = 0, unverified: bool = False) -> None:
    """Stage a verified release for publication."""
    folder = find_release(run, release)
    found = pipeline.verification_of(run, folder)
    run.finish(packing.pack(run, folder, found, sequence=sequence, unverified=unverified))


@group.task(
    "workspace",
    release=f"{_RELEASE}; or a release.json",
    rebuild="the same, of what should be its rebuild",
)
def compare(run: Run, release: str, rebuild: str) -> None:
    """Compare a release with its rebuild, without signatures."""
    run.finish(comparison.compare(_either(run, release), _either(run, rebuild)))


def _either(run: Run, named: str) -> Path:
    path = Path(named).expanduser()
    return path.absolute() if path.is_file() else find_release(run, named)
