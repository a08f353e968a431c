from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from tests.sources.gitrepo import commit, git, history, new
from toolchain.core.console import Console, Step
from toolchain.core.errors import FetchFailed, LockHeld
from toolchain.sources import Repository, mirror


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """A repository with twenty tagged commits."""
    where = new(tmp_path / "remote")
    ids = history(where, [("master", [n - 1] if n else [], "ada@example.org", f"change {n}") for n in range(20)])
    listed = "".join(f"create refs/tags/b{number} {made}\n" for number, made in enumerate(ids))
    git(where, "update-ref", "--stdin", stdin=listed.encode())
    return where


def _open(remote: Path, tmp_path: Path, *, offline: bool = False) -> Repository:
    url = f"file://{remote}"
    return mirror.open_mirror("llama.cpp", url, tmp_path / "ws", offline=offline, console=Console())


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("https://github.com/a/b.git", True),
        ("git@github.com:a/b.git", True),
        ("file:///a/b", True),
        ("/a/b", False),
        ("../b", False),
        ("~/b:c", False),
    ],
)
def test_what_is_mirrored(origin: str, url: bool) -> None:
    assert mirror.is_url(origin) is url


def test_a_mirror_has_history_at_once_and_contents_when_asked(remote: Path, tmp_path: Path) -> None:
    head = git(remote, "rev-parse", "HEAD")
    made = _open(remote, tmp_path)
    assert made.resolve("HEAD") == head
    assert made.count("b19") == 20
    assert len(mirror.missing_blobs(made, head)) == 1
    mirror.ensure_contents(made, head, Console())
    assert mirror.missing_blobs(made, head) == set()
    assert len(mirror.missing_blobs(made, made.resolve("b3"))) == 1, "only what the commit needs was fetched"


def test_an_update_brings_new_commits_and_drops_gone_branches(remote: Path, tmp_path: Path) -> None:
    git(remote, "branch", "topic")
    _open(remote, tmp_path)
    git(remote, "branch", "-D", "topic")
    git(remote, "branch", "topic/deeper")  # cannot exist beside topic
    new_head = commit(remote, {"a": "new"})
    made = _open(remote, tmp_path)
    assert made.resolve("master") == new_head
    assert "refs/heads/topic/deeper" in git(made.git_dir, "for-each-ref")


def test_offline_uses_what_is_there_and_asks_nobody(remote: Path, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match=r"sources\.offline"):
        _open(remote, tmp_path, offline=True)
    head = git(remote, "rev-parse", "HEAD")
    mirror.ensure_contents(_open(remote, tmp_path), head, Console())
    remote.rename(tmp_path / "gone")
    made = _open(remote, tmp_path, offline=True)
    mirror.ensure_contents(made, head, Console())
    assert made.read_blob(head, "position") == b"19\n"
    with pytest.raises(FetchFailed, match="contents of 1 files"):
        mirror.ensure_contents(made, made.resolve("b3"), Console())
    with pytest.raises(FetchFailed, match="position at"):
        made.read_blob(made.resolve("b3"), "position")


def test_offline_never_fetches_on_its_own(remote: Path, tmp_path: Path) -> None:
    _open(remote, tmp_path)
    made = _open(remote, tmp_path, offline=True)  # the remote is there, and would answer
    with pytest.raises(FetchFailed):
        made.read_blob(made.resolve("HEAD"), "position")
    assert made.read_blob(made.resolve("HEAD"), "no such file") is None


