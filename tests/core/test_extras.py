"""A production machine has the runtime alone: it can list and run every task, or is told which extra is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from toolchain.core import extras
from toolchain.core.errors import MissingExtra
from toolchain.tasks import suite

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

WITHOUT = """
import importlib, pkgutil, sys

missing = set(sys.argv[1].split())
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())

import tasks, toolchain
for found in pkgutil.walk_packages(toolchain.__path__, "toolchain."):
    if not found.name.endswith("__main__"):
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError:
            print(found.name)
"""
NEED_LIBCLANG = {"host.libclang", "upstream.surface.clang", "contract.uses"}


def distributions(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / lock).read_text(), re.MULTILINE))


def test_only_what_says_so_needs_an_extra() -> None:
    names = distributions("requirements-dev.lock") | {"ziglang"}
    modules = {
        module
        for module, providers in metadata.packages_distributions().items()
        if any(re.sub(r"[._]", "-", provider.lower()) in names for provider in providers)
    }
    assert {"pytest", "matplotlib", "clang", "hypothesis", "mypy"} <= modules
    assert not {"numpy", "msgspec", "jinja2", "packaging"} & modules
    done = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT, " ".join(modules)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {name.removeprefix("toolchain.") for name in done.stdout.split()} == NEED_LIBCLANG


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_an_extra_has_a_lock_that_leaves_the_runtime_alone(extra: str) -> None:
    locked = distributions(f"requirements-{extra}.lock")
    wanted = {re.split(r"[\[>=<]", name)[0].lower() for name in EXTRAS[extra]} - {PROJECT["name"]}
    assert wanted <= locked
    assert not locked & distributions("requirements.lock")


def test_the_runtime_lock_has_what_is_declared_and_no_tool_for_development() -> None:
    locked = distributions("requirements.lock")
    assert {re.split(r"[\[>=<]", name)[0].lower() for name in PROJECT["dependencies"]} <= locked
    assert not locked & {"pytest", "mypy", "hypothesis", "import-linter", "ruff", "matplotlib", "libclang", "ziglang"}


def test_what_is_missing_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["-c", "test", "--args", "tests/surface -x"])
    monkeypatch.setattr(sys, "path", [])
    for module in ("pytest", "matplotlib"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(MissingExtra, match=r"the test suite needs pytest \(extra dev\)") as caught:
        suite.command_line(fast=True, sweeps=False, args="")
    assert caught.value.hint == "TURBOQUANT_EXTRAS=dev ./inv test --args 'tests/surface -x'"
    monkeypatch.undo()
    extras.require("dev", "the test suite")
    assert "dev" in extras.installed()


def test_inv_knows_its_extras(tmp_path: Path) -> None:
    for name in ("inv", "requirements.lock", *(f"requirements-{extra}.lock" for extra in EXTRAS)):
        shutil.copy(ROOT / name, tmp_path)
    environ = {**os.environ, "TURBOQUANT_EXTRAS": "plots sausages"}
    done = subprocess.run([tmp_path / "inv", "--list"], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert "there is no extra sausages" in done.stderr
    assert all(extra in done.stderr.partition("try:")[2] for extra in EXTRAS)
    assert not (tmp_path / ".venv").exists()
