"""The areas on correctness and speed: what is found in the output of programs that need a GPU or a real model.

Their lines are written here as the programs print them; on a machine with a real build the areas run them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.deploy.site import Site
from toolchain.core.console import Console
from toolchain.core.errors import ConfigError
from toolchain.core.run import Run
from toolchain.firstrun import counts, toolkit
from toolchain.firstrun.areas import correctness, speed
from toolchain.firstrun.bench import Evidence
from toolchain.metal.cost import Cost
from toolchain.models.memory import geometry, gguf
from toolchain.proofs import GpuComparison, GpuProof, GpuStart, Verification
from toolchain.serving.probe_model import write_probe

SIZES = speed.Sizes(prompt=512, generated=64, depths=(0, 16384), repetitions=1)
KINDS = ("f16", "q8_0", "turbo4")
PER_TOKEN = {"f16": (0.010, 0.014), "q8_0": (0.010, 0.012), "turbo4": (0.010, 0.013)}
"""seconds without depth and at depth"""


def lines(per_token: dict[str, tuple[float, float]] = PER_TOKEN) -> str:
    """llama-bench's, between others, with prompts ten times as fast."""
    told = ["ggml_metal_init: found device: Apple M3 Max", "{damaged"]
    for kind, seconds in per_token.items():
        for depth, one in zip(SIZES.depths, seconds, strict=True):
            for prompt, generated, rate in ((512, 0, 10 / one), (0, 64, 1 / one)):
                line = {"build_commit": "abc", "type_k": kind, "type_v": kind, "n_prompt": prompt, "n_gen": generated,
                        "n_depth": depth, "avg_ts": rate, "stddev_ts": 0.1}  # fmt: skip
                told.append(msgspec.json.encode(line).decode())
    return "\n".join(told)


def test_every_type_at_every_depth_is_read_with_its_ratio_to_f16() -> None:
    found = speed.ran(speed.read(lines()), KINDS, SIZES)
    assert found.status == "confirmed"
    assert found.reason == (
        "at depth 16384 f16 generates 71.4 tokens/s and reads 714.3; of that q8_0 117% and 117%, turbo4 108% and 108%"
    )


def test_a_type_that_does_not_run_is_named() -> None:
    rest = {kind: seconds for kind, seconds in PER_TOKEN.items() if kind != "turbo4"}
    ended = Evidence(command="llama-bench", code=1, seconds=0.1, output="failed to create context with model")
    found = speed.ran(speed.read(lines(rest)), KINDS, SIZES, ended)
    assert found.status == "refuted"
    assert found.reason.startswith("no number for turbo4 at 0, turbo4 at 16384, turbo4 at 0, prompt")
    assert found.reason.endswith("ended with 1: failed to create context with model")


@pytest.mark.parametrize(
    ("counted", "status", "words"),
    [
        ({"q8_0": 2.0, "turbo4": 2.5, "f16": 4.0}, "confirmed", "turbo4 1.50, counted 1.25"),
        ({"q8_0": 2.0, "turbo4": 6.0, "f16": 4.0}, "refuted", "relative to q8_0: turbo4 1.50, counted 3.00"),
        ({"turbo4": 6.0}, "not tested", "attention over q8_0 took no measurable time"),
    ],
)
def test_counted_ratios_are_held_against_measured_ones(counted: dict[str, float], status: str, words: str) -> None:
    for identifier in ("speed.generation", "speed.prompt"):
        found = speed.compared(identifier, speed.read(lines()), counted, SIZES)
        assert found.status == status
        assert words in found.reason


def test_what_limits_a_type_is_its_time() -> None:
    light = Cost(k="q8_0", v="q8_0", queries=1, group=4, positions=1024, operations=1.0, matrix=0.0, read=1.0,
                 loaded=1.0, bytes_per_value=1.0625, threadgroup_bytes=0, kernels=())  # fmt: skip
    heavy = replace(light, operations=50.0, bytes_per_value=0.53)
    assert counts.time_of(light) == pytest.approx(1.0625 / 400e9)
    assert counts.time_of(heavy) == pytest.approx(200 / (40 * 128 * 1.38e9))


