from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from toolchain.core.config import Config, load
from toolchain.serving.probe_model import write_probe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def config() -> Config:
    return load(environ={})


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One workspace for all, since the kernels need compiling only once."""
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real GGUF of 2 layers with 2 heads of 128 for K and V, trained on 400 tokens."""
    path = tmp_path_factory.mktemp("model") / "probe.gguf"
    write_probe(path, head_size=128, heads=2, kv_heads=2, layers=2, context=400, seed=1)
    return path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripted llama-server as a program."""
    path = tmp_path_factory.mktemp("server") / "llama-server"
    command = shlex.join([sys.executable, "-m", "tests.quality.llama_server"])
    path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {command} "$@"\n')
    path.chmod(0o755)
    return path
