"""Release directories on a disk that is full, or that an earlier deploy left in disorder."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from toolchain.core.errors import DiskFull
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
    copy = shutil.copy2

    def full(source: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            target.write_bytes(source.read_bytes()[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        left -= 1
        copy(source, target)
        return target

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(DiskFull, match="the disk is full"):
        running.install(running.release(f"full-{room}"))
    assert running.status() == before
    running.assert_clean()


def test_an_unreadable_source_leaves_nothing_either(running: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = running.status()

    def broken(source: Path, target: Path) -> Path:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))

    monkeypatch.setattr(shutil, "copy2", broken)
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
