from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toolchain.models.memory.planning as request
from toolchain.core.cachetypes.grammar import parse
from toolchain.core.cachetypes.table import own
from toolchain.core.config import load as load_config
from toolchain.core.console import Console
from toolchain.core.errors import ArchitectureUnknown, ConfigError, ModelInvalid
from toolchain.core.records import to_json_line
from toolchain.core.run import Run
from toolchain.host import gpulimit
from toolchain.models.memory import geometry, hardware, kv, plan, rotation, working
from toolchain.tasks.flags import CacheSettings, Names
from toolchain.text import as_text

from ..tasks.test_command import inv
from . import models
from .conftest import load
from .test_kv import TABLE

GIB = 1 << 30
SIZES = ((0, 64), (1, 128), (2, 256), (3, 256))
PLAIN = geometry.Geometry(
    architecture="llama",
    layers=4,
    cached=(),
    context_length=1024,
    embedding=256,
    feed_forward=256,
    heads=4,
    vocabulary=100,
)


def planned(path: Path, ram: int, *types: str, contexts: tuple[int, ...] = (), **setting: Any) -> plan.MemoryPlan:
    found = load(path)
    machine = hardware.a_mac(ram)
    return plan.plan(
        found,
        geometry.read(found),
        machine,
        types=[parse(one) for one in types or plan.usual_types(own())],
        table=TABLE,
        contexts=contexts,
        setting=kv.Setting(context=1, **setting),
    )


def test_a_calibration_of_keys_is_counted(large: dict[str, Path]) -> None:
    found = load(large["gemma3_27b"])
    shape, machine = geometry.read(found), hardware.a_mac(32 * GIB)
    bare, with_it = (
        plan.plan(found, shape, machine, types=[parse("turbo4")], table=TABLE, calibrated=calibrated)
        for calibrated in (False, True)
    )
    assert with_it.weights - bare.weights == 3 * 4 * 62 * 16 * 128


