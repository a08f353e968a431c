"""Mach-O files as bytes: their platform, and the file without its signature.

The formats are those of Apple's <mach-o/loader.h> and <mach-o/fat.h>. Only 64-bit little-endian files are read, as
macOS has had no others since 10.15; a universal file holds several.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import ReleaseInvalid
from ..stages import Release

LIBRARY, BUNDLE = 6, 8
"""file types that a program loads"""
_MAGIC = 0xFEEDFACF
_OTHERS = tuple(bytes.fromhex(one) for one in ("feedface", "cefaedfe", "feedfacf"))
"""32 bits, or big-endian"""
_FAT, _FAT_64 = 0xCAFEBABE, 0xCAFEBABF
_SLICES = 16
"""a universal file has two; a Java class begins with the same four bytes, and then a version from 45 on"""
_HEADER, _SEGMENT = struct.Struct("<8I"), struct.Struct("<II16sQQQQIIII")
_LC_SEGMENT_64, _LC_CODE_SIGNATURE, _LC_BUILD_VERSION, _LC_VERSION_MIN_MACOSX = 0x19, 0x1D, 0x32, 0x24
_MACOS = 1
_ALIGNED = 16
"""a signature begins at a multiple of it, so that signing may add up to 15 zeros before"""
_LIMIT = 4 << 30
_PAGE = {0x0100000C: 0x4000}
"""bytes of a page by processor, arm64; others have 4096"""


@dataclass(frozen=True)
class Image:
    """One Mach-O file, or one processor's part of a universal file."""

    name: str
    """of the file, for messages"""
    data: bytes
    processor: tuple[int, int]
    kind: int
    """file type"""
    commands: tuple[tuple[int, int, int], ...]
    """type, offset and size of each load command"""

    def command(self, kind: int) -> tuple[int, int] | None:
        """Offset and size of the only load command of a type. Raises `ReleaseInvalid` when there are several."""
        found = [(offset, size) for one, offset, size in self.commands if one == kind]
        if len(found) > 1:
            raise _malformed(self.name, f"{len(found)} load commands of type {kind:#x}")
        return found[0] if found else None

    @property
    def signature(self) -> tuple[int, int] | None:
        """Offset and size of the embedded signature. Raises `ReleaseInvalid` when it is not the end of the file."""
        if (found := self.command(_LC_CODE_SIGNATURE)) is None:
            return None
        offset, size = struct.unpack_from("<II", self.data, found[0] + 8)
        if found[1] != _ALIGNED or offset % _ALIGNED or not size or offset + size != len(self.data):
            raise _malformed(self.name, "its signature is not at its end")
        return offset, size

    @property
    def minimum(self) -> tuple[int, int, int]:
        """The oldest macOS that it runs on; zeros if it states none. Raises `ReleaseInvalid` for another system."""
        if (found := self.command(_LC_BUILD_VERSION)) is not None:
            system, version = struct.unpack_from("<II", self.data, found[0] + 8)
            if system != _MACOS:
                raise _malformed(self.name, f"it is for another of Apple's systems (platform {system})")
        elif (found := self.command(_LC_VERSION_MIN_MACOSX)) is not None:
            (version,) = struct.unpack_from("<I", self.data, found[0] + 8)
        else:
            return 0, 0, 0
        return version >> 16, version >> 8 & 0xFF, version & 0xFF


def is_macho(path: Path) -> bool:
    """Whether a file is a Mach-O file, by its first bytes. Raises `ReleaseInvalid` for one that is not read here."""
    with path.open("rb") as file:
        first = file.read(8).ljust(8, b"\0")
    if first[:4] in _OTHERS:
        raise _malformed(str(path), "it is not of 64 bits and little-endian")
    magic, count = struct.unpack(">II", first)
    return first[:4] == _MAGIC.to_bytes(4, "little") or (magic in (_FAT, _FAT_64) and 0 < count <= _SLICES)


def files(folder: Path, release: Release) -> dict[str, Path]:
    """The Mach-O files of a release by name: libraries first, then programs, as they are signed."""
    paths = {name: folder / name for name in release.files if not (folder / name).is_symlink()}
    found = {name: path for name, path in paths.items() if is_macho(path)}
    kinds = {name: images(path)[0].kind for name, path in found.items()}
    return {name: found[name] for name in sorted(found, key=lambda name: (kinds[name] not in (LIBRARY, BUNDLE), name))}


