"""A Mach-O file without its signature is the same, whoever signs it, and the signature says how it was signed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.publishing import machos
from toolchain.build import macho
from toolchain.core.delivery_errors import SigningFailed
from toolchain.core.errors import ReleaseInvalid
from toolchain.publishing import codesignature

FLAGS = [machos.ADHOC, machos.ADHOC | machos.LINKER_SIGNED, machos.RUNTIME]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", range(0, 33, 5))
@pytest.mark.parametrize("processor", [machos.ARM64, machos.X86_64])
def test_signing_does_not_change_the_unsigned_digest(tmp_path: Path, size: int, processor: int) -> None:
    plain = machos.make(symbols=b"s" * (size + 1), processor=processor)
    once = machos.sign(plain, "once")
    twice = machos.sign(once, "a much longer identifier", flags=0, cms=b"c" * 3000)
    digests = {macho.unsigned_digest(write(tmp_path / "x", data)) for data in (plain, once, twice)}
    assert len(digests) == 1
    other = machos.make(symbols=b"s" * size + b"t", processor=processor)
    assert macho.unsigned_digest(write(tmp_path / "x", machos.sign(other, "once"))) not in digests
    (image,) = macho.images(write(tmp_path / "x", twice))
    stripped = write(tmp_path / "y", macho.without_signature(image))
    assert macho.images(stripped)[0].signature is None
    assert macho.without_signature(macho.images(stripped)[0]) == stripped.read_bytes()


def test_each_part_of_a_universal_file_counts(tmp_path: Path) -> None:
    arm, intel = machos.make(), machos.make(processor=machos.X86_64)
    plain = macho.unsigned_digest(write(tmp_path / "x", machos.universal(arm, intel)))
    signed = machos.universal(machos.sign(arm, "a"), machos.sign(intel, "a"))
    assert macho.unsigned_digest(write(tmp_path / "x", signed)) == plain
    other = machos.universal(arm, machos.make(processor=machos.X86_64, content=b"other"))
    assert macho.unsigned_digest(write(tmp_path / "x", other)) != plain
    assert macho.unsigned_digest(write(tmp_path / "x", machos.universal(intel, arm))) != plain


@pytest.mark.parametrize(
    ("flags", "cms", "expected"),
    [
        (machos.ADHOC, b"", "adhoc"),
        (0, b"some", "self-signed"),
        (machos.RUNTIME, machos.DEVELOPER_ID + machos.TIMESTAMP, "developer-id"),
    ],
)
def test_how_it_was_signed_is_read_from_the_file(tmp_path: Path, flags: int, cms: bytes, expected: str) -> None:
    data = machos.sign(machos.make(), "io.turboquant.x", flags=flags, cms=cms, team="TEAM" if cms else "")
    found = codesignature.read(macho.images(write(tmp_path / "x", data))[0])
    assert (found.signing, found.identifier, found.problem) == (expected, "io.turboquant.x", "")
    assert (found.hardened, found.timestamped) == (expected == "developer-id",) * 2
    assert found.team == ("TEAM" if cms else "")
    assert codesignature.signing([tmp_path / "x"]) == expected
    write(tmp_path / "y", machos.make())
    with pytest.raises(SigningFailed, match="different ways"):
        codesignature.signing([tmp_path / "x", tmp_path / "y"])


def test_a_file_without_a_signature_and_none_at_all(tmp_path: Path) -> None:
    assert codesignature.signing([write(tmp_path / "x", machos.make())]) == "none"
    assert codesignature.signing([]) == "none"


def verdict(path: Path) -> str:
    """How a file is signed, as far as anyone can tell."""
    try:
        return codesignature.signing([path]) if macho.is_macho(path) else "no Mach-O"
    except (ReleaseInvalid, SigningFailed) as error:
        return error.message


@settings(max_examples=40, deadline=None)
@given(st.integers(0), st.integers(1, 255))
def test_a_changed_byte_of_a_signed_file_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, at: int, difference: int
) -> None:
    data = bytearray(machos.sign(machos.make(), "x", entitlements=b"<plist/>"))
    (image,) = macho.images(write(tmp_path_factory.mktemp("x") / "x", bytes(data)))
    assert image.signature is not None
    at %= image.signature[0]
    data[at] ^= difference
    path = write(tmp_path_factory.mktemp("x") / "x", bytes(data))
    assert verdict(path) != "adhoc"


def test_a_changed_part_of_the_signature_is_noticed(tmp_path: Path) -> None:
    data = machos.sign(machos.make(), "x", entitlements=b"<plist/>")
    assert codesignature.read(macho.images(write(tmp_path / "x", data))[0]).entitled
    write(tmp_path / "x", data.replace(b"<plist/>", b"<plisT/>"))
    with pytest.raises(SigningFailed, match="slot 5"):
        codesignature.signing([tmp_path / "x"])
    write(tmp_path / "x", machos.sign(machos.make(), "x", flags=machos.ADHOC, cms=b"both"))
    with pytest.raises(SigningFailed, match="neither"):
        codesignature.signing([tmp_path / "x"])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_an_error_and_no_bug(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    raw = bytearray(machos.sign(machos.make(), "x"))
    if data.draw(st.booleans()):
        raw = bytearray(machos.universal(bytes(raw)))
    interesting = st.one_of(st.integers(0, 0x200), st.integers(0x4000, 0x4100), st.integers(0, len(raw) - 1))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(interesting)] = data.draw(st.integers(0, 255))
    path = write(tmp_path_factory.mktemp("x") / "x", bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    try:
        if macho.is_macho(path):
            codesignature.signing([path])
            macho.minimum_macos([path])
            macho.unsigned_digest(path)
    except (ReleaseInvalid, SigningFailed):
        pass


def test_the_oldest_macos_is_the_newest_of_all_files(tmp_path: Path) -> None:
    old = write(tmp_path / "old", machos.make(minimum=(11, 0)))
    new = write(tmp_path / "new", machos.universal(machos.make(minimum=(13, 3)), machos.make(minimum=(14, 0))))
    assert macho.minimum_macos([old]) == "11.0"
    assert macho.minimum_macos([old, new]) == "14.0"
    assert macho.minimum_macos([]) == ""
    with pytest.raises(ReleaseInvalid, match="another of Apple's systems"):
        macho.minimum_macos([write(tmp_path / "ios", machos.make(system=2))])


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n", b"\xca\xfe\xba\xbe\0\0\0\x3d", b"\xcf\xfa"])
def test_what_is_no_macho(tmp_path: Path, data: bytes) -> None:
    assert not macho.is_macho(write(tmp_path / "x", data))


def test_32_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseInvalid, match="64 bits"):
        macho.is_macho(write(tmp_path / "x", b"\xce\xfa\xed\xfe".ljust(32, b"\0")))


@pytest.mark.slow
@pytest.mark.parametrize(("target", "kind"), [("aarch64", ""), ("aarch64", "-shared"), ("x86_64", "")])
def test_what_a_real_linker_makes(tmp_path: Path, target: str, kind: str) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("needs the extra zig")
    (tmp_path / "main.c").write_text("int f(int x) { return 3 * x; }\nint main(void) { return f(2); }\n")
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", f"{target}-macos.14.2", "-nostdlib", "-O2"]
    zig += [kind] if kind else []
    home = {"ZIG_GLOBAL_CACHE_DIR": str(tmp_path / "global"), "ZIG_LOCAL_CACHE_DIR": str(tmp_path / "local")}
    subprocess.run([*zig, "-o", tmp_path / "x", tmp_path / "main.c"], check=True, env=home, cwd=tmp_path)
    linked = write(tmp_path / "linked", (tmp_path / "x").read_bytes())
    assert macho.minimum_macos([linked]) == "14.2"
    (image,) = macho.images(linked)
    found = codesignature.read(image)
    assert (found.signing, found.problem) == ("adhoc" if target == "aarch64" else "none", "")
    write(tmp_path / "x", machos.sign(linked.read_bytes(), "other", flags=0, cms=b"c" * 9999))
    assert codesignature.signing([tmp_path / "x"]) == "self-signed"
    assert macho.unsigned_digest(tmp_path / "x") == macho.unsigned_digest(linked)