def test_the_heads_of_a_model(tmp_path: Path) -> None:
    write_probe(tmp_path / "a.gguf", head_size=128, heads=8, kv_heads=2, layers=1, context=64, seed=1)
    assert counts.heads_of(geometry.read(gguf.load(str(tmp_path / "a.gguf")))) == counts.Heads(size=128, group=4)
    write_probe(tmp_path / "b.gguf", head_size=96, heads=2, kv_heads=1, layers=1, context=64, seed=1)
    with pytest.raises(ConfigError, match="multiple of 64"):
        counts.heads_of(geometry.read(gguf.load(str(tmp_path / "b.gguf"))))


def test_a_model_that_does_not_exist_is_an_error_and_one_in_a_file_is_found(tmp_path: Path) -> None:
    config = Site.make(tmp_path).config
    assert toolkit.model_of(config) is None
    named = replace(config, verify=replace(config.verify, model=str(tmp_path / "none.gguf")))
    with pytest.raises(ConfigError, match="no such model"):
        toolkit.model_of(named)
    (tmp_path / "none.gguf").touch()
    assert toolkit.model_of(named) == tmp_path / "none.gguf"
    assert Run(config=config, console=Console()).config.verify.model == ""


def comparison(**changes: object) -> GpuComparison:
    usual = {"kv_cache_type": "turbo4", "cache_on": ("MTL0",), "offloaded": 9, "layers": 9, "splits": 2, "tokens": 24,
             "equal": 24, "margin": 0.0, "kl": 0.001, "noise": 0.01}  # fmt: skip
    return msgspec.convert(usual | changes, GpuComparison)


def verification(gpu: GpuProof | None) -> Verification:
    return Verification(release="a", version="1", proofs=(), gpu=gpu, unknown_type_message="", ok=True, seconds=1.0)


START = GpuStart(program="llama-server --list-devices", first_s=12.0, second_s=0.4)


@pytest.mark.parametrize(
    ("gpu", "agrees", "starts"),
    [
        (None, "not tested", "not tested"),
        (GpuProof(starts=(START,), comparisons=(comparison(),)), "confirmed", "confirmed"),
        (GpuProof(starts=(START,), comparisons=(comparison(cache_on=("CPU",)),)), "refuted", "confirmed"),
        (GpuProof(starts=(replace(START, first_s=40.0),), comparisons=(comparison(kl=0.4),)), "refuted", "refuted"),
        (GpuProof(starts=(), comparisons=()), "not tested", "not tested"),
        (GpuProof(starts=(START,), comparisons=()), "refuted", "confirmed"),
    ],
)
def test_what_verification_compared_on_the_gpu(gpu: GpuProof | None, agrees: str, starts: str) -> None:
    found = {one.id: one.status for one in correctness.on_the_gpu(verification(gpu))}
    assert found == {"correctness.cpu-gpu": agrees, "correctness.first-start": starts}


PASSED = "  SET_ROWS(type=turbo4,ne=[256,5,1,3]): \x1b[1;32mOK\x1b[0m\n"


@pytest.mark.parametrize(
    ("output", "status", "words"),
    [
        (PASSED * 2, "confirmed", "2 cases without a complaint"),
        (PASSED + "Invalid device load at offset 4096 in kernel_turbo_a\n", "refuted", "Invalid device load at offset"),
        (PASSED.replace("OK", "FAIL"), "refuted", "FAIL"),
        ("no MTL0\n", "refuted", "no case ran: no MTL0"),
    ],
)
def test_complaints_of_metals_validation(output: str, status: str, words: str) -> None:
    found = correctness.validated(Evidence(command="test-backend-ops", code=0, seconds=1.0, output=output))
    assert found.status == status
    assert words in found.reason
