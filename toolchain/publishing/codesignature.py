"""The signature in a Mach-O file, read without Apple's tools: who signed, how, and whether it fits the file.

A signature is a list of blobs (Apple's cs_blobs.h): code directories with a digest of each page of the file and of
the other blobs, and a CMS signature over them, which an ad hoc one lacks. Only codesign verifies the CMS signature.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..build.macho import Image, images
from ..core.delivery_errors import SigningFailed

Signing = Literal["none", "adhoc", "self-signed", "developer-id"]
_SUPERBLOB, _DIRECTORY, _CMS = 0xFADE0CC0, 0xFADE0C02, 0xFADE0B01
_DIRECTORY_SLOTS = (0, *range(0x1000, 0x1005))
_ENTITLEMENTS_SLOTS = (5, 7)
_CMS_SLOT = 0x10000
_SPECIAL_SLOTS = 11
_ADHOC, _RUNTIME, _LINKER = 0x2, 0x10000, 0x20000
_FIELDS = struct.Struct(">9I4BI")
_HASHES = {1: ("sha1", 20), 2: ("sha256", 32), 3: ("sha256", 20), 4: ("sha384", 48)}
_TEAM_VERSION = 0x20200
_DEVELOPER_ID = tuple(bytes.fromhex(f"060a2a864886f7636406{mark}") for mark in ("0206", "010d"))
"""the DER of the object identifiers that mark Apple's authority for Developer ID, and a certificate from it"""
_TIMESTAMP = bytes.fromhex("060b2a864886f70d010910020e")
"""that of a time-stamp token, which only a time-stamp server makes"""


@dataclass(frozen=True)
class Signature:
    """What the signature of an image says. `problem` is why it does not fit the image; empty if it does."""

    signing: Signing
    identifier: str = ""
    team: str = ""
    hardened: bool = False
    by_linker: bool = False
    entitled: bool = False
    timestamped: bool = False
    problem: str = ""


def read(image: Image) -> Signature:
    """The signature of an image. Raises `ReleaseInvalid` for a malformed image."""
    if (place := image.signature) is None:
        return Signature(signing="none")
    try:
        return _read(image, image.data[place[0] :], place[0])
    except (struct.error, IndexError, ValueError) as error:
        return Signature(signing="none", problem=f"its signature is damaged: {error}")


def signing(paths: Iterable[Path]) -> Signing:
    """How these files are signed; "none" without files. Raises `SigningFailed` where they differ or one is damaged."""
    kinds: dict[Signing, Path] = {}
    for path in paths:
        for image in images(path):
            found = read(image)
            if found.problem:
                raise SigningFailed(f"{path}: {found.problem}", hint="build it again, or ./inv release.sign")
            kinds.setdefault(found.signing, path)
    if len(kinds) > 1:
        listed = ", ".join(f"{path.name}: {kind}" for kind, path in kinds.items())
        raise SigningFailed(f"its files are signed in different ways: {listed}", hint="./inv release.sign")
    return next(iter(kinds), "none")


def _read(image: Image, data: bytes, limit: int) -> Signature:
    magic, _, count = struct.unpack_from(">III", data)
    if magic != _SUPERBLOB or count > 64:
        raise ValueError("no list of blobs")
    blobs = {}
    for index in range(count):
        slot, offset = struct.unpack_from(">II", data, 12 + 8 * index)
        (size,) = struct.unpack_from(">I", data, offset + 4)
        if slot in blobs or not 8 <= size <= len(data) - offset:
            raise ValueError("blobs out of place")
        blobs[slot] = data[offset : offset + size]
    directories = [blobs[slot] for slot in _DIRECTORY_SLOTS if slot in blobs]
    if not directories:
        raise ValueError("no code directory")
    (flags,) = {struct.unpack_from(">I", one, 12)[0] for one in directories}
    cms = blobs.get(_CMS_SLOT, b"")[8:]
    identifier, team = _names(directories[-1])
    problem = next(filter(None, (_mismatch(one, image, blobs, limit) for one in directories)), "")
    if bool(cms) == bool(flags & _ADHOC):
        problem = problem or "its signature is neither ad hoc nor by a certificate"
    kind: Signing = (
        "adhoc" if flags & _ADHOC else "developer-id" if any(mark in cms for mark in _DEVELOPER_ID) else "self-signed"
    )
    return Signature(
        signing=kind,
        identifier=identifier,
        team=team,
        hardened=bool(flags & _RUNTIME),
        by_linker=bool(flags & _LINKER),
        entitled=any(slot in blobs for slot in _ENTITLEMENTS_SLOTS),
        timestamped=_TIMESTAMP in cms,
        problem=problem,
    )


def _names(directory: bytes) -> tuple[str, str]:
    """Identifier and team."""
    version, identifier = struct.unpack_from(">I", directory, 8)[0], struct.unpack_from(">I", directory, 20)[0]
    team = struct.unpack_from(">I", directory, 48)[0] if version >= _TEAM_VERSION else 0
    return _text(directory, identifier), _text(directory, team) if team else ""


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode(errors="replace")


def _mismatch(directory: bytes, image: Image, blobs: dict[int, bytes], limit: int) -> str:
    """Why a code directory does not fit the image; empty if it does."""
    magic, _, _, _, hashes, _, special, pages, end, size, kind, _, exponent, _ = _FIELDS.unpack_from(directory)
    if magic != _DIRECTORY or (_HASHES.get(kind, ("", 0))[1]) != size:
        return "its code directory has an unknown format"
    if end != limit:
        return "its signature is for a file of another size"
    name, _ = _HASHES[kind]
    step = 1 << exponent if exponent else limit
    if pages != -(-limit // step) or hashes + pages * size > len(directory) or special * size > hashes:
        return "its code directory is damaged"
    for index in range(pages):
        page = image.data[index * step : min((index + 1) * step, limit)]
        if hashlib.new(name, page).digest()[:size] != directory[hashes + index * size :][:size]:
            return f"its content was changed after it was signed (page {index})"
    for slot in range(1, _SPECIAL_SLOTS + 1):
        stated = directory[hashes - slot * size :][:size] if slot <= special else b""
        if slot in blobs and hashlib.new(name, blobs[slot]).digest()[:size] != stated:
            return f"a part of its signature was changed (slot {slot})"
    return ""
