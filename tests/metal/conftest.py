"""The two libraries of kernels, compiled once for a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from toolchain import metal

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


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """A .metal file with the library included and a body."""

    def make(body: str, name: str = "user.metal") -> Path:
        path = tmp_path / name
        path.write_text(f"#include <metal_stdlib>\nusing namespace metal;\n{body}\n")
        return path

    return make
