"""Property lists of others, as they lie in LaunchAgents: XML and binary, and objects that share their parts."""

from __future__ import annotations

import datetime
import plistlib
import random
import struct
from pathlib import Path
from typing import Any

from toolchain.core.errors import ToolchainError
from toolchain.service import propertylist
from toolchain.service.emulator import jobspec
from toolchain.service.emulator.refused import Refused
from toolchain.smoke import parsing
from toolchain.smoke.tree import File

from .subject import Subject, damaged, odd

_JOB: dict[str, Any] = {
    "Label": "io.turboquant.ollama",
    "ProgramArguments": ["/opt/turboquant/bin/turboquant-ollama", "serve"],
    "Program": "/opt/turboquant/bin/turboquant-ollama",
    "EnvironmentVariables": {"HOME": "/Users/a", "OLLAMA_KV_CACHE_TYPE": "turbo4"},
    "KeepAlive": {"SuccessfulExit": False},
    "LimitLoadToSessionType": ["Aqua", "Background"],
    "ThrottleInterval": 10,
    "ExitTimeOut": 10,
    "RunAtLoad": True,
    "UserName": "a",
    "StandardOutPath": "/tmp/log",
}
_KINDS = {"json", "xml", "plist"}


def _made(dice: random.Random) -> bytes:
    kind = dice.random()
    if kind < 0.15:
        return _shared(dice)
    if kind < 0.25:
        return _deep(dice)
    job = _fit(odd(_JOB, dice, _WORDS)) if dice.random() < 0.7 else _JOB
    if not isinstance(job, dict):
        job = {"Label": job}
    form = dice.choice((plistlib.FMT_XML, plistlib.FMT_BINARY))
    data = plistlib.dumps(job, fmt=form, sort_keys=False)
    return data if dice.random() < 0.4 else damaged(data, dice, _TAGS)


_WORDS = (plistlib.UID(7), b"data", datetime.datetime(2026, 1, 1), "\ufffe", "/bin/sh")
_TAGS = (
    b"<integer>" + b"9" * 5000 + b"</integer>",
    b"<integer>0x",
    b"<date>9999-99-99T00:00:00Z</date>",
    b"<real>nan</real>",
    b'<!DOCTYPE plist [<!ENTITY a "b">]>',
    b"<array>" * 20_000,
    b"</dict>",
    b"<key>",
    b"\x3f\xff",
    b"\xdf\x13\x7f\xff\xff\xff\xff",
)


def _fit(value: Any) -> Any:
    """As a property list can hold it."""
    match value:
        case dict():
            return {_text(str(key)): _fit(one) for key, one in value.items() if one is not None}
        case list():
            return [_fit(one) for one in value if one is not None]
        case str():
            return _text(value)
        case int() if not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 64:
            return (1 << 64) - 1
        case None:
            return False
    return value


def _text(value: str) -> str:
    return "".join(letter for letter in value if letter >= " " and not "\ud800" <= letter <= "\udfff")


def _shared(dice: random.Random) -> bytes:
    """A binary list whose every level names the next one several times, or itself."""
    width, levels, of_dicts = dice.choice((2, 10, 100)), dice.choice((3, 12, 60)), dice.random() < 0.5
    turn = dice.random() < 0.2
    objects = [b"\xd1\x01\x02", b"\x55Label"]
    for level in range(levels):
        target = 2 if turn else 3 + level
        if of_dicts:
            keys = bytes([1]) * width
            objects.append((b"\xdf\x10" + bytes((width,))) + keys + bytes((target,)) * width)
        else:
            objects.append(b"\xaf\x10" + bytes((width,)) + bytes((target,)) * width)
    objects.append(b"\x51x")
    if of_dicts:  # of different keys, so that all count
        first = len(objects)
        objects += [b"\x52" + struct.pack(">H", 0x4141 + number) for number in range(width)]
        keys = bytes(range(first, min(first + width, 255)))
        objects[2 : 2 + levels] = [
            b"\xdf\x10" + bytes((len(keys),)) + keys + bytes((2 if turn else 3 + level,)) * len(keys)
            for level in range(levels)
        ]
    body, offsets = b"bplist00", []
    for one in objects:
        offsets.append(len(body))
        body += one
    table = b"".join(struct.pack(">I", offset) for offset in offsets)
    return body + table + struct.pack(">6xBBQQQ", 4, 1, len(objects), 0, len(body))


def _deep(dice: random.Random) -> bytes:
    depth, key = (
        dice.choice((30, 900, 5000, 20_000)),
        dice.choice(("Program", "UserName", "Label", "ProgramArguments")),
    )
    opening, closing = dice.choice(((b"<array>", b"</array>"), (b"<dict><key>a</key>", b"</dict>")))
    inner = opening * depth + b"<true/>" + closing * depth
    begin = b'<?xml version="1.0" encoding="UTF-8"?>\n<plist version="1.0"><dict><key>' + key.encode() + b"</key>"
    return begin + inner + b"</dict></plist>"


def _read(path: Path) -> None:
    propertylist.session_types(path)
    propertylist.user_name(path)
    propertylist.program(path)
    propertylist.of_label("io.turboquant.ollama", [path.parent])
    data = path.read_bytes()
    for name, value in propertylist.entries(data).items():
        assert isinstance(name, str)
        assert isinstance(value, str)
    list(parsing.faults(File(root=path.parent, name=path.name, is_link=False, executable=False)))
    path.chmod(0o644)
    jobspec.read(path, {path.stat().st_uid})


SUBJECT = Subject(make=_made, read=_read, name="job.plist", alone=(ToolchainError, Refused))
