"""Release directories whose bin/ollama is scripted_ollama.py, with the behaviour that a test wants."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from toolchain.core import records
from toolchain.sources.eras.era import LLAMA_SERVER
from toolchain.stages import CacheType, Release
from toolchain.verify.evidence import PROBE_PATH
from toolchain.verify.probed import DeviceStart, Started

SCRIPT = Path(__file__).with_name("scripted_ollama.py")
TURBO4 = CacheType(name="turbo4", block=64, bytes=34)

MakeRelease = Callable[..., Path]


def stated(name: str, cache_types: Sequence[CacheType]) -> Release:
    """The manifest of a release of no files, which reports the version 9.9.9."""
    return Release(
        id=name,
        version="9.9.9",
        created="2026-05-01T00:00:00Z",
        platform="linux-x86_64",
        ollama_commit="a" * 40,
        llama_cpp_commit="b" * 40,
        llama_cpp_build=10488,
        series_sha256="c" * 64,
        cache_types=tuple(cache_types),
        tools={},
        flags={},
        files={},
    )


def write_release(folder: Path, cache_types: Sequence[CacheType] = (TURBO4,), **behaviour: Any) -> Path:
    """A release directory with the scripted server, and a manifest that fits it."""
    binary = folder / "bin" / "ollama"
    binary.parent.mkdir(parents=True)
    binary.write_text(f"#!{sys.executable}\n{SCRIPT.read_text(encoding='utf-8')}", encoding="utf-8")
    binary.chmod(0o755)
    (binary.parent / "behaviour.json").write_text(json.dumps(behaviour), encoding="utf-8")
    release = stated(folder.name, cache_types)
    records.write(folder / "manifest.json", release)
    return folder


def write_programs(folder: Path) -> None:
    """Add the scripted llama-server to a release, and a turbo-probe that has started."""
    server, probe = folder / LLAMA_SERVER, folder / PROBE_PATH
    server.parent.mkdir(parents=True)
    command = f"PYTHONPATH={Path(__file__).parents[2]} exec {sys.executable} -m tests.quality.llama_server"
    server.write_text(f'#!/bin/sh\n{command} "$@"\n')
    devices = [
        DeviceStart(name=name, cpu=name == "CPU", initialized_s=1, stored=True, ready_s=ready)
        for name, ready in (("MTL0", 25.5), ("CPU", 99))
    ]
    document = msgspec.json.encode(Started(loaded_s=1, devices=tuple(devices))).decode()
    probe.write_text(f"#!/bin/sh\necho '{document}'\n")
    for path in (server, probe):
        path.chmod(0o755)


@pytest.fixture
def make_release(tmp_path: Path) -> MakeRelease:
    def make(cache_types: Sequence[CacheType] = (TURBO4,), **behaviour: Any) -> Path:
        return write_release(tmp_path / "release", cache_types, **behaviour)

    return make
