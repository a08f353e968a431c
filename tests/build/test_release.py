from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.build import MANIFEST, assemble, check, load, release_dir, release_id
from toolchain.build.release import llama_server
from toolchain.core import records
from toolchain.core.cachetypes import grammar
from toolchain.core.errors import ConfigError, DiskFull, EraNotServed, ReleaseInvalid
from toolchain.service.units.supported import require_server, require_types
from toolchain.stages import Release

DRAFT = Release(
    id="",
    version="0.33.0-rc2-turbo1",
    created="2026-08-01T00:00:00+00:00",
    platform="linux-x86_64",
    ollama_commit="a" * 40,
    llama_cpp_commit="b" * 40,
    llama_cpp_build=10470,
    series_sha256="c" * 64,
    cache_types=(),
    tools={},
    flags={},
    files={},
)


def fill(folder: Path) -> None:
    """A release's files: two programs, a library with its links, a licence."""
    for name in ("bin/ollama", "lib/ollama/llama-server"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\x7fELF " + name.encode())
        (folder / name).chmod(0o755)
    (folder / "lib/ollama/libx.so.1.2").write_bytes(b"library")
    (folder / "lib/ollama/libx.so.1").symlink_to("libx.so.1.2")
    (folder / "lib/ollama/libx.so").symlink_to("libx.so.1")
    (folder / "licenses").mkdir()
    (folder / "licenses/ollama.txt").write_text("MIT")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return release_dir(tmp_path, assemble(tmp_path, DRAFT, fill))


def test_a_release_is_named_by_its_content(tmp_path: Path, made: Path) -> None:
    release = check(made)
    assert made.name == release.id
    assert release.id.startswith("0.33.0-rc2-turbo1-")
    assert len(release.id) == len("0.33.0-rc2-turbo1-") + 12
    assert set(release.files) == {
        "bin/ollama",
        "lib/ollama/libx.so",
        "lib/ollama/libx.so.1",
        "lib/ollama/libx.so.1.2",
        "lib/ollama/llama-server",
        "licenses/ollama.txt",
    }
    assert release.files["bin/ollama"] == records.sha256_file(made / "bin/ollama")
    assert (made / "lib/ollama/libx.so").is_symlink()
    assert made.stat().st_mode & 0o777 == 0o755


def test_the_same_content_is_the_same_release_and_is_not_made_twice(tmp_path: Path, made: Path) -> None:
    before = (made / MANIFEST).stat()
    again = assemble(tmp_path, replace(DRAFT, created="2027-01-01T00:00:00+00:00"), fill)
    assert again.created == DRAFT.created, "the release that was there is the one that is returned"
    assert (made / MANIFEST).stat() == before
    other = assemble(tmp_path, replace(DRAFT, series_sha256="d" * 64), fill)
    assert other.id != again.id
    assert sorted(path.name for path in (tmp_path / "releases").iterdir() if path.is_dir()) == sorted(
        (again.id, other.id)
    )


def test_files_that_later_stages_add_are_no_strangers(made: Path) -> None:
    (made / "environment").write_text("A=1")
    (made / "verification.json").write_text("{}")
    check(made)


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"!")


def _link(path: Path, target: str) -> Path:
    path.symlink_to(target)
    return path