def images(path: Path) -> tuple[Image, ...]:
    """The images of a Mach-O file. Raises `ReleaseInvalid` when it is malformed."""
    if path.stat().st_size > _LIMIT:
        raise _malformed(str(path), "it is too large")
    data = path.read_bytes()
    try:
        return tuple(_image(str(path), part) for part in _parts(data))
    except (struct.error, ValueError) as error:
        raise _malformed(str(path), str(error)) from error


def _parts(data: bytes) -> Iterator[bytes]:
    magic, count = struct.unpack_from(">II", data)
    if magic not in (_FAT, _FAT_64):
        yield data
        return
    layout = struct.Struct(">IIIII" if magic == _FAT else ">IIQQII")
    for index in range(count):
        _, _, offset, size, *_ = layout.unpack_from(data, 8 + index * layout.size)
        if offset + size > len(data):
            raise ValueError("a part of it ends behind its end")
        yield data[offset : offset + size]


def _image(name: str, data: bytes) -> Image:
    magic, processor, variant, kind, count, size, _, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC or _HEADER.size + size > len(data):
        raise ValueError("its header is damaged")
    commands, at = [], _HEADER.size
    for _ in range(count):
        one, length = struct.unpack_from("<II", data, at)
        if length < 8 or length % 4 or at + length > _HEADER.size + size:
            raise ValueError("its load commands are damaged")
        commands.append((one, at, length))
        at += length
    return Image(name=name, data=data, processor=(processor, variant), kind=kind, commands=tuple(commands))


def minimum_macos(paths: Iterable[Path]) -> str:
    """The oldest macOS that all these files run on, as in 14.0; empty if none of them says."""
    newest = max((image.minimum for path in paths for image in images(path)), default=(0, 0, 0))
    return ".".join(map(str, newest if newest[2] else newest[:2])) if any(newest) else ""


def unsigned_digest(path: Path) -> str:
    """SHA-256 of a Mach-O file without its signature: the same before and after signing, whoever signs.

    Of a universal file, it is over the processors and the digests of the parts. Raises `ReleaseInvalid`.
    """
    found = images(path)
    digests = [hashlib.sha256(without_signature(one)).hexdigest() for one in found]
    if len(found) == 1:
        return digests[0]
    parts = zip((one.processor for one in found), digests, strict=True)
    lines = "".join(f"{kind:x} {variant:x} {digest}\n" for (kind, variant), digest in parts)
    return hashlib.sha256(lines.encode()).hexdigest()


def without_signature(image: Image) -> bytes:
    """A Mach-O file as if it had never been signed, and then been padded to where a signature would begin.

    Signing adds a load command, the signature at the end, and its size to that of __LINKEDIT. These are taken back.
    """
    data = bytearray(image.data)
    if signature := image.signature:
        del data[signature[0] :]
        command = image.command(_LC_CODE_SIGNATURE)
        assert command is not None
        offset, size = command
        count, total = struct.unpack_from("<II", data, 16)
        end = _HEADER.size + total
        data[offset:end] = data[offset + size : end] + bytes(size)
        struct.pack_into("<II", data, 16, count - 1, total - size)
    data += bytes(-len(data) % _ALIGNED)
    stripped = _image(image.name, bytes(data))
    for kind, at, _ in stripped.commands:
        if kind != _LC_SEGMENT_64:
            continue
        fields = list(_SEGMENT.unpack_from(data, at))
        if fields[2].rstrip(b"\0") == b"__LINKEDIT":
            size = len(data) - fields[5]
            if size < 0:
                raise _malformed(image.name, "__LINKEDIT begins behind its end")
            page = _PAGE.get(image.processor[0], 0x1000)
            fields[4], fields[6] = size + -size % page, size
            _SEGMENT.pack_into(data, at, *fields)
    return bytes(data)


def _malformed(name: str, why: str) -> ReleaseInvalid:
    return ReleaseInvalid(f"{name}: not a Mach-O file that can be signed or compared: {why}", hint="build it again")
