"""Property lists of anybody, in a folder where every program may leave one: they are read, or passed over."""

from __future__ import annotations

import os
import plistlib
from collections.abc import Callable
from pathlib import Path

import pytest

from toolchain.service import propertylist
from toolchain.service.emulator import jobspec
from toolchain.service.emulator.refused import Refused


def _sparse(file: Path, size: int) -> None:
    with file.open("wb") as opened:
        opened.truncate(size)


_XML = b"<?xml version='1.0'?><plist version='1.0'>%b</plist>"
ODD: dict[str, Callable[[Path], object]] = {
    "date": lambda file: file.write_bytes(_XML % b"<dict><key>Label</key><date>x</date></dict>"),
    "empty key": lambda file: file.write_bytes(_XML % b"<dict><string>Label</string></dict>"),
    "list": lambda file: file.write_bytes(_XML % b"<array/>"),
    "binary": lambda file: file.write_bytes(b"bplist00" + bytes(range(40))),
    "pipe": os.mkfifo,
    "endless": lambda file: file.symlink_to("/dev/zero"),
    "huge": lambda file: _sparse(file, 1 << 40),
    "folder": Path.mkdir,
    "dangling": lambda file: file.symlink_to("nowhere"),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_file_is_passed_over(odd: str, tmp_path: Path) -> None:
    file = tmp_path / "x.plist"
    ODD[odd](file)
    (tmp_path / "ours.plist").write_bytes(plistlib.dumps({"Label": "a"}))
    assert propertylist.of_label("a", (tmp_path,)) == (tmp_path / "ours.plist",)
    assert (propertylist.read(file), propertylist.program(file)) == ({}, "?")
    assert (propertylist.session_types(file), propertylist.user_name(file)) == ((), "")
    with pytest.raises(Refused):
        jobspec.read(file, [os.getuid()])


def test_odd_values_are_read(tmp_path: Path) -> None:
    file = tmp_path / "x.plist"
    content = {"LimitLoadToSessionType": 5, "Program": "/a\0b", "UserName": [1], "ThrottleInterval": 1}
    file.write_bytes(plistlib.dumps(content, fmt=plistlib.FMT_BINARY))
    assert propertylist.session_types(file) == ()
    assert propertylist.program(file) == "/a?b"
    assert propertylist.entries(file.read_bytes())["ThrottleInterval"] == "1"
    job = plistlib.dumps({"Label": "a", "Program": "/b", "ThrottleInterval": 0}).replace(
        b"r>0<", b"r>1" + b"0" * 400 + b"<"
    )
    with pytest.raises(Refused, match="a number of seconds"):
        jobspec.parse(job, "x")
