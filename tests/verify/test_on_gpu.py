"""What a GPU has to do: recorded devices, each with one fault, and llama-server that uses the GPU or does not.

devices.json is what the real turbo-probe printed with the stand-in of stand_in/device.cpp, on llama.cpp b10488.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from toolchain.core.errors import ModelLoadFailed, VerificationFailed
from toolchain.proofs import GpuComparison, GpuProof, GpuStart, Verdict
from toolchain.serving.placement import Placement, placement
from toolchain.serving.probe_model import write_probe
from toolchain.verify import attention, checklist, gpu
from toolchain.verify.checklist import Examined
from toolchain.verify.probed import Device, Probed

from .conftest import TURBO4, write_programs

DEVICES = msgspec.json.decode(Path(__file__).with_name("devices.json").read_bytes(), type=dict[str, Device])
SOUND = DEVICES["sound"]
COMPARED = GpuComparison(
    kv_cache_type="turbo4", cache_on=("MTL0",), offloaded=9, layers=9, splits=2,
    tokens=24, equal=24, margin=0.0, kl=1e-5, noise=0.01,
)  # fmt: skip
NONE = VerificationFailed("not examined")


def _verdicts(*devices: Device, compared: GpuComparison = COMPARED, needed: str = "a Mac") -> dict[int, Verdict]:
    """The verdicts on what GPUs do, by number."""
    cpu = replace(SOUND, name="CPU", cpu=True)
    found = Examined(
        probed=Probed(types=(), devices=(*devices, cpu)),
        graph=NONE,
        kinds=(TURBO4,),
        gpu_needed=needed,
        gpu=GpuProof(starts=(), comparisons=(compared,)),
    )
    return {verdict.number: verdict for verdict in checklist.judge(found)}


def test_a_sound_device_and_one_too_many() -> None:
    verdicts = _verdicts(SOUND)
    assert verdicts[6].ok
    assert verdicts[7].ok
    assert "MTL0 does all of turbo4" in verdicts[7].evidence
    assert _verdicts(replace(DEVICES["nothing"], name="BLAS"), SOUND)[7].ok
    assert 7 not in _verdicts(needed="")


@pytest.mark.parametrize(
    ("fault", "number", "words"),
    [
        ("no-attention-64", 7, "of turbo4 at head size 64 without a mask, 1 query, 8:2 heads on MTL0: unsupported"),
        ("mask", 6, "of turbo4 at head size 64 with a mask, 1 query, 8:2 heads on MTL0: error 0.34"),
        ("mixed", 6, "of q8_0:turbo4 at head size 64 without a mask, 1 query, 8:2 heads on MTL0: error 0.099"),
        ("nothing", 7, "SET_ROWS of turbo4 on MTL0: unsupported; CPY to it of turbo4 on MTL0: unsupported"),
    ],
)
def test_a_recorded_fault(fault: str, number: int, words: str) -> None:
    verdicts = _verdicts(DEVICES[fault])
    assert [each for each in (6, 7) if not verdicts[each].ok] == [number]
    assert words in verdicts[number].evidence
    assert fault == "nothing" or f"FLASH_ATTN_EXT {words}" in verdicts[number].evidence


def test_a_fault_alone_is_named() -> None:
    """Of the fault in one of the cases there is no other word; and a release whose turbo-probe computes no attention
    has not shown any."""
    (kind,) = SOUND.types
    for number, one in enumerate(kind.attention):
        for change in (replace(one, of=0), replace(one, error=0.3), replace(one, error=float("nan"))):
            cases = (*kind.attention[:number], change, *kind.attention[number + 1 :])
            verdicts = _verdicts(replace(SOUND, types=(replace(kind, attention=cases),)))
            wrong = verdicts[6 if change.of else 7]
            assert not wrong.ok
            assert wrong.evidence.startswith(f"{attention.case(one)} on MTL0: ")
    older = _verdicts(replace(SOUND, types=(replace(kind, attention=()),)))[7]
    assert "FLASH_ATTN_EXT of turbo4 at head size 64 without a mask, 1 query, grouped heads on MTL0" in older.evidence
    rows = tuple(one for one in kind.operations if one.op != "CPY from it")
    assert (
        "CPY from it of turbo4 on MTL0: unsupported"
        in _verdicts(replace(SOUND, types=(replace(kind, operations=rows),)))[7].evidence
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cache_on": ("CPU",)}, "computes on the CPU: its log places the KV cache in CPU"),
        ({"cache_on": ()}, "computes on the CPU: its log places the KV cache in no buffer"),
        ({"cache_on": ("MTL0", "CPU")}, "in MTL0, CPU"),
        ({"offloaded": 8}, "8 of 9 layers are on the GPU"),
        ({"splits": 18}, "leaves operations to the CPU: the graph has 18 parts"),
        ({"splits": 0}, "the graph has 0 parts"),
        ({"kl": 0.03}, "KL 0.03 nats (at most 0.02)"),
        ({"kl": float("nan")}, "KL nan"),
        ({"equal": 3, "margin": 0.5, "noise": 0.0}, "3 of 24 tokens equal, the next one preferred by 0.5 nats"),
    ],
)
def test_a_server_that_does_not_use_it(changes: dict[str, object], words: str) -> None:
    verdict = _verdicts(SOUND, compared=replace(COMPARED, **changes))[7]  # type: ignore[arg-type]
    assert not verdict.ok
    assert words in verdict.evidence
    assert "llama-server with turbo4" in verdict.evidence


def test_what_rounding_explains_is_allowed() -> None:
    """With an f16 cache a near tie; with a quantizer as much as the type itself costs, whatever the tokens are."""
    exact = replace(COMPARED, equal=3, noise=0.0, margin=0.04)
    assert _verdicts(SOUND, compared=exact)[7].ok
    assert _verdicts(SOUND, compared=replace(exact, noise=0.01, kl=0.009, margin=0.8))[7].ok


def test_no_gpu_at_all() -> None:
    verdict = _verdicts()[7]
    assert not verdict.ok
    assert "a Mac, and the built libraries find none" in verdict.evidence


def test_where_a_log_says_that_the_cache_is() -> None:
    log = (
        "load_tensors: offloaded 9/9 layers to GPU\n"
        "llama_kv_cache:       MTL0 KV buffer size =     0.50 MiB\n"
        "llama_kv_cache:        CPU KV buffer size =     0.50 MiB\n"
        "sched_reserve: graph splits = 4 (with bs=256), 2 (with bs=1)\n" + "x" * 9000 + "graph splits = 77\n"
    )
    assert placement(log) == Placement(cache_on=("MTL0", "CPU"), offloaded=9, layers=9, splits=4)
    assert placement("llama_context: graph splits = 3\n") == Placement(cache_on=(), offloaded=0, layers=0, splits=3)
    assert "size_vram 0" in gpu.off_gpu(0, log.replace("CPU", "MTL0"))
    assert "KV cache in CPU" in gpu.off_gpu(9, log)
    assert gpu.off_gpu(9, "llama_kv_cache: MTL0 KV buffer size = 1.00 MiB") == ""
    assert gpu.off_gpu(None, log) == ""


# -- measured on a server --------------------------------------------------------------------------------------------


@pytest.fixture
def release(tmp_path: Path) -> Path:
    write_programs(tmp_path)
    return tmp_path


@pytest.fixture
def measure(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[GpuComparison, ...]]:
    model = tmp_path / "probe.gguf"
    write_probe(model, head_size=64, heads=4, kv_heads=2, layers=8, context=256, seed=9)

    def measured(how: str, *caches: str, noise: str = "") -> tuple[GpuComparison, ...]:
        monkeypatch.setenv("TQ_TEST_GPU", how)
        monkeypatch.setenv("TQ_TEST_NOISE", noise)
        return gpu.examine(release, model, caches or ("f16",), folder=tmp_path, timeout_s=60)

    return measured


@pytest.mark.slow
def test_a_server_on_the_gpu_is_compared_with_one_without(measure: Callable[..., tuple[GpuComparison, ...]]) -> None:
    found = measure("all", *gpu.caches([TURBO4]), noise="turbo4=0.3")
    assert [one.kv_cache_type for one in found] == ["f16", "turbo4", "q8_0:turbo4"]
    for one in found:
        assert (one.cache_on, one.offloaded, one.layers, one.splits) == (("MTL0",), 9, 9, 2)
        assert (one.tokens, one.equal, one.margin, one.kl) == (24, 24, 0.0, 0.0)
    assert found[0].noise == 0.0
    assert found[1].noise > found[2].noise > 0.01, "of K and V, and of V alone"
    assert all(_verdicts(SOUND, compared=one)[7].ok for one in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cpu", "with f16 computes on the CPU: its log places the KV cache in CPU"),
        ("layers", "8 of 9 layers"),
        ("splits", "18 parts"),
        ("0.5", "f16 on the GPU against the CPU"),
    ],
)
def test_a_server_that_computes_elsewhere_or_otherwise(
    measure: Callable[..., tuple[GpuComparison, ...]], how: str, words: str
) -> None:
    verdict = _verdicts(SOUND, compared=measure(how)[0])[7]
    assert not verdict.ok
    assert words in verdict.evidence


def test_a_type_that_does_not_load_on_the_gpu_is_named(
    measure: Callable[..., tuple[GpuComparison, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQ_TEST_FAIL", "load")
    with pytest.raises(ModelLoadFailed, match=r"^f16 without a GPU: (.|\n)*unknown architecture"):
        measure("all")


def test_the_first_start_and_the_second(release: Path) -> None:
    server, probe = gpu.starts(release, "turbo4")
    assert server.program == "llama-server --list-devices"
    assert 0 < server.second_s < 60
    assert probe == GpuStart(program="lib/ollama/turbo-probe start", first_s=25.5, second_s=25.5)
    late = gpu.slow(GpuProof(starts=(server, probe), comparisons=()))
    assert "turbo-probe start 26 s, then 26 s; Ollama gives up on a GPU after 30 s" in late
    assert gpu.slow(GpuProof(starts=(server,), comparisons=())) == gpu.slow(None) == ""