def test_a_27b_model_on_32_gib(large: dict[str, Path]) -> None:
    """Gemma 3 27B at Q4_K_M: ten full layers of 16 heads of 128, and 52 with a window of 1024."""
    found = planned(large["gemma3_27b"], 32 * GIB)
    f16, q8_0, mixed, _, turbo4, *_ = found.types
    assert found.weights == 16_540_125_824
    assert found.budget == 27 * GIB
    assert [cell.context for cell in f16.cells] == [8192, 16384, 32768, 65536, 131072]
    token, window = 2 * 16 * 128, 1536
    assert f16.cells[-1].kv == 2 * token * (10 * 131072 + 52 * window)
    assert turbo4.cells[-1].kv == token // 64 * 34 * (10 * 131072 + 52 * window)
    assert [cell.gpu_fits for cell in f16.cells] == [True, True, True, False, False]
    assert f16.largest_context == 131072 > q8_0.largest_gpu_context >= 65536
    assert found.recommendation.types == mixed.types == "q8_0:turbo4"
    assert (found.gpu, found.gpu_most // (1 << 20)) == (32 * GIB * 2 // 3, 25559)
    assert [cell.gpu_may_fit for cell in f16.cells] == [True, True, True, True, False]
    assert any("iogpu.wired_limit_mb=27062 raises it, until the next reboot" in note for note in found.notes)
    assert any(note.startswith("~ fits where Metal allows up to 25.0 GiB") for note in found.notes)
    assert any("only a header" in note for note in found.notes)


def test_a_32b_model_without_windows(large: dict[str, Path]) -> None:
    found = planned(large["qwen3_32b"], 32 * GIB, contexts=(40960,))
    assert [one.types for one in found.types if one.largest_gpu_context >= 40960] == ["turbo3", "turbo2"]
    assert found.recommendation.types == "turbo3"
    assert found.types[0].cells[0].kv == 64 * 2 * 8 * 128 * 2 * 40960
    assert not planned(large["qwen3_32b"], 22 * GIB).recommendation.types


def test_no_advice_is_below_what_macos_allows_by_itself() -> None:
    """128 GiB, of which 102813 MiB were needed: more than the older rule allows, and less than Macs now report."""
    needed, ram = 102813 << 20, 128 * GIB
    (note,) = hardware.metal_notes(hardware.a_mac(ram), [needed])
    assert note.startswith("~ fits where Metal allows up to 107.5 GiB")
    assert "sysctl" not in note
    measured = hardware.with_limit(ram, gpulimit.of_machine(ram, 0, 115448725504))
    assert hardware.metal_notes(measured, [needed]) == []
    (note,) = hardware.metal_notes(measured, [needed, 112 * GIB])
    assert note.startswith("* fits, but Metal allows 107.5 GiB (Metal): sudo sysctl iogpu.wired_limit_mb=114688")
    lowered = hardware.with_limit(ram, gpulimit.of_machine(ram, 65536, 65536 << 20))
    (note,) = hardware.metal_notes(lowered, [needed])
    assert "sysctl iogpu.wired_limit_mb=0 gives macOS's own limit back, which is 96.0 to 107.5 GiB" in note


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(ram=st.integers(6 * GIB, 40 * GIB), sequences=st.integers(1, 4), unified=st.booleans())
def test_the_largest_context_is_the_largest(
    tmp_path_factory: pytest.TempPathFactory, ram: int, sequences: int, unified: bool
) -> None:
    path = _path(tmp_path_factory)
    found = planned(path, ram, "f16", "turbo4", sequences=sequences, unified=unified)
    for one in found.types:
        best = one.largest_context
        around = tuple(context for context in (best, min(best + kv.PADDING, 131072)) if context)
        cells = planned(path, ram, one.types, contexts=around, sequences=sequences, unified=unified).types[0].cells
        assert cells[-1].fits == (best == 131072)
        assert best == 0 or cells[0].fits


_KEPT: list[Path] = []


def _path(factory: pytest.TempPathFactory) -> Path:
    """A header of 14 GiB of weights, made once."""
    if not _KEPT:
        spec = models.dense(layers=40, embedding=5120, feed_forward=17408, heads=40, kv_heads=8, head_size=128)
        kept = [one for one in spec.tensors if "ffn_up" not in one[0]]
        path = factory.mktemp("plan") / "m.gguf"
        _KEPT.append(models.write(path, models.Spec("llama", spec.metadata, kept), data=False))
    return _KEPT[0]


def test_types_that_do_not_load_are_no_recommendation(tiny: dict[str, Path]) -> None:
    found = planned(tiny["mla"], 16 * GIB, "q8_0:turbo4", "turbo4")
    assert "MLA" in found.types[0].obstacle
    assert found.recommendation.types == "turbo4"
    assert "does not load" in as_text(found)
    assert (
        planned(tiny["mla"], 16 * GIB, "q8_0:turbo4").recommendation.reason == "llama.cpp supports none of these types"
    )


@pytest.mark.parametrize(
    ("head_size", "types", "said"),
    [
        (96, ("q8_0:f16",), "heads of 96"),
        (96, ("f16,first=1:q8_0:f16",), "heads of 96"),
        (96, ("f16:q8_0", "turbo4"), ""),  # V may be anything; turbo4 does not load at all
        (80, ("f16",), ""),
        (64, ("q8_0", "turbo4"), ""),
        (192, ("turbo4",), ""),
    ],
)
def test_keys_that_llama_cpp_does_not_rotate_are_told(
    tmp_path: Path, head_size: int, types: tuple[str, ...], said: str
) -> None:
    spec = models.dense(layers=4, embedding=256, feed_forward=256, heads=4, kv_heads=2, head_size=head_size)
    found = planned(models.write(tmp_path / "m.gguf", spec, data=False), 16 * GIB, *types)
    told = [note for note in found.notes if "#25636" in note]
    assert [note.partition(":")[0] for note in told] == ([said] if said else [])
    assert all(note in as_text(found) for note in told)


_SINKS = ("blk.0.attn_sinks.weight", (4,), models.Kind.F32)


@pytest.mark.parametrize(
    ("spec", "said", "better"),
    [
        (
            models.dense("gptoss", further={"attention.sliding_window": 128}),
            "q8_0:turbo4, turbo3: its attention has",
            "q8_0",
        ),
        (models.Spec("llama", (plain := models.dense()).metadata, [*plain.tensors, _SINKS]), "has sinks", "q8_0"),
        (models.deepseek2(), "turbo3: MLA keeps V in the rows of K", "q8_0"),
        (models.dense("qwen25vl"), "turbo3: its keys may be too extreme", "q8_0:turbo4"),
        (models.dense(), "", ""),
    ],
)
def test_models_that_are_known_to_lose_are_told_with_a_better_setting(
    tmp_path: Path, spec: models.Spec, said: str, better: str
) -> None:
    found = planned(
        models.write(tmp_path / "m.gguf", spec, data=False), 16 * GIB, "f16", "q8_0", "q8_0:turbo4", "turbo3"
    )
    told = [note for note in found.notes if note.endswith(f"better: {better}")]
    assert len(told) == bool(said)
    assert all(said in note and note in as_text(found) for note in told)


@pytest.mark.parametrize("name", ["deepseek4", "qwen4exp"])
def test_architectures_that_fail_with_a_quantized_cache(tmp_path: Path, name: str) -> None:
    path = models.write(tmp_path / "m.gguf", models.dense(name), data=False)
    with pytest.raises(ArchitectureUnknown) as caught:
        geometry.read(load(path))
    assert "quantized cache" in caught.value.hint
    assert "f16 is the safe type" in caught.value.hint


def test_mla_without_a_layer_of_attention(tmp_path: Path) -> None:
    further = {"attention.key_length_mla": 192, "kda.head_dim": 64, "ssm.conv_kernel": 4}
    path = models.write(tmp_path / "m.gguf", models.dense("kimi-linear", kv_heads=0, further=further), data=False)
    found = planned(path, 16 * GIB, "f16", "turbo4")
    assert found.types[0].kv_per_token == found.types[1].kv_per_token > 0


_MOST = {"attention.head_count": 1, "attention.key_length": 1 << 14, "attention.value_length": 1 << 14}


def test_sizes_stay_within_64_bits(tmp_path: Path) -> None:
    """The largest that metadata may state, at the largest setting of the command line."""
    further = {**_MOST, "attention.head_count_kv": 2, "block_count": 512, "context_length": 1 << 27}
    further |= {"feed_forward_length": 1 << 20, "expert_used_count": 1 << 20, "embedding_length": 1 << 20}
    path = models.write(tmp_path / "m.gguf", models.dense(further=further), data=False)
    found = planned(path, 16 * GIB, "f32", sequences=256, batch=1 << 16, contexts=(1 << 27,))
    assert 1 << 60 < found.types[0].cells[0].total < 1 << 63
    assert str(found.types[0].cells[0].total) in to_json_line(found)
    further["attention.head_count_kv"] = 3
    with pytest.raises(ModelInvalid, match="values of K and V for each token"):
        geometry.read(load(models.write(tmp_path / "m.gguf", models.dense(further=further), data=False)))


def test_heads_of_several_sizes_in_one_cache_are_not_rotated() -> None:
    layers = [geometry.CachedLayer(index=i, k=head, v=64, head_k=head, head_v=64, windowed=i > 1) for i, head in SIZES]
    found = dataclasses.replace(PLAIN, cached=tuple(layers))
    assert rotation.unrotated_heads(found, parse("q8_0"), TABLE) == (64, 128)
    assert rotation.unrotated_heads(found, parse("f16,layers=2-3:q8_0:f16"), TABLE) == ()


def test_the_working_memory_of_known_graphs(large: dict[str, Path]) -> None:
    """Compute buffers that llama.cpp b10470 reserved on the CPU, in bytes, and how far off the estimate is."""
    reserved = {
        ("qwen3_32b", "f16", 2048, 512): 207_630_368,
        ("qwen3_32b", "turbo3", 131072, 2048): 1_359_085_600,
        ("gemma3_27b", "f16", 131072, 512): 309_350_432,
        ("gemma3_27b", "turbo3", 8192, 2048): 774_094_880,
    }
    for (name, types, context, batch), size in reserved.items():
        found = geometry.read(load(large[name]))
        setting = kv.Setting(context=context, batch=batch)
        caches = kv.sizes(found, parse(types), setting, TABLE)
        own = working.PROCESS_BYTES + 4 * found.vocabulary
        assert working.working_bytes(found, setting, caches) - own == pytest.approx(size, rel=0.05)


# -- the task --------------------------------------------------------------------------------------


def run(**flags: Any) -> Run:
    return Run(config=load_config(environ={}, flags=flags), console=Console(json=True))


def test_json_and_text(large: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    model = str(large["gemma3_27b"])
    types = CacheSettings.read(["turbo4 q8_0:turbo2,last=2:q8_0"])
    run().finish(request.plan_for(run(), model, Names.read(["64K,1000"]), types, 36.0, 2, True, 256))
    said = json.loads(capsys.readouterr().out)
    assert [one["types"] for one in said["types"]] == ["turbo4", "q8_0:turbo2,last=2:q8_0"]
    assert [cell["context"] for cell in said["types"][0]["cells"]] == [65536, 1000]
    assert (said["sequences"], said["batch"], said["gpu"]) == (2, 256, 27 * GIB)


@pytest.mark.slow
def test_the_command_line(large: dict[str, Path], tmp_path: Path) -> None:
    model = str(large["qwen3_32b"])
    done = inv("memory", "--model", model, "--ram", "36", "--context", "32K", "--types", "turbo4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "recommended: turbo4, up to 40960 tokens" in done.stdout
    done = inv("memory", "--model", str(tmp_path / "none.gguf"), "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["error"]) == (70, "ModelInvalid")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ""}, "--model is missing"),
        ({"context": ["64Q"]}, "--context '64Q'"),
        ({"context": ["0"]}, "--context '0'"),
        ({"types": ["turbo9"]}, "turbo9: no such cache type"),
        ({"types": ["turbo4,first=99:q8_0"]}, "62 attention layers"),
        ({"ram": -1.0}, "--ram -1"),
        ({"ram": float("nan")}, "--ram nan"),
        ({"parallel": 0}, "--parallel 0"),
        ({"batch": 1 << 20}, "--batch 1048576"),
    ],
)
def test_flags_that_make_no_sense(large: dict[str, Path], changes: dict[str, Any], message: str) -> None:
    flags = {
        "model": str(large["gemma3_27b"]),
        "context": [],
        "types": [],
        "ram": 36.0,
        "parallel": 1,
        "unified": False,
        "batch": 512,
        **changes,
    }
    with pytest.raises(ConfigError, match=message):
        request.plan_for(run(), **flags)


def test_a_model_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match="not a file, and not a model in"):
        request.find_model("gemma3:27b", run(**{"deploy.models": str(tmp_path)}))
