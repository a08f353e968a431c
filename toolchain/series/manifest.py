"""The patch series on disk: series.yaml, its parts, and the checksums that seal it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ..core.checkout import PATCHES
from ..core.config import Config
from ..core.documents import read_yaml
from ..core.errors import ChecksumMismatch, SeriesError, UnknownLayout
from ..core.records import record, sha256_bytes, sha256_file, write_bytes
from ..core.run import Run
from ..sources import eras
from ..stages import CacheType, Target
from . import patterns, symbols
from .edit import Edit, require_path
from .symbols import Symbol

SEAL = "SHA256SUMS"
OWN_SERIES = PATCHES

_TAKEN_IN = re.compile(r'\btext\("([^"]+)"\)')

S = TypeVar("S")


class Fact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value read from a pristine tree: what `pattern`'s first group matches inside `scope` of `file`.

    `all` collects every match as a list (in order, without repeats); `default` is used for a tree without a match.
    `eras` are those whose trees are read, the value is empty in others; without names all eras are read.
    """

    target: Target
    file: str
    pattern: str
    scope: str = ""
    all: bool = False
    default: str | None = None
    eras: tuple[str, ...] = ()


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of series.yaml, in order of application.

    `serves` is a packaging specifier over llama.cpp's build number or Ollama's version, for the newest era of Ollama's
    tree, or a mapping from eras to specifiers. Where llama.cpp is a part of Ollama's tree, it has Ollama's version.
    Parts of one `concern` are alternatives for different upstream ranges; every tree of an era with such parts needs
    one of them.
    """

    concern: str
    target: Target
    serves: str | dict[str, str]
    why: str
    until: str
    edits: str = ""
    patch: str = ""
    files: dict[str, str] = {}
    """our own files: path in the target -> path below the series"""

    def __post_init__(self) -> None:
        for path in self.files:
            require_path(path)

    @property
    def ranges(self) -> dict[str, str]:
        """What the part serves, by era."""
        return {eras.NEWEST: self.serves} if isinstance(self.serves, str) else self.serves


class Proven(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The builds of llama.cpp on which `series.drift --run` found nothing, and the newest of them.

    `builds` is a packaging specifier such as >=8619,<=10587; `newest` its last build's commit and date.
    """

    builds: str
    newest: str
    ollama: str = ""
    """a stable release of Ollama that pins a build in the range, for whoever wants no surprise; empty: none is named"""

    def beyond(self, version: str) -> str:
        """A message for a build that is newer than the proven range; else empty."""
        if SpecifierSet(self.builds).contains(version) or all(
            not one.operator.startswith("<") or one.contains(version) for one in SpecifierSet(self.builds)
        ):
            return ""
        return f"b{version} is newer than proven: {self.builds} ({self.newest})"


class SeriesFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """series.yaml."""

    version: Literal[1]
    types: tuple[CacheType, ...]
    averages: dict[str, str] = {}
    facts: dict[str, Fact]
    parts: tuple[Part, ...]
    proven: Proven | None = None
    model_option: str = ""


class EditFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of anchored edits."""

    edits: tuple[Edit, ...]


@record
class LoadedPart:
    """A part with the contents of its files."""

    part: Part
    edits: tuple[Edit, ...]
    patch: bytes
    files: dict[str, bytes]
    texts: dict[str, str]
    """files that the part's templates include with `text("path below the series")`"""


@record
class Series:
    """A loaded and checked series. `sha256` is the digest of the seal, and so of every file."""

    root: Path
    types: tuple[CacheType, ...]
    facts: dict[str, Fact]
    parts: tuple[LoadedPart, ...]
    sha256: str
    contract: tuple[Symbol, ...] = ()
    """symbols of llama.cpp that our sources use"""
    proven: Proven | None = None
    model_option: str = ""
    """option of a model that overrides the service's cache type; empty: there is none"""


def load_series(run: Run) -> Series:
    """The configured series, checked against its checksums."""
    return load(root_of(run.config))


def root_of(config: Config) -> Path:
    """The folder of the configured series."""
    path = config.series.path
    return Path(path).expanduser() if path else OWN_SERIES


def load(root: Path = OWN_SERIES) -> Series:
    """Read the series at `root`.

    Raises `ChecksumMismatch` when a file differs from SHA256SUMS, and `SeriesError` when one is malformed or missing.
    """
    _require_series(root)
    return _sealed(root, check_seal(root))


@lru_cache(maxsize=8)
def _sealed(root: Path, digest: str) -> Series:
    """The series whose files have this digest; reading its documents takes far longer than checking their seal."""
    head = _decode(root / "series.yaml", SeriesFile)
    for kind in head.types:
        if kind.block < 1 or kind.bytes < 1:
            raise SeriesError(f"series.yaml: type {kind.name!r}: {kind.block} values in {kind.bytes} bytes")
    parts = tuple(_load_part(root, part) for part in head.parts)
    seen: set[str] = set()
    for loaded in parts:
        for edit in loaded.edits:
            name = f"{loaded.part.edits}:{edit.name}"
            if name in seen:
                raise SeriesError(f"{name}: two edits have this name", hint="names must be unique")
            seen.add(name)
    if head.proven:
        _require_range("proven", head.proven.builds)
    for name, fact in head.facts.items():
        _known_eras(f"fact {name}", fact.eras)
        patterns.check(f"fact {name}", fact.pattern, groups=1)
    contract = root / symbols.NAME
    stated = _decoded(symbols.NAME, contract.read_bytes()) if contract.is_file() else ""
    return Series(
        root=root,
        types=head.types,
        facts=head.facts,
        parts=parts,
        sha256=digest,
        contract=symbols.parse(stated, symbols.NAME),
        proven=head.proven,
        model_option=head.model_option,
    )