def test_an_interrupted_clone_goes_on_where_it_stood(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = mirror._fetch
    fetched: list[tuple[str, ...]] = []

    def interrupted(repository: Repository, *words: str, **kwargs: Any) -> None:
        if len(fetched) == 3:
            raise KeyboardInterrupt
        fetched.append(words)
        real(repository, *words, **kwargs)

    monkeypatch.setattr(mirror, "_fetch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _open(remote, tmp_path)
    monkeypatch.undo()
    (git_dir,) = (path for path in (tmp_path / "ws/mirrors").iterdir() if path.is_dir())
    assert set(git(git_dir, "tag").split()) == {"b2", "b4", "b6"}
    (git_dir / "objects/pack/tmp_pack_killed").write_bytes(b"half a pack")
    (git_dir / "packed-refs.lock").touch()
    with pytest.raises(FetchFailed, match="no complete mirror"):
        _open(remote, tmp_path, offline=True)
    made = _open(remote, tmp_path)
    assert made.count("HEAD") == 20
    assert not list(git_dir.glob("objects/pack/tmp_*"))


def test_a_clone_survives_kill_nine(remote: Path, tmp_path: Path) -> None:
    """The child is killed while git fetch talks to a remote that never answers."""
    script = tmp_path / "hang"
    script.write_text('#!/bin/sh\ntouch "$(dirname "$0")/hanging"\nexec sleep 60\n')
    script.chmod(0o755)
    url = f"file://{remote}"
    program = (
        "import sys; from pathlib import Path\n"
        "from toolchain.core.console import Console; from toolchain.sources import mirror\n"
        "mirror._remote_refs = lambda *_: ('refs/heads/master', [])\n"
        f"mirror._OPTIONS = (*mirror._OPTIONS, '--upload-pack={script}')\n"
        f"mirror.open_mirror('llama.cpp', {url!r}, Path({str(tmp_path / 'ws')!r}), offline=False, console=Console())\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (tmp_path / "hanging").exists():
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.02)
    with pytest.raises(LockHeld):
        _open(remote, tmp_path)
    child.kill()
    child.wait()
    assert _open(remote, tmp_path).count("HEAD") == 20


def test_an_interrupted_fetch_takes_its_git_with_it(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "hang"
    script.write_text(f"#!/bin/sh\nsleep 1\nkill -INT {os.getpid()}\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(mirror, "_OPTIONS", (*mirror._OPTIONS, f"--upload-pack={script}"))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background is started without
    try:
        with pytest.raises(KeyboardInterrupt):
            _open(remote, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not [one for one in psutil.Process().children(recursive=True) if str(script) in " ".join(one.cmdline())]
    monkeypatch.undo()
    assert _open(remote, tmp_path).count("HEAD") == 20


def test_a_remote_whose_words_are_not_in_utf8(remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "greeting"
    script.write_bytes(b'#!/bin/sh\necho gr\xfc\xdfe >&2\nexec git-upload-pack "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(mirror, "_OPTIONS", (*mirror._OPTIONS, f"--upload-pack={script}"))
    assert _open(remote, tmp_path).count("HEAD") == 20
    script.write_bytes(b"#!/bin/sh\necho gr\xfc\xdfe >&2\nexit 1\n")
    with pytest.raises(FetchFailed, match="gr\ufffd\ufffde"):
        _open(remote, tmp_path)


def test_progress_of_a_fetch_is_shown(remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[float, float | None, str]] = []
    monkeypatch.setattr(Step, "update", lambda _, done=0.0, total=None, detail="": shown.append((done, total, detail)))
    _open(remote, tmp_path)
    assert {detail.partition(",")[0] for _, _, detail in shown} >= {"counting objects", "receiving objects"}
    assert all(total and 0 <= done <= total for done, total, _ in shown)


def test_a_remote_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="ls-remote"):
        _open(tmp_path / "nowhere", tmp_path)
    with pytest.raises(FetchFailed, match="empty"):
        _open(new(tmp_path / "hollow"), tmp_path)


def test_a_remote_that_fails_later_leaves_the_mirror_as_it_was(remote: Path, tmp_path: Path) -> None:
    made = _open(remote, tmp_path)
    head = made.resolve("HEAD")
    shutil.rmtree(remote / ".git" / "objects")
    with pytest.raises(FetchFailed):
        _open(remote, tmp_path)
    assert _open(remote, tmp_path, offline=True).resolve("HEAD") == head


def test_two_urls_have_two_mirrors(remote: Path, tmp_path: Path) -> None:
    other = new(tmp_path / "other")
    head = commit(other, {"z": ""})
    assert _open(remote, tmp_path).resolve("HEAD") != _open(other, tmp_path).resolve("HEAD") == head


def test_one_fetch_at_a_time(remote: Path, tmp_path: Path) -> None:
    made = _open(remote, tmp_path)
    with FileLock(made.git_dir.with_name(f"{made.git_dir.name}.lock")), pytest.raises(LockHeld):
        _open(remote, tmp_path)
