"""Folders that cannot be used: one message and a code of its own, and an error elsewhere stays a bug."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolchain.core import config, folders
from toolchain.core.errors import DiskFull, FolderUnusable

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"TURBOQUANT_WORKSPACE": "file"}, "is not a folder"),
        ({"TURBOQUANT_WORKSPACE": "file/below"}, "Not a directory (ENOTDIR)"),
        ({"HOME": "none", "XDG_CACHE_HOME": ""}, "does not exist"),
    ],
)
def test_a_task_says_so(tmp_path: Path, environ: dict[str, str], said: str) -> None:
    (tmp_path / "file").touch()
    placed = {name: str(tmp_path / value) if value else "" for name, value in environ.items()}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TURBOQUANT_")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import tasks; tasks.start()", "watch", "--json", "--set", "watch.api="],
        cwd=tmp_path, env={**kept, "PYTHONPATH": str(ROOT), "TURBOQUANT_SOURCES_OFFLINE": "1", **placed},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 46, done.stderr
    assert "Traceback" not in done.stderr
    answer = json.loads(done.stdout)
    assert answer["error"] == "FolderUnusable"
    assert said in answer["message"]
    assert str(tmp_path) in answer["message"]
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_file_in_the_place_of_what_a_flag_names(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ("release.keys", "--json", "--to", "file", "--offline", "off")
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import tasks; tasks.start()", *words],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 46, done.stderr
    assert json.loads(done.stdout)["message"] == f"--to: {tmp_path / 'file'}: File exists (EEXIST)"
    assert not (tmp_path / "off").exists()


def test_paths_that_no_system_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="too long") as caught:
        (tmp_path / "/".join(["x" * 200] * 30)).stat()
    found = folders.explained(caught.value, None)  # also of a setting's path, before there is a configuration
    assert isinstance(found, FolderUnusable)
    assert "ENAMETOOLONG" in found.message
    assert len(found.message) < 300
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(RuntimeError) as unknown:
        Path("~no-such-user/x").expanduser()
    found = folders.explained(unknown.value, None)
    assert isinstance(found, FolderUnusable)
    assert "there is no user NAME" in found.message


def test_what_is_expected_and_what_is_a_bug(tmp_path: Path) -> None:
    named_folders = {"workspace": "a/ws", "deploy.prefix": "pre", "deploy.agents_dir": "agents"}
    flags = {key: str(tmp_path / name) for key, name in named_folders.items()}
    set_up = config.load(file=None, environ={}, flags=flags)

    def explained(number: int, *names: str | None) -> object:
        return folders.explained(OSError(number, os.strerror(number), *names), set_up)

    inside, above, elsewhere = str(tmp_path / "a/ws/x"), str(tmp_path / "a"), str(tmp_path / "b")
    for number, name in ((errno.EACCES, inside), (errno.EROFS, above), (errno.ENOTDIR, inside)):
        found = explained(number, name)
        assert isinstance(found, FolderUnusable)
        assert found.message == f"workspace: {name}: {os.strerror(number)} ({errno.errorcode[number]})"
    written = folders.explained(OSError(errno.EEXIST, "File exists", elsewhere), set_up, {"--to": elsewhere})
    assert isinstance(written, FolderUnusable)
    assert written.message == f"--to: {elsewhere}: File exists (EEXIST)"
    renamed = explained(errno.EPERM, elsewhere, None, str(tmp_path / "pre/current"))
    assert isinstance(renamed, FolderUnusable)
    assert renamed.message.startswith("deploy.prefix: ")
    for number in (errno.EISDIR, errno.ENOTEMPTY, errno.ENOTDIR):
        named = explained(number, str(tmp_path / "agents/x.plist"))
        assert isinstance(named, FolderUnusable)
        assert named.message.startswith("deploy.agents_dir: ")
    assert isinstance(explained(errno.ENOSPC), DiskFull)
    assert explained(errno.EACCES, elsewhere) is None
    assert explained(errno.ENOENT, inside) is None
    assert explained(errno.EBADF) is None
    assert folders.explained(ValueError("x"), set_up) is None


def test_an_unknown_home(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        Path("~no.such.user/x").expanduser()
    assert isinstance(folders.explained(caught.value, None), FolderUnusable)
    with pytest.raises(FolderUnusable, match="the home folder is unknown"):
        folders.workspace(config.load(environ={}, flags={"workspace": "~no.such.user/x"}))