def proven(root: Path = OWN_SERIES) -> Proven | None:
    """The range that the series at `root` is proven on. Reads series.yaml alone. Raises `SeriesError`."""
    _require_series(root)
    return _decode(root / "series.yaml", SeriesFile).proven


@record
class Sealed:
    """The digest of a series after `seal`."""

    series_sha256: str


def seal(root: Path = OWN_SERIES) -> str:
    """Write SHA256SUMS for the current files; returns the series' digest."""
    _require_series(root)
    text = "".join(f"{sha256_file(root / path)}  {path}\n" for path in sorted(_files(root)))
    write_bytes(root / SEAL, text.encode())
    return sha256_bytes(text.encode())


def check_seal(root: Path) -> str:
    """Check every file of the series against SHA256SUMS; returns the digest of the series."""
    try:
        text = (root / SEAL).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ChecksumMismatch(f"{root / SEAL}: cannot be read: {error}", hint="./inv series.seal") from error
    stated: dict[str, str] = {}
    for line in text.splitlines():
        digest, separator, path = line.partition("  ")
        if not separator:
            raise ChecksumMismatch(f"{root / SEAL}: malformed line {line!r}", hint="./inv series.seal")
        stated[path] = digest
    found = {path: sha256_file(root / path) for path in _files(root)}
    wrong = sorted(path for path in stated.keys() | found.keys() if stated.get(path) != found.get(path))
    if wrong:
        raise ChecksumMismatch(
            f"{root}: files differ from {SEAL}: {', '.join(wrong)}",
            hint="restore the files with git, or ./inv series.seal if you edited them",
        )
    return sha256_bytes(text.encode())


def _require_series(root: Path) -> None:
    if not (root / "series.yaml").is_file():
        raise SeriesError(f"{root}: there is no series.yaml", hint="series.path names the folder of a patch series")


def allows(part: Part, era: str, version: str) -> bool:
    """Whether a part applies to an upstream version (a build number, or Ollama's version) of an era."""
    return era in part.ranges and SpecifierSet(part.ranges[era]).contains(version, prereleases=True)


def serves(series: Series, era: str, version: str) -> bool:
    """Whether any part is for an Ollama of this era and version."""
    return any(allows(loaded.part, era, version) for loaded in series.parts if loaded.part.target == "ollama")


def require_era(series: Series, era: str) -> None:
    """Raise `SeriesError` when the series has no part for an era."""
    if not any(era in loaded.part.ranges for loaded in series.parts):
        raise SeriesError(
            f"the series has no part for the {era} era", hint="add one to series.yaml, or take another Ollama"
        )


def _files(root: Path) -> Iterator[str]:
    for path in root.rglob("*"):
        if path.is_file() and path.name != SEAL and not any(name.startswith(".") for name in path.parts[-2:]):
            yield path.relative_to(root).as_posix()


def _load_part(root: Path, part: Part) -> LoadedPart:
    _known_eras(part.concern, part.ranges)
    for serves in part.ranges.values():
        _require_range(f"{part.concern}: serves", serves)
    if not (part.edits or part.patch or part.files):
        raise SeriesError(f"series.yaml: {part.concern}: has neither edits, nor a patch, nor files")
    edits = _decode(_inside(root, part.edits), EditFile).edits if part.edits else ()
    for edit in edits:
        for probe in (edit.upstreamed_when, edit.not_if):
            if probe:
                patterns.check(f"{part.edits}: {edit.name}", probe.pattern)
    files = {path: _inside(root, source).read_bytes() for path, source in part.files.items()}
    taken = {
        name
        for path, source in part.files.items()
        if source.endswith(".j2")
        for name in _TAKEN_IN.findall(_decoded(source, files[path]))
    }
    return LoadedPart(
        part=part,
        edits=edits,
        patch=_inside(root, part.patch).read_bytes() if part.patch else b"",
        files=files,
        texts={name: _decoded(name, _inside(root, name).read_bytes()) for name in sorted(taken)},
    )


def _known_eras(where: str, names: Iterable[str]) -> None:
    try:
        for name in names:
            eras.named(name)
    except UnknownLayout as error:
        raise SeriesError(f"series.yaml: {where}: {error.message}", hint=error.hint) from error


def _require_range(what: str, text: str) -> None:
    """Raise `SeriesError` unless the text is a packaging specifier whose numbers can be read."""
    try:
        SpecifierSet(text).contains("1")
    except (InvalidSpecifier, ValueError) as error:
        said = str(error)[:200]
        raise SeriesError(f"series.yaml: {what}: {said}", hint="for example >=9452,<12000") from error


def _inside(root: Path, relative: str) -> Path:
    path = root / relative
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            raise SeriesError(f"series.yaml: {relative}: leaves the folder of the series")
        if not path.is_file():
            raise SeriesError(f"series.yaml: {relative}: no such file in {root}")
    except (OSError, ValueError) as error:  # a name that is too long, or has a NUL
        raise SeriesError(f"series.yaml: {relative[:80]!r}: no name of a file: {error}") from error
    return path


def _decoded(source: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise SeriesError(f"series.yaml: {source}: {error}", hint="it must be UTF-8") from error


def _decode(path: Path, kind: type[S]) -> S:
    try:
        return msgspec.convert(read_yaml(path), kind)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise SeriesError(f"{path}: {error}") from error
