"""Where a cache lies when the device of its layers cannot compute with its types: on the patched miniature."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.shared import Miniatures
from toolchain.models.quality import calibration_file
from toolchain.models.quality.calibration_file import Origin, Stored
from toolchain.serving import cachelog

from .conftest import HERE
from .test_flash_attention import cxx_compiler

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, miniatures: Miniatures) -> Path:
    folder = tmp_path_factory.mktemp("device")
    tree, build = miniatures.patched(folder), folder / "build"
    subprocess.run(
        ["cmake", "-S", tree, "-B", build, "-G", "Ninja", "-DBUILD_SHARED_LIBS=OFF"], check=True, capture_output=True
    )
    subprocess.run(["cmake", "--build", build, "--target", "llama"], check=True, capture_output=True)
    path = folder / "kv-device"
    libraries = [next(build.rglob(f"lib{name}.a")) for name in ("llama", "ggml", "ggml-cpu", "ggml-base")]
    includes = [f"-I{tree / name}" for name in ("include", "ggml/include", "src")]
    subprocess.run(
        [*cxx_compiler(), "-std=c++17", *includes, HERE / "kv_device.cpp", *libraries, "-lm", "-pthread", "-o", path],
        check=True,
    )
    return path


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("cap", "layer 0 has an offset, but caps its scores, so softmax would feel it"),
        ("sinks", "layer 0 has an offset, but attention sinks, so softmax would feel it"),
        ("latent", "the model makes V of its keys"),
        ("rope", "layer 0 has scales that do not fit the pairs that RoPE turns"),
    ],
)
def test_a_model_that_would_feel_the_calibration_of_its_keys(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, reason: str
) -> None:
    ones = calibration_file.fnv1a(2 * np.float32(1).tobytes())
    origin = Origin(model="", model_sha256="", text_sha256="", tokens=1, lengths=(1,))
    scale = np.ones((1, 64), np.float32)
    scale[0, :2] = 2  # neighbours
    stored = Stored(offset=np.full((1, 64), float(what != "rope"), np.float32), scale=scale)
    file = calibration_file.save(tmp_path, ones, {0: stored}, origin)
    monkeypatch.setenv(cachelog.CALIBRATION, str(tmp_path))
    assert log(program, None, "q8_0", "q8_0", what) == f"calibration of keys: {file}: {reason}\n"


def test_scales_alone_serve_a_model_that_caps_its_scores(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ones = calibration_file.fnv1a(2 * np.float32(1).tobytes())
    origin = Origin(model="", model_sha256="", text_sha256="", tokens=1, lengths=(1,))
    stored = Stored(offset=np.zeros((1, 64), np.float32), scale=np.full((1, 64), 2, np.float32))
    calibration_file.save(tmp_path, ones, {0: stored}, origin)
    monkeypatch.setenv(cachelog.CALIBRATION, str(tmp_path))
    assert "calibration of keys is on: 1 layers, 0.5 KiB" in log(program, None, "q8_0", "q8_0", "cap")


def test_a_model_whose_layers_gain_nothing(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log says that it is off, by which a release that can is told from an older one."""
    ones = calibration_file.fnv1a(2 * np.float32(1).tobytes())
    origin = Origin(model="", model_sha256="", text_sha256="", tokens=1, lengths=(1,))
    plain = Stored(offset=np.zeros((1, 64), np.float32), scale=np.ones((1, 64), np.float32))
    monkeypatch.setenv(cachelog.CALIBRATION, str(tmp_path))
    for layers in ({}, {0: plain}):
        file = calibration_file.save(tmp_path, ones, layers, origin)
        said = log(program, None, "q8_0", "q8_0", "plain")
        assert f"calibration of keys is off: {file} has nothing for the layers of this cache" in said


def log(program: Path, gpu: str | None, *types: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "MINIATURE_GPU"}
    if gpu is not None:
        environment["MINIATURE_GPU"] = gpu
    return subprocess.run([program, *types], env=environment, capture_output=True, text=True, check=True).stderr


def test_a_device_that_can(program: Path) -> None:
    said = log(program, "nothing", "turbo4", "turbo3")
    assert said.count("dev = GPU0, in its memory") == 2
    assert "stays on the CPU" not in said


@pytest.mark.parametrize(("without", "types"), [("turbo4", ("turbo4", "f16")), ("turbo3", ("q8_0", "turbo3"))])
def test_a_device_that_cannot(program: Path, without: str, types: tuple[str, str]) -> None:
    """The cache goes to the CPU, and the log says so once for two layers."""
    said = log(program, without, *types)
    assert said.count("dev = CPU\n") == 2
    assert said.count("GPU0 cannot keep K (") == 1
    assert f"K ({types[0]}) and V ({types[1]}) with heads of 64 and 64: the cache stays on the CPU" in said


def test_a_device_that_cannot_do_the_types_of_one_layer(program: Path) -> None:
    """The other layers' caches lie where they are computed; pairs that no layer has are of no interest."""
    said = log(program, "turbo3", "turbo4", "turbo4,last=1:turbo3")
    assert [line.split("dev = ")[1] for line in said.splitlines() if "dev = " in line] == ["GPU0, in its memory", "CPU"]
    assert "GPU0 cannot keep K (turbo4) and V (turbo3) with heads of 64 and 64" in said
    said = log(program, "q8_0", "q8_0,first=1:turbo4", "q8_0,first=1:turbo4")
    assert said.count("dev = GPU0, in its memory") == 2
    assert "stays on the CPU" not in said


def test_a_device_that_cannot_do_prompts(program: Path) -> None:
    """Else every prompt would copy the cache to the CPU."""
    said = log(program, "prompts", "turbo4", "turbo4")
    assert said.count("dev = CPU\n") == 2


def test_without_flash_attention(program: Path) -> None:
    """Attention is products of matrices then, for which every token would copy the cache to the CPU."""
    assert "holds it" in log(program, "nothing", "turbo4", "f16", "transposed")
    assert "does not" in log(program, "products", "turbo4", "f16", "transposed")
    assert "holds it" in log(program, "products", "q8_0", "f16", "transposed")


def test_types_of_upstream_are_not_asked_about(program: Path) -> None:
    """What upstream does with its own types stays as it is."""
    assert log(program, "q8_0", "q8_0", "q8_0").count("dev = GPU0, in its memory") == 2


def test_no_other_device(program: Path) -> None:
    said = log(program, None, "turbo4", "turbo4")
    assert said.count("dev = CPU\n") == 2
    assert "stays on the CPU" not in said
