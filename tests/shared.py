"""What tests share: made once in a run of the suite, by whichever worker needs it first."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from toolchain import pipeline
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.run import Run
from toolchain.rehearsal import miniature


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name`, filled by `make` once in a run. Whoever uses it may read it, and copies what is to be changed.

    `make` gets the final path of the empty folder: what is built there may hold it.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each worker's base lies in one that belongs to the run
        base = base.parent
    (base / "shared").mkdir(exist_ok=True)
    folder, made = base / "shared" / name, base / "shared" / f"{name}.made"
    with FileLock(base / "shared" / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed half way
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


class Miniatures:
    """The miniature upstream and what is made of it, as copies that a test may change."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory

    def plain(self, folder: Path, *, split_kernels: bool = False) -> miniature.Miniature:
        """What `miniature.materialize` makes, which takes two seconds for the length of its history."""
        name = "miniature-split" if split_kernels else "miniature"
        made = once(self._factory, name, lambda path: miniature.materialize(path, split_kernels=split_kernels))
        shutil.copytree(made, folder, symlinks=True, dirs_exist_ok=True)
        return miniature.Miniature(ollama=folder / "ollama", llama_cpp=folder / "llama.cpp")

    @property
    def workspace(self) -> Path:
        """For what is kept by its content, as kernels and host code are that were compiled: shared by all tests."""
        return once(self._factory, "workspace", lambda path: (path / "metal").mkdir())

    def share_compiled(self, workspace: Path) -> None:
        """Have a workspace that a test begins with use what `workspace` keeps."""
        workspace.mkdir()
        (workspace / "metal").symlink_to(self.workspace / "metal")

    def run(self, folder: Path, upstream: miniature.Miniature) -> Run:
        """A run on a miniature, with its workspace in `folder` and no setting from elsewhere."""
        (folder / "turboquant.yaml").touch()
        flags = {
            "workspace": str(folder / "workspace"),
            "sources.ollama": str(upstream.ollama),
            "sources.llama_cpp": str(upstream.llama_cpp),
            "sources.offline": True,
            "build.min_free_gb": 0.1,
        }
        return Run(config=load(file=folder / "turboquant.yaml", environ={}, flags=flags), console=Console(json=True))

    def patched(self, folder: Path, *, split_kernels: bool = False) -> Path:
        """`folder`/llama.cpp with the series applied, as a plain folder."""
        name = "patched-split" if split_kernels else "patched"
        made = once(self._factory, name, lambda path: self._patch(path, split_kernels))
        shutil.copytree(made / "llama.cpp", folder / "llama.cpp", symlinks=True)
        (folder / "turboquant.yaml").touch()
        return folder / "llama.cpp"

    def _patch(self, folder: Path, split_kernels: bool) -> None:
        upstream = self.plain(folder, split_kernels=split_kernels)
        run = self.run(folder, upstream)
        rendered = pipeline.render_series(run, pipeline.prepare(run))
        diff = next(target.diff for target in rendered.targets if target.target == "llama.cpp")
        subprocess.run(["git", "apply"], cwd=upstream.llama_cpp, input=diff, text=True, check=True)
