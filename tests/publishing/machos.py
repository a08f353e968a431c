"""Mach-O files without a compiler, and signatures in them without Apple: as loader.h and cs_blobs.h lay them down.

This is written apart from toolchain.publishing: it lays bytes out, and reads only what it must change. It models what
codesign and its codesign_allocate do to a file: the load command is added at the end, or stays where it is; __LINKEDIT
grows; a signature replaces the one before. A real signature's requirements and CMS are not modelled: here they are some
bytes.
"""

from __future__ import annotations

import hashlib
import struct

EXECUTABLE, DYLIB = 2, 6
ARM64, X86_64 = 0x0100000C, 0x01000007
ADHOC, RUNTIME, LINKER_SIGNED = 0x2, 0x10000, 0x20000
DEVELOPER_ID = bytes.fromhex("060a2a864886f76364060206")
TIMESTAMP = bytes.fromhex("060b2a864886f70d010910020e")
_PAGE = 0x1000
_TEXT = 0x4000


def _segment(name: bytes, offset: int, size: int, *sections: bytes) -> bytes:
    fixed = struct.pack(
        "<II16sQQQQIIII",
        0x19, 72 + 80 * len(sections), name, offset, -(-size // _TEXT) * _TEXT, offset, size, 5, 5, len(sections), 0,
    )  # fmt: skip
    return fixed + b"".join(sections)


def make(
    kind: int = EXECUTABLE, *, content: bytes = b"code", minimum: tuple[int, int] = (14, 0), processor: int = ARM64,
    system: int = 1, symbols: bytes = b"_main\0_tq\0",
) -> bytes:  # fmt: skip
    """An unsigned file of two segments, for macOS `minimum` and newer."""
    commands = [
        _segment(
            b"__TEXT",
            0,
            _TEXT,
            struct.pack("<16s16sQQIIIIIIII", b"__text", b"__TEXT", 0x800, 0x800, 0x800, 2, 0, 0, 0x80000400, 0, 0, 0),
        ),
        _segment(b"__LINKEDIT", _TEXT, len(symbols)),
        struct.pack("<II16s", 0x1B, 24, hashlib.sha256(content).digest()[:16]),
        struct.pack("<IIIIII", 0x32, 24, system, minimum[0] << 16 | minimum[1] << 8, 14 << 16, 0),
    ]
    header = struct.pack("<8I", 0xFEEDFACF, processor, 0, kind, len(commands), sum(map(len, commands)), 0x85, 0)
    return (header + b"".join(commands)).ljust(0x800, b"\0") + content.ljust(_TEXT - 0x800, b"\0") + symbols


def universal(*parts: bytes) -> bytes:
    """A universal file."""
    data = bytearray(struct.pack(">II", 0xCAFEBABE, len(parts)).ljust(0x4000, b"\0"))
    for index, part in enumerate(parts):
        data += bytes(-len(data) % 0x4000)
        struct.pack_into(">IIIII", data, 8 + 20 * index, *struct.unpack_from("<II", part, 4), len(data), len(part), 14)
        data += part
    return bytes(data)


def sign(
    data: bytes, identifier: str, *, flags: int = ADHOC, cms: bytes = b"", entitlements: bytes = b"", team: str = ""
) -> bytes:
    """The file with a signature, instead of one that it has; of a universal file, each part."""
    if data[:4] == b"\xca\xfe\xba\xbe":
        places = [struct.unpack_from(">II", data, 8 + 20 * index + 8) for index in range(data[7])]
        parts = [data[offset : offset + size] for offset, size in places]
        return universal(
            *(sign(one, identifier, flags=flags, cms=cms, entitlements=entitlements, team=team) for one in parts)
        )
    out = bytearray(data)
    at, links = 32, []
    place = linkedit = 0
    count, total = struct.unpack_from("<II", out, 16)
    for _ in range(count):
        kind, size = struct.unpack_from("<II", out, at)
        if kind == 0x1D:
            place = at
            del out[struct.unpack_from("<I", out, at + 8)[0] :]
        if kind == 0x19 and out[at + 8 : at + 18] == b"__LINKEDIT":
            linkedit = at
        links.append(kind)
        at += size
    if not place:
        place = at
        struct.pack_into("<II", out, 16, count + 1, total + 16)
    out += bytes(-len(out) % 16)
    limit = len(out)
    size = len(_blobs(bytes(out), limit, identifier, flags, cms, entitlements, team))
    size += -size % 16 + 32  # codesign reserves more than it needs
    struct.pack_into("<IIII", out, place, 0x1D, 16, limit, size)
    start = struct.unpack_from("<Q", out, linkedit + 40)[0]
    struct.pack_into("<Q", out, linkedit + 48, limit + size - start)
    struct.pack_into("<Q", out, linkedit + 32, -(-(limit + size - start) // _TEXT) * _TEXT)
    return bytes(out) + _blobs(bytes(out), limit, identifier, flags, cms, entitlements, team).ljust(size, b"\0")


def _blobs(
    data: bytes, limit: int, identifier: str, flags: int, cms: bytes, entitlements: bytes, team: str
) -> bytes:  # fmt: skip
    others = {2: struct.pack(">III", 0xFADE0C01, 12, 0)}
    if entitlements:
        others[5] = struct.pack(">II", 0xFADE7171, 8 + len(entitlements)) + entitlements
    names = identifier.encode() + b"\0" + (team.encode() + b"\0" if team else b"")
    special = max(others)
    hashes = b"".join(
        hashlib.sha256(others[slot]).digest() if slot in others else bytes(32) for slot in range(special, 0, -1)
    )
    pages = [hashlib.sha256(data[at : min(at + _PAGE, limit)]).digest() for at in range(0, limit, _PAGE)]
    fixed = 88
    offset = fixed + len(names) + len(hashes)
    directory = struct.pack(
        ">9I4BIIIIQQQQ",
        0xFADE0C02, offset + 32 * len(pages), 0x20400, flags, offset, fixed, special, len(pages), limit,
        32, 2, 0, 12, 0, 0, fixed + len(identifier) + 1 if team else 0, 0, 0, 0, _TEXT, 1,
    ) + names + hashes + b"".join(pages)  # fmt: skip
    blobs = {0: directory, **others, 0x10000: struct.pack(">II", 0xFADE0B01, 8 + len(cms)) + cms}
    index, body = b"", b""
    for slot, blob in blobs.items():
        index += struct.pack(">II", slot, 12 + 8 * len(blobs) + len(body))
        body += blob
    return struct.pack(">III", 0xFADE0CC0, 12 + len(index) + len(body), len(blobs)) + index + body