def _relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (lambda d: _append(d / "bin/ollama"), "bin/ollama was changed"),
    "missing": (lambda d: (d / "lib/ollama/libx.so.1.2").unlink(), r"libx\.so\.1\.2 is missing"),
    "extra": (lambda d: (d / "lib/ollama/evil.so").touch(), r"evil\.so is not in the manifest"),
    "extra link": (lambda d: (d / "lib/more").symlink_to("ollama"), "lib/more is not in the manifest"),
    "not executable": (lambda d: (d / "bin/ollama").chmod(0o644), "bin/ollama is not executable"),
    "relinked": (lambda d: _relink(d / "lib/ollama/libx.so", "libx.so.1.2"), r"libx\.so was changed"),
    "link out": (lambda d: _relink(d / "lib/ollama/libx.so", "../../../x"), "leads out"),
    "absolute link": (lambda d: _relink(d / "lib/ollama/libx.so", "/etc/passwd"), "leads out"),
    "link through a link": (
        lambda d: [_link(d / name, target) for name, target in (("here", "."), ("out", "here/../x"))],
        "leads out",
    ),
    "link instead of file": (lambda d: _relink(d / "licenses/ollama.txt", "../bin/ollama"), "was changed"),
    "setuid": (lambda d: (d / "bin/ollama").chmod(0o4755), "bin/ollama is setuid, setgid or sticky"),
    "setgid": (lambda d: (d / "lib/ollama/libx.so.1.2").chmod(0o2644), r"libx\.so\.1\.2 is setuid, setgid or sticky"),
    "writable": (lambda d: (d / "licenses/ollama.txt").chmod(0o664), "licenses/ollama.txt can be written by others"),
    "writable folder": (lambda d: (d / "lib").chmod(0o777), "lib can be written by others"),
    "executable": (lambda d: (d / "licenses/ollama.txt").chmod(0o755), "is executable, unlike in the manifest"),
    "AppleDouble that is a library": (
        lambda d: (d / "lib/ollama/._libx.so").write_bytes(b"\xcf\xfa\xed\xfe"),
        r"_libx\.so is not in the manifest",
    ),
    ".DS_Store that is a program": (lambda d: (d / ".DS_Store").write_text("#!/bin/sh"), "DS_Store is not in the"),
    ".localized with content": (lambda d: (d / ".localized").write_text("x"), "localized is not in the manifest"),
    ".DS_Store that is a link": (lambda d: (d / ".DS_Store").symlink_to("bin"), "DS_Store is not in the manifest"),
    "pipe": (lambda d: os.mkfifo(d / "bin/pipe"), "not a file or a link"),
    "no manifest": (lambda d: (d / MANIFEST).unlink(), "not a release"),
    "half a manifest": (lambda d: (d / MANIFEST).write_text('{"id": "x"'), "not a release"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_named(made: Path, name: str) -> None:
    damage, said = DAMAGE[name]
    damage(made)
    with pytest.raises(ReleaseInvalid, match=said):
        check(made)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "9.9.9"}, "does not match the content"),
        ({"series_sha256": "0" * 64}, "does not match the content"),
        ({"id": "../../elsewhere"}, "not a valid release id"),
        ({"files": {}}, "not in the manifest"),
    ],
)
def test_a_changed_manifest_is_found(made: Path, change: dict[str, object], said: str) -> None:
    manifest = json.loads((made / MANIFEST).read_text())
    (made / MANIFEST).write_text(json.dumps({**manifest, **change}))
    with pytest.raises(ReleaseInvalid, match=said):
        check(made)


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(["../x", "/etc/passwd", "a/../../x", "a//b", "./a", "", "..", MANIFEST, "environment"]))
def test_paths_of_a_manifest_stay_inside(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("release")
    fill(folder)
    records.write(folder / MANIFEST, replace(DRAFT, id="x", files={name: "0" * 64}))
    with pytest.raises(ReleaseInvalid, match="not a path inside the release"):
        check(folder)


def test_a_release_without_its_programs_is_not_made(tmp_path: Path) -> None:
    def partial(folder: Path) -> None:
        fill(folder)
        (folder / "lib/ollama/llama-server").unlink()

    with pytest.raises(ReleaseInvalid, match="llama-server is not in the release"):
        assemble(tmp_path, DRAFT, partial)
    assert [path.name for path in (tmp_path / "releases").iterdir()] == [".lock"]


def test_a_release_of_an_ollama_without_llama_server(tmp_path: Path) -> None:
    def without(folder: Path) -> None:
        fill(folder)
        (folder / "lib/ollama/llama-server").unlink()

    folder = release_dir(tmp_path, assemble(tmp_path, replace(DRAFT, era="vendored"), without))
    assert check(folder).era == "vendored"
    with pytest.raises(EraNotServed, match="vendored era has no llama-server"):
        llama_server(folder)
    with pytest.raises(ConfigError, match="has no llama-server"):
        require_server(load(folder))
    require_server(DRAFT)
    with pytest.raises(ConfigError, match="no rules for single layers"):
        require_types(load(folder), grammar.parse("q8_0,first=2:f16"))
    require_types(load(folder), grammar.parse("q8_0:f16"))
    records.write(folder / MANIFEST, replace(load(folder), era="steam"))
    with pytest.raises(ReleaseInvalid, match="'steam' is not an era"):
        check(folder)


def test_a_damaged_release_is_replaced_and_leftovers_go(tmp_path: Path, made: Path) -> None:
    _append(made / "bin/ollama")
    killed = tmp_path / "releases" / ".making-killed"
    killed.mkdir()
    again = assemble(tmp_path, DRAFT, fill)
    assert check(made) == again
    assert not killed.exists()


def test_a_full_disk_leaves_nothing_half_done(tmp_path: Path) -> None:
    def overflow(folder: Path) -> None:
        fill(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFull):
        assemble(tmp_path, DRAFT, overflow)
    assert [path.name for path in (tmp_path / "releases").iterdir()] == [".lock"]


def test_the_id_covers_every_file(made: Path) -> None:
    release = load(made)
    ids = {release_id(replace(release, files={**release.files, name: "0" * 64})) for name in release.files}
    assert len(ids | {release.id}) == len(release.files) + 1


def test_what_finder_leaves_is_no_damage(made: Path) -> None:
    for name, data in (("lib/.DS_Store", b"\0\0\0\1Bud1"), ("._lib", b"\0\5\x16\7"), (".localized", b"")):
        (made / name).write_bytes(data)
        (made / name).chmod(0o777)  # as on a volume without modes
    assert check(made) == load(made)


@pytest.mark.parametrize("mask", [0, 0o002, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        release = assemble(tmp_path, DRAFT, fill)
    finally:
        os.umask(before)
    assert release.executable == ("bin/ollama", "lib/ollama/llama-server")
    folder = release_dir(tmp_path, release)
    for path in (folder, *folder.rglob("*")):
        runs = path.is_dir() or path.relative_to(folder).as_posix() in release.executable
        assert path.is_symlink() or (path.stat().st_mode & 0o7777, path) == (0o755 if runs else 0o644, path)


def test_a_build_that_makes_a_setuid_program_is_refused(tmp_path: Path) -> None:
    def odd(folder: Path) -> None:
        fill(folder)
        (folder / "bin/ollama").chmod(0o4755)

    with pytest.raises(ReleaseInvalid, match="bin/ollama is setuid"):
        assemble(tmp_path, DRAFT, odd)


def test_a_manifest_of_an_earlier_version_says_nothing_of_modes(made: Path) -> None:
    stated = load(made)
    data = json.loads((made / MANIFEST).read_text())
    del data["executable"]
    (made / MANIFEST).write_text(json.dumps(data))
    (made / "lib/ollama/libx.so.1.2").chmod(0o755)
    assert load(made).executable is None
    assert check(made) == stated  # by their first bytes, and the id is the same
