"""What attention costs, counted, and what follows from it."""

from __future__ import annotations

import pytest

from toolchain.metal import cost, roofline
from toolchain.metal.attention import Attention
from toolchain.metal.cost import Cost
from toolchain.metal.roofline import Gpu, Workload
from toolchain.text import as_text

from .conftest import Patched

pytestmark = pytest.mark.slow


def counted(patched: Patched, kind: str, queries: int, heads: int, positions: int = 512) -> Cost:
    case = Attention(k=kind, v=kind, dk=128, dv=128, queries=queries, heads=heads, positions=positions)
    return cost.count(patched.host, patched.library, case, patched.formats)


@pytest.mark.parametrize(("kind", "bits"), [("turbo5", 5.25), ("turbo4", 4.25), ("turbo3", 3.25), ("turbo2", 2.25)])
def test_a_block_is_read_once_for_all_heads(patched: Patched, kind: str, bits: float) -> None:
    """And decoded once: four heads, or eight, take little more than one."""
    one, four, eight = (counted(patched, kind, 1, heads) for heads in (1, 4, 8))
    work = 2 * 4 * 2 / 512  # the parts of two threadgroups, for a value
    for found in (one, four, eight):
        assert found.bytes_per_value == bits / 8
        assert bits / 8 <= found.read * found.group <= bits / 8 + work * found.group
    assert 4 * four.operations < 1.1 * one.operations
    assert 8 * eight.operations < 1.2 * one.operations
    assert four.operations < 7.0, "half of what a decoder for each head took"


def test_upstream_reads_anew_for_every_head(patched: Patched) -> None:
    """The kernels of the miniature are as upstream's in that."""
    one, four = (counted(patched, "f16", 1, heads) for heads in (1, 4))
    assert four.read == pytest.approx(one.read, rel=0.05)


def test_long_prompts_decode_for_more_rows(patched: Patched) -> None:
    short, long = (counted(patched, "turbo4", queries, 8, 64) for queries in (16, 64))
    assert long.kernels == ("kernel_turbo_attention_many_dk128_dv128_rows2",)
    assert long.operations < short.operations
    assert long.threadgroup_bytes <= 32768


def test_the_estimate_takes_the_longer_of_two() -> None:
    gpu = Gpu(name="a GPU", bytes_per_second=1e9, operations_per_second=1e9, source="nowhere")
    model = Workload(name="a model", weight_bytes=1e9, values_per_position=1000, source="nowhere")
    base = {"queries": 1, "group": 4, "positions": 1000, "loaded": 0.0, "threadgroup_bytes": 0, "kernels": ()}
    slow = Cost(k="a", v="a", operations=1.0, matrix=0.5, read=1.0, bytes_per_value=2.0, **base)  # type: ignore[arg-type]
    wide = Cost(k="b", v="b", operations=0.1, matrix=0.0, read=2.0, bytes_per_value=2.0, **base)  # type: ignore[arg-type]
    a, b = roofline.estimates([slow, wide], depths=[1000], gpu=gpu, model=model)
    assert (a.arithmetic, a.memory, a.memory_uncached, a.weights) == (6.0, 2.0, 4.0, 1000.0)
    assert a.token == 1006.0
    assert b.token == 1002.0
    assert "ESTIMATE" in as_text(roofline.TokenEstimates([a, b]))
