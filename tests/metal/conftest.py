"""The two libraries of kernels, and the miniature with the series applied: compiled once for a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.shared import Miniatures
from toolchain import metal
from toolchain.core.config import Config, load
from toolchain.metal import runs
from toolchain.metal.formats import Format, formats
from toolchain.metal.host import Host, Operation, Tensor, build_host
from toolchain.metal.libraries import Libraries
from toolchain.series import manifest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metal")


@pytest.fixture(scope="session")
def sound(cache: Path) -> metal.Library:
    return metal.compile(HERE / "sound.metal", cache=cache)


@pytest.fixture(scope="session")
def broken(cache: Path) -> metal.Library:
    return metal.compile(HERE / "broken.metal", cache=cache)


@dataclass(frozen=True, kw_only=True)
class Patched:
    """The miniature with the series applied, and what is made of it."""

    tree: Path
    workspace: Path
    config: Config
    host: Host
    library: Libraries
    formats: dict[str, Format]


@pytest.fixture(scope="session")
def patched(tmp_path_factory: pytest.TempPathFactory, miniatures: Miniatures) -> Patched:
    folder = tmp_path_factory.mktemp("patched")
    tree = miniatures.patched(folder)
    config = load(file=folder / "turboquant.yaml", environ={})
    workspace = miniatures.workspace
    host = build_host(tree, config, workspace)
    return Patched(
        tree=tree,
        workspace=workspace,
        config=config,
        host=host,
        library=compiled(tree, host, workspace),
        formats=formats(manifest.load(), config, workspace),
    )


def compiled(tree: Path, host: Host, folder: Path) -> Libraries:
    """The libraries of a tree: the backend's own are compiled when they are asked for."""
    return runs.compile_tree(tree, host, folder, [anything()], kernels=())


def anything() -> Operation:
    """An operation of ours."""
    row, floats = Tensor(type="turbo4", ne=(64, 1), nb=(34, 34)), Tensor(type="f32", ne=(64, 1), nb=(4, 256))
    return Operation(name="CPY", result=floats, operands=(row,))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """A .metal file with the library included and a body."""

    def make(body: str, name: str = "user.metal") -> Path:
        path = tmp_path / name
        path.write_text(f"#include <metal_stdlib>\nusing namespace metal;\n{body}\n")
        return path

    return make
