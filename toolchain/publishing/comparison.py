"""`release.compare`: whether a rebuild is the published release, apart from signatures, which nobody else can make."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..build import check, macho
from ..core import records
from ..core.delivery_errors import DriftFound
from ..core.errors import RecordError, ReleaseInvalid
from ..core.records import record
from ..stages import Release
from .published import RELEASE_FILE, Digest, PublishedRelease

_ORIGIN = ("version", "platform", "ollama_commit", "llama_cpp_commit", "series_sha256")


@record
class Difference:
    """A file, or a fact of its origin, that differs."""

    what: str
    change: Literal["added", "changed", "removed"]


@record
class Comparison:
    """Two releases, without their signatures."""

    old: str
    new: str
    equal: bool
    """the same sources, and the same files but for signatures"""
    identical: bool
    """with the same signatures, too"""
    differences: tuple[Difference, ...]
    files: int
    """of the first"""

    def failure(self) -> DriftFound | None:
        """The error that a difference ends with."""
        if self.equal:
            return None
        named = ", ".join(one.what for one in self.differences[:5])
        return DriftFound(
            f"{self.new} is not a rebuild of {self.old}: {len(self.differences)} differences: {named}",
            hint="compare `tools` and `flags` of their manifests",
        )


@record
class _Side:
    name: str
    origin: dict[str, str]
    files: dict[str, Digest]
    unsigned: dict[str, Digest]

    @property
    def comparable(self) -> dict[str, str]:
        return self.origin | self.files | self.unsigned


def compare(old: Path, new: Path) -> Comparison:
    """Compare two releases, each a release directory or a release.json. Raises `ReleaseInvalid`."""
    before, after = _side(old), _side(new)
    was, now = before.comparable, after.comparable
    differences = [
        Difference(what=name, change="added" if name not in was else "removed" if name not in now else "changed")
        for name in sorted(was.keys() | now.keys())
        if was.get(name) != now.get(name)
    ]
    return Comparison(
        old=before.name,
        new=after.name,
        equal=not differences,
        identical=not differences and before.files == after.files,
        differences=tuple(differences),
        files=len(before.files),
    )


def _side(path: Path) -> _Side:
    """The facts and the digests of one of the two."""
    if path.is_dir() and (path / RELEASE_FILE).is_file():
        path /= RELEASE_FILE
    found: Release | PublishedRelease
    if path.is_dir():
        found = check(path)
        unsigned = {name: macho.unsigned_digest(file) for name, file in macho.files(path, found).items()}
    else:
        try:
            found = records.read(path, PublishedRelease)
        except RecordError as error:
            raise ReleaseInvalid(f"{path}: {error.message}", hint="a release directory, or a release.json") from error
        unsigned = found.unsigned
    origin = {f"<{fact}>": str(getattr(found, fact)) for fact in _ORIGIN}
    return _Side(name=found.id, origin=origin, files=found.files, unsigned=unsigned)
