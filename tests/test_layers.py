"""The rooms of `toolchain` import downwards and in no circle, as pyproject.toml lays them down for import-linter."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_contracts_are_kept() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("core/records.py", "from ..stages import Release", "rooms in layers"),
        ("build/steps.py", "from ..serving.ollama import OllamaClient", "rooms in layers"),
        ("upstairs.py", "", "rooms in layers"),
        ("series/place.py", "def lazily():\n    from .render import render", "no cycle"),
        ("core/console.py", "import tasks", "tasks.py stands above all"),
    ],
)
def test_what_they_forbid(tmp_path: Path, module: str, line: str, broken: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "toolchain", tmp_path / "toolchain", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "toolchain" / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(row.startswith(broken) and "BROKEN" in row for row in done.stdout.splitlines())


def test_no_module_imports_the_package_that_imports_it() -> None:
    # import-linter takes a package for one with its modules
    graph = grimp.build_graph("toolchain", cache_dir=None)
    for package in graph.modules:
        own = graph.find_descendants(package)
        if own & graph.find_modules_directly_imported_by(package):
            assert not own & graph.find_modules_that_directly_import(package), package
