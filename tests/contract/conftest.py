"""The miniature llama.cpp, a change to it, and the dry run of the own series on the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from git import Actor, Repo

from tests.shared import Miniatures
from toolchain import pipeline
from toolchain.contract.check import Checked
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.run import Run
from toolchain.rehearsal import miniature

Edits = Mapping[str, tuple[str, str]]
"""path -> what is replaced, and by what; an empty old text stands for a new file"""


@pytest.fixture
def upstream(tmp_path: Path, miniatures: Miniatures) -> miniature.Miniature:
    (tmp_path / "turboquant.yaml").touch()
    return miniatures.plain(tmp_path)


@pytest.fixture
def run(tmp_path: Path, upstream: miniature.Miniature, miniatures: Miniatures) -> Run:
    miniatures.share_compiled(tmp_path / "workspace")
    flags = {
        "workspace": str(tmp_path / "workspace"),
        "sources.ollama": str(upstream.ollama),
        "sources.llama_cpp": str(upstream.llama_cpp),
        "sources.llama_cpp_ref": "HEAD",
    }
    return Run(config=load(file=tmp_path / "turboquant.yaml", environ={}, flags=flags), console=Console(json=True))


@pytest.fixture
def change(upstream: miniature.Miniature) -> Callable[[Edits], str]:
    """Commits a change to the miniature llama.cpp; returns the commit's id."""

    def commit(edits: Edits) -> str:
        for name, (old, new) in edits.items():
            path = upstream.llama_cpp / name
            text = path.read_text() if old else ""
            assert old in text
            path.write_text(text.replace(old, new) if old else new)
        with Repo(upstream.llama_cpp) as repo:
            repo.git.add(all=True)
            who = Actor("T", "t@example.invalid")
            return repo.index.commit("upstream goes on", author=who, committer=who).hexsha

    return commit


@pytest.fixture
def check(run: Run) -> Callable[[], Checked]:
    """Without behaviour, which is compiled for each tree and has tests of its own."""
    return lambda: pipeline.check_series(run, pipeline.prepare(run), behaviour=False)
