"""Release directories on a disk that is full, or that an earlier deploy left in disorder."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from toolchain.core.errors import DiskFull, ReleaseInvalid
from toolchain.deploy import store
from toolchain.deploy.prefix import DISCARDED, TEMPORARY, Prefix

from .site import Site, identifier


def test_a_disk_without_room_is_seen_before_the_copy(running: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = running.status()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(DiskFull, match="MB of free space"):
        running.install(running.release("too-big"))
    assert running.status() == before
    running.assert_clean()


@pytest.mark.parametrize("room", [0, 1, 3])
def test_a_disk_that_fills_up_during_the_copy(running: Site, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before, left = running.status(), room
    copy = shutil.copyfileobj

    def full(source: IO[bytes], target: IO[bytes], length: int) -> None:
        nonlocal left
        if left == 0:
            target.write(source.read(10))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target.name)
        left -= 1
        copy(source, target, length)

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(DiskFull, match="the disk is full"):
        running.install(running.release(f"full-{room}"))
    assert running.status() == before
    running.assert_clean()


def test_an_unreadable_source_leaves_nothing_either(running: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = running.status()

    def broken(source: IO[bytes], _target: IO[bytes], _length: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), source.name)

    monkeypatch.setattr(shutil, "copyfileobj", broken)
    with pytest.raises(OSError, match="Input/output"):
        running.install(running.release("unreadable"))
    assert running.status() == before
    running.assert_clean()


def test_current_is_never_missing_while_it_is_swapped(tmp_path: Path) -> None:
    prefix = Prefix(tmp_path)
    for name in "ab":
        (prefix.releases / name).mkdir(parents=True)
        (prefix.releases / name / "id").write_text(name)
    store.swap("a", prefix)
    seen, problems, done = set(), [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            try:
                seen.add((prefix.current / "id").read_text())
            except OSError as error:
                problems.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(60):
        store.swap("b", prefix)
        store.swap("a", prefix)
    done.set()
    watcher.join()
    assert problems == []
    assert seen == {"a", "b"}
    assert prefix.active() == "a"


def test_sweep_deletes_left_overs_and_brings_a_replaced_release_back(tmp_path: Path) -> None:
    prefix = Prefix(tmp_path)
    for name in ("keep", "unknown", TEMPORARY + "x", DISCARDED + "caught", DISCARDED + "keep", DISCARDED + "unknown"):
        (prefix.releases / name).mkdir(parents=True)
        (prefix.releases / name / "from").write_text(name)
    (prefix.folder / "current.new").symlink_to("nowhere")
    store.sweep({"keep", "caught"}, prefix)
    assert sorted(path.name for path in prefix.releases.iterdir()) == ["caught", "keep"]
    assert (prefix.releases / "keep" / "from").read_text() == "keep"
    assert not (prefix.folder / "current.new").is_symlink()


def test_links_stay_links_in_the_copy(running: Site) -> None:
    release = running.release("linked")
    running.install(release)
    link = running.prefix.release(identifier(release)) / "lib/ollama/libggml.so"
    assert link.readlink() == Path("libggml.so.0")


def test_a_file_that_becomes_a_link_during_the_copy_shows_nobody_its_target(
    running: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # root reads the release in a folder of a user, who wants to see a file of root's
    release, secret, before = running.release("swapped"), running.folder / "secret", running.status()
    secret.write_text("of root\n")
    seen: list[int] = []

    is_link = Path.is_symlink

    def swapped(path: Path) -> bool:
        found = is_link(path)
        making = list(running.prefix.releases.glob(TEMPORARY + "*"))
        if making and path == release / "bin/ollama":
            seen.append(making[0].stat().st_mode & 0o777)
            path.unlink()
            path.symlink_to(secret)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_symlink", swapped)
        with pytest.raises(ReleaseInvalid, match="became a link"):
            running.install(release)
    assert seen == [0o700]
    assert running.status() == before
    running.assert_clean()
