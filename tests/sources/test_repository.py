from __future__ import annotations

import gc
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.sources.gitrepo import commit, git, new
from toolchain.core.errors import FetchFailed, NotARepository, UnknownRevision
from toolchain.sources import Repository
from toolchain.sources.repository import out_of_space

_NAME = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 100 and not name.lower().startswith(".git")
)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return new(tmp_path / "repo")


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(files={"0\r": b"", "\r": b"1", "a\nb": b"2"})
@given(files=st.dictionaries(_NAME, st.binary(max_size=200), min_size=1, max_size=6))
def test_every_blob_reads_back(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    where = new(tmp_path_factory.mktemp("blobs") / "repo")
    made = commit(where, {f"folder/{name}": content for name, content in files.items()})
    with Repository.open(where) as repository:
        assert {name: repository.read_blob(made, f"folder/{name}") for name in files} == files
        assert sorted(repository.paths(made, "folder")) == sorted(f"folder/{name}" for name in files)
        assert repository.read_blob(made, "folder") is None
        assert repository.read_blob(made, "folder/no such\nfile") is None
        assert repository.read_blob(made, "no such file here") is None


def test_a_blob_reader_that_died_is_replaced(repo: Path) -> None:
    made = commit(repo, {"a": "one", "b": "two"})
    repository = Repository.open(repo)
    assert repository.read_blob(made, "a") == b"one"
    assert repository._git.cat_file_all is not None
    reader = repository._git.cat_file_all.proc
    os.kill(reader.pid, signal.SIGKILL)
    reader.wait()
    assert repository.read_blob(made, "b") == b"two"
    assert repository.read_blob(made, "a\r") is None
    reader = repository._git.cat_file_all.proc
    assert reader is not None
    del repository
    gc.collect()
    assert reader.poll() is not None, "the reader outlived its repository"


def test_lost_content_is_not_taken_for_a_file_that_never_was(repo: Path) -> None:
    made = commit(repo, {"a": "lost"})
    oid = git(repo, "rev-parse", f"{made}:a")
    (repo / ".git" / "objects" / oid[:2] / oid[2:]).unlink()
    repository = Repository.open(repo)
    assert repository.read_blob(made, "b") is None
    with pytest.raises(FetchFailed, match=f"a at {made[:12]}"):
        repository.read_blob(made, "a")


def test_paths_that_are_no_utf8(repo: Path) -> None:
    blob = git(repo, "hash-object", "-w", "--stdin", stdin=b"content")
    path = os.fsdecode(b"folder/caf\xe9")
    git(repo, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
    made = git(repo, "commit-tree", git(repo, "write-tree"), "-m", "x")
    repository = Repository.open(repo)
    assert repository.paths(made) == [path]
    assert repository.exists(made, path)
    assert repository.read_blob(made, path) == b"content"
    assert repository.read_blob(made, f"{path}e") is None


def test_what_is_asked_of_a_submodule(repo: Path) -> None:
    pinned = commit(repo, {"a": "1"})
    git(repo, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    made = git(repo, "commit-tree", git(repo, "write-tree"), "-p", pinned, "-m", "x")
    repository = Repository.open(repo)
    assert repository.exists(made, "sub")
    assert not repository.exists(made, "sub/file")
    assert repository.read_blob(made, "sub/file") is None


@pytest.mark.parametrize(
    ("message", "subject"),
    [
        ("one\n\ntwo\n", "one"),
        ("one\ntwo\n\nthree", "one two"),
        ("\n\none \r\n two\r\n\r\nthree", "one  two"),
        ("", ""),
    ],
)
def test_the_subject_of_a_commit_is_as_git_shows_it(repo: Path, message: str, subject: str) -> None:
    parent = commit(repo, {"a": "1"})
    made = git(repo, "commit-tree", f"{parent}^{{tree}}", "-p", parent, "-F", "-", stdin=message.encode())
    found = Repository.open(repo).commit(made)
    assert found.subject == subject == git(repo, "show", "-s", "--format=%s", made)
    assert found.date == git(repo, "show", "-s", "--format=%cI", made)


def test_open_takes_work_trees_bare_repositories_and_linked_work_trees(repo: Path, tmp_path: Path) -> None:
    made = commit(repo, {"a": "1"})
    git(tmp_path, "clone", "--quiet", "--bare", str(repo), "bare")
    git(repo, "worktree", "add", "--quiet", str(tmp_path / "linked"))
    for path in (repo, tmp_path / "bare", tmp_path / "linked"):
        assert Repository.open(path).read_blob(made, "a") == b"1"


def test_open_takes_what_is_stored_otherwise(repo: Path, tmp_path: Path) -> None:
    made = commit(repo, {"a": "1"})
    git(repo, "tag", "v1")
    git(repo, "pack-refs", "--all")
    git(repo, "repack", "-adq")
    git(tmp_path, "clone", "--quiet", "--shared", "--no-checkout", str(repo), "shared")
    (tmp_path / "shared/.git/objects/info/alternates").write_text("../../../repo/.git/objects\n")
    for path in (repo, tmp_path / "shared"):
        with Repository.open(path) as repository:
            assert repository.resolve("HEAD") == made
            assert repository.read_blob(made, "a") == b"1"
    assert Repository.open(repo).resolve("v1") == made


def test_a_repository_that_is_read_leaves_no_folder(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(repo, {"a": "1"})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    with Repository.open(repo) as repository:
        assert repository.exists("HEAD", "a")
        assert [*(tmp_path / "tmp").iterdir()]
    assert not [*(tmp_path / "tmp").iterdir()]
    assert repository.exists("HEAD", "a")  # it begins anew
    del repository
    gc.collect()
    assert not [*(tmp_path / "tmp").iterdir()]


def test_a_configuration_that_git_cannot_read_is_named(repo: Path) -> None:
    commit(repo, {"a": "1"})
    (repo / ".git" / "config").write_text("[core\n")
    with pytest.raises(NotARepository, match="config"):
        Repository(repo / ".git").resolve("HEAD")


@pytest.mark.parametrize("name", ["absent", "plain", "repo/folder"])
def test_open_refuses_what_is_no_repository(repo: Path, tmp_path: Path, name: str) -> None:
    commit(repo, {"folder/a": "1"})
    (tmp_path / "plain").mkdir()
    with pytest.raises(NotARepository, match=name):
        Repository.open(tmp_path / name)


def test_variables_of_a_hook_have_no_influence(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = commit(repo, {"a": "1"})
    other = new(tmp_path / "other")
    commit(other, {"a": "2"})
    for name, value in {"GIT_DIR": other / ".git", "GIT_OBJECT_DIRECTORY": other / ".git/objects"}.items():
        monkeypatch.setenv(name, str(value))
    repository = Repository.open(repo)
    assert repository.resolve("HEAD") == made
    assert repository.read_blob(made, "a") == b"1"


def test_revisions(repo: Path) -> None:
    first = commit(repo, {"a": "1"}, "first")
    git(repo, "tag", "v1.0.0")
    second = commit(repo, {"a": "needle"}, "second")
    third = commit(repo, {"a": "needle and more", "b": ""}, "third")
    git(repo, "update-ref", "refs/remotes/origin/topic", second)
    repository = Repository.open(repo)
    assert [repository.resolve(name) for name in ("v1.0.0", first[:9], "topic", "master")] == [
        first,
        first,
        second,
        third,
    ]
    assert repository.count(third) == 3
    assert repository.describe(third).startswith("v1.0.0-2-g")
    assert repository.merge_base(second, third) == second
    found = repository.commit(third)
    assert (found.id, found.subject, found.date) == (third, "third", "2026-08-01T10:00:00+02:00")


@pytest.mark.parametrize("revision", ["v9", "--all", "0" * 40, "a b", "", "HEAD:a"])
def test_unknown_revisions(repo: Path, revision: str) -> None:
    commit(repo, {"a": "1"})
    with pytest.raises(UnknownRevision):
        Repository.open(repo).resolve(revision)


def test_unrelated_histories_have_no_merge_base(repo: Path) -> None:
    one = commit(repo, {"a": "1"})
    git(repo, "checkout", "--quiet", "--orphan", "other")
    assert Repository.open(repo).merge_base(one, commit(repo, {"a": "2"})) is None


@pytest.mark.parametrize(
    ("said", "free", "full"),
    [
        ("fatal: write error: No space left on device", 1 << 40, True),
        ("error: unable to write file a.c", 0, True),
        ("error: unable to write file a.c", 1 << 40, False),
        ("fatal: bad object", 0, False),
    ],
)
def test_a_full_disk_is_told_from_other_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, free: int, full: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert out_of_space(said, tmp_path) is full
