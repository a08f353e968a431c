from __future__ import annotations

from pathlib import Path

import pytest

from tests.sources.gitrepo import commit, git, history, new, snapshot
from toolchain.core import config
from toolchain.core.console import Console
from toolchain.core.errors import NotARepository, PinMissing, UnknownLayout, UnknownRevision
from toolchain.sources import Repository, prepare, release_name, scratch_root
from toolchain.stages import Sources

PINNED = {"LLAMA_CPP_VERSION": "b4\n", "llama/compat/001.patch": "", "café file": "x"}


@pytest.fixture
def repos(tmp_path: Path) -> tuple[Path, Path, list[str]]:
    """An Ollama that pins b4, and a llama.cpp of six builds."""
    ollama, llama = new(tmp_path / "ollama"), new(tmp_path / "llama.cpp")
    commit(ollama, PINNED)
    git(ollama, "tag", "v0.33.0-rc2")
    ids = history(llama, [("master", [n - 1] if n else [], "ada@example.org", "x") for n in range(6)])
    return ollama, llama, ids


def _prepare(tmp_path: Path, ollama: object, llama: object, **more: object) -> Sources:
    flags: dict[str, object] = {
        "workspace": str(tmp_path / "ws"),
        "sources.ollama": str(ollama),
        "sources.llama_cpp": str(llama),
    }
    flags |= {f"sources.{name}": value for name, value in more.items()}
    return prepare(config.load(environ={}, flags=flags), Console())


def test_local_repositories_are_used_as_they_are(tmp_path: Path, repos: tuple[Path, Path, list[str]]) -> None:
    ollama, llama, ids = repos
    (ollama / "café file").write_text("mine")
    (ollama / "new").touch()
    before = snapshot(ollama), snapshot(llama)
    found = _prepare(tmp_path, ollama, llama)
    assert (snapshot(ollama), snapshot(llama)) == before
    assert found.era == "pinned"
    assert (found.pin.commit, found.pin.build, found.pin.exact) == (ids[3], 4, True)
    assert (found.ollama.describe, found.llama_cpp.describe) == ("v0.33.0-rc2", "b4")
    assert set(found.ollama.dirty) == {"café file", "new"}
    assert found.ollama.git_dir == ollama / ".git"
    assert scratch_root(config.load(environ={}), found).name.startswith("v0.33.0-rc2-b4-")


def test_bare_repositories(tmp_path: Path, repos: tuple[Path, Path, list[str]]) -> None:
    ollama, llama, ids = repos
    git(tmp_path, "clone", "--quiet", "--bare", str(llama), "bare")
    assert _prepare(tmp_path, ollama, tmp_path / "bare").llama_cpp.commit == ids[3]


def test_urls_are_mirrored_with_the_contents_of_the_commit(tmp_path: Path, repos: tuple[Path, Path, list[str]]) -> None:
    ollama, llama, ids = repos
    found = _prepare(tmp_path, f"file://{ollama}", f"file://{llama}")
    for gone in (ollama, llama):
        gone.rename(gone.with_suffix(".gone"))
    again = _prepare(tmp_path, f"file://{ollama}", f"file://{llama}", offline=True)
    assert again == found
    assert found.llama_cpp.commit == ids[3]
    assert Repository(found.ollama.git_dir).read_blob(found.ollama.commit, "café file") == b"x"


def test_the_operator_may_choose_both_commits(tmp_path: Path, repos: tuple[Path, Path, list[str]]) -> None:
    ollama, llama, ids = repos
    commit(ollama, {"LLAMA_CPP_VERSION": "b999\n"})
    found = _prepare(tmp_path, ollama, llama, ollama_ref="v0.33.0-rc2", llama_cpp_ref=ids[1][:10])
    assert (found.ollama.describe, found.pin.commit, found.pin.build) == ("v0.33.0-rc2", ids[1], 2)


def test_what_is_wrong_is_said(tmp_path: Path, repos: tuple[Path, Path, list[str]]) -> None:
    ollama, llama, ids = repos
    with pytest.raises(NotARepository):
        _prepare(tmp_path, tmp_path, llama)
    with pytest.raises(UnknownRevision, match="v9"):
        _prepare(tmp_path, ollama, llama, ollama_ref="v9")
    with pytest.raises(UnknownLayout):
        _prepare(tmp_path, llama, llama)
    commit(ollama, {"LLAMA_CPP_VERSION": "b10\n"})
    with pytest.raises(PinMissing, match="b10"):
        _prepare(tmp_path, ollama, llama)
    assert _prepare(tmp_path, ollama, llama, nearest_pin=True).pin.commit == ids[5]


def test_of_several_tags_the_highest_version_names_the_release(tmp_path: Path) -> None:
    repo = new(tmp_path / "repo")
    released = commit(repo, {"a": "1"})
    for tag in ("v0.17.7-rc0", "v0.17.7", "v0.17.7-rc2", "nightly"):
        git(repo, "tag", tag)
    later = commit(repo, {"a": "2"})
    repository = Repository.open(repo)
    assert release_name(repository, released) == "v0.17.7"
    assert release_name(repository, later).endswith(f"-1-g{later[:7]}")
