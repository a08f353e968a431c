from __future__ import annotations

from pathlib import Path

import pytest

from toolchain.models.memory import gguf

from . import models


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small model of each kind."""
    folder = tmp_path_factory.mktemp("models")
    return {name: models.write(folder / f"{name}.gguf", make()) for name, make in models.TINY.items()}


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Headers of large models, without the data of their tensors."""
    folder = tmp_path_factory.mktemp("large")
    made = {"gemma3_27b": models.gemma3_27b(), "qwen3_32b": models.qwen3_32b()}
    return {name: models.write(folder / f"{name}.gguf", spec, data=False) for name, spec in made.items()}


def load(path: Path) -> gguf.ModelHeader:
    return gguf.load(str(path))
