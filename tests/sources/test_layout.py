from __future__ import annotations

from pathlib import Path

import pytest

from tests.sources.gitrepo import commit, new
from toolchain.core.errors import UnknownLayout
from toolchain.sources import Layout, Repository, recognise

PINNED = {"LLAMA_CPP_VERSION": "b0007\n", "llama/compat/001-a.patch": ""}
VENDORED = {"Makefile.sync": "UPSTREAM=x\nFETCH_HEAD=ec98e2002\nall:\n", "llama/llama.cpp/llama.h": ""}


def _layout(tmp_path: Path, files: dict[str, str]) -> Layout:
    repo = new(tmp_path / "repo")
    made = commit(repo, files)
    for name in files:
        (repo / name).unlink()  # only the commit counts
    return recognise(Repository.open(repo), made)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (PINNED, ("pinned", "b0007")),
        (VENDORED, ("vendored", "ec98e2002")),
        ({**VENDORED, "Makefile.sync": "FETCH_HEAD ?= b123 \n"}, ("vendored", "b123")),
        ({**PINNED, **VENDORED}, ("pinned", "b0007")),
    ],
)
def test_eras(tmp_path: Path, files: dict[str, str], expected: tuple[str, str]) -> None:
    found = _layout(tmp_path, files)
    assert (found.era.name, found.pin) == expected


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"README": ""}, "no known layout of Ollama"),
        ({"LLAMA_CPP_VERSION": "b1"}, "no known layout of Ollama"),
        ({"llama/llama.cpp/llama.h": ""}, "no known layout of Ollama"),
        ({**PINNED, "LLAMA_CPP_VERSION": "\n"}, "LLAMA_CPP_VERSION names no"),
        ({**PINNED, "LLAMA_CPP_VERSION": "--upload-pack=x"}, "LLAMA_CPP_VERSION names no"),
        ({**VENDORED, "Makefile.sync": "all:\n"}, "Makefile.sync names no"),
    ],
)
def test_other_trees_are_refused(tmp_path: Path, files: dict[str, str], said: str) -> None:
    with pytest.raises(UnknownLayout, match=said):
        _layout(tmp_path, files)
