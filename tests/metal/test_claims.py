"""What the host code claims of the device and reserves in its memory, on the patched miniature; no kernel is run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolchain.metal.attention import Attention, pose
from toolchain.metal.host import Operation, Tensor

from .conftest import Patched


def reserved(patched: Patched, queries: int, positions: int, heads: int, kv_heads: int, head: int) -> tuple[int, int]:
    """Bytes of a result with its work memory, and of these what its parts take."""
    case = Attention(k="q8_0", v="turbo4", dk=head, dv=head, queries=1, positions=1)
    one = pose(case, patched.formats).operation
    size = 4 * head * heads
    q = Tensor(type="f32", ne=(head, queries, heads), nb=(4, size, 4 * head))
    k, v = (
        replace(tensor, ne=(head, positions, kv_heads), nb=(tensor.nb[0], tensor.nb[1] * kv_heads, tensor.nb[1]))
        for tensor in one.operands[1:3]
        if tensor
    )
    result = Tensor(type="f32", ne=(head, heads, queries), nb=(4, 4 * head, size))
    done = patched.host.record([replace(one, result=result, operands=(q, k, v))])[0]
    splits = done.dispatches[0].groups[0]
    needed = 4 * heads * queries * splits * (head + 2) if splits > 1 else 0
    assert len(done.dispatches) == (2 if needed else 1)
    assert needed <= done.extra
    return size * queries + done.extra, needed


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head"),
    [(16, 8, 128), (8, 1, 64), (8, 8, 64), (4, 2, 256), (32, 8, 128), (9, 3, 64), (128, 1, 512), (7, 7, 192)],
)
def test_what_the_largest_batch_reserves_is_enough_for_any(
    patched: Patched, heads: int, kv_heads: int, head: int
) -> None:
    """Though smaller batches are made in more parts; else a graph would be reserved anew whenever batches change."""
    whole, _ = reserved(patched, 512, 8192, heads, kv_heads, head)
    sizes = [
        reserved(patched, n, 8192, heads, kv_heads, head) for n in (1, 2, 8, 9, 16, 17, 31, 64, 100, 256, 496, 511)
    ]
    assert all(size <= whole for size, _ in sizes)
    assert any(needed for _, needed in sizes)
    assert reserved(patched, 512, 192, heads, kv_heads, head)[0] == 4 * head * heads * 512, "too short for parts"


def test_a_layout_that_the_kernels_do_not_read_is_not_claimed(patched: Patched) -> None:
    """Values or blocks with gaps between them, and results that cannot be written four values at a time."""
    turbo = Tensor(type="turbo4", ne=(128, 2), nb=(34, 68))
    floats, halves = Tensor(type="f32", ne=(128, 2), nb=(4, 512)), Tensor(type="f16", ne=(128, 2), nb=(2, 256))
    rows = Tensor(type="i32", ne=(2,), nb=(4,))

    def claimed(name: str, result: Tensor, *operands: Tensor) -> bool:
        return patched.host.record([Operation(name=name, result=result, operands=operands)], claims_only=True)[
            0
        ].claimed

    gaps, apart = replace(floats, nb=(8, 1024)), replace(turbo, nb=(68, 136))
    assert claimed("SET_ROWS", turbo, floats, rows)
    assert not claimed("SET_ROWS", turbo, gaps, rows)
    assert claimed("GET_ROWS", floats, turbo, rows)
    assert not claimed("GET_ROWS", floats, apart, rows)
    assert not claimed("CPY", turbo, gaps)
    for result, wide, odd in ((floats, 528, 516), (halves, 264, 258)):
        assert claimed("CPY", replace(result, nb=(result.nb[0], wide)), turbo)
        assert not claimed("CPY", replace(result, nb=(result.nb[0], odd)), turbo)


def test_nothing_is_asked_of_a_device_for_nothing(patched: Patched) -> None:
    """No rows to write; and no sequences, over which no threadgroups can be counted out."""
    turbo = Tensor(type="turbo4", ne=(64, 2), nb=(34, 34))
    rows, index = Tensor(type="f32", ne=(64, 0), nb=(4, 256)), Tensor(type="i64", ne=(0,), nb=(8,))
    none = pose(Attention(k="turbo4", v="turbo4", dk=64, dv=64, queries=33), patched.formats).operation
    q = none.operands[0]
    assert q is not None
    writes = Operation(name="SET_ROWS", result=turbo, operands=(rows, index))
    attends = replace(
        none,
        result=replace(none.result, ne=(*none.result.ne[:3], 0)),
        operands=(replace(q, ne=(*q.ne[:3], 0)), *none.operands[1:]),
    )
    done = patched.host.record([writes, attends])
    assert (done[0].claimed, done[0].dispatches, done[1].claimed) == (True, [], False)


def test_a_device_compiles_our_kernels_without_warnings(patched: Patched) -> None:
    """Even one that clang gives nowhere else (test_strict.py); the backend has no library then."""
    operation = pose(Attention(k="turbo4", v="turbo4", dk=64, dv=64), patched.formats).operation
    (source,) = patched.host.sources([operation]).values()
    before = source[: source.index("kernel void")]
    for group in ("all", "extra", "pass-failed"):
        assert f'#pragma clang diagnostic ignored "-W{group}"' in before
