"""turbo-dump's file, and attention computed from it, with two caches, grouped heads, a window and a soft cap."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolchain.core.errors import StateInvalid
from toolchain.models.quality import queries
from toolchain.models.quality.fidelity import compare, paired
from toolchain.models.quality.queries import AttentionLayer
from toolchain.models.quality.references import REFERENCES, q4_0
from toolchain.serving.slot import SavedLayer, SavedSlot

TOKENS, KV, HEADS, SIZE, WINDOW = 24, 2, 6, 32, 10
CODECS = {codec.name: codec for codec in REFERENCES}


def layer(number: int, *, window: int = TOKENS, mask: int = 0, cap: float = 0.0) -> AttentionLayer:
    """Numbers of every query, whose result is computed from K and V as q4_0 restores them."""
    rng = np.random.default_rng(number)
    k, v = rng.standard_normal((2, TOKENS, KV, SIZE)).astype(np.float32)
    q = rng.standard_normal((TOKENS, HEADS, SIZE)).astype(np.float32)
    at = np.arange(TOKENS)
    made = AttentionLayer(
        layer=number, k=k, v=v, type_k="q4_0", id_k=2, type_v="q4_0", id_v=2, q=q, positions=at,
        visible=np.minimum(at + 1, window), scale=0.2, cap=cap, alibi=0.0, sinks=False, mask=mask, out=q,
    )  # fmt: skip
    rough_k, rough_v = (q4_0(one.reshape(-1)).reshape(k.shape) for one in (k, v))
    out = [[plain(made, rough_k, rough_v, query, head) for head in range(HEADS)] for query in range(TOKENS)]
    return replace(made, out=np.array(out, dtype=np.float32))


def plain(one: AttentionLayer, k: Any, v: Any, query: int, head: int) -> Any:
    """One query's result, the long way."""
    group = head // (HEADS // KV)
    scores = []
    cells = range(query + 1 - int(one.visible[query]), query + 1)
    for cell in cells:
        score = one.scale * float(np.dot(one.q[query, head], k[cell, group]))
        scores.append(one.cap * math.tanh(score / one.cap) if one.cap else score)
    weights = np.exp(scores) / np.sum(np.exp(scores))
    return sum(weight * v[cell, group] for weight, cell in zip(weights, cells, strict=True))


def stored(one: AttentionLayer, at: Any) -> SavedLayer:
    assert one.v is not None
    k, v = (q4_0(values[at].reshape(-1)).reshape(len(at), -1) for values in (one.k, one.v))
    return SavedLayer(k=k, v=v, positions=at.astype(np.int32))


def records(one: AttentionLayer, batch: int) -> Iterator[bytes]:
    assert one.v is not None
    for first in range(0, TOKENS, batch):
        rows = slice(first, first + batch)
        for part, values in (("k", one.k), ("v", one.v)):
            yield record(part, one, values[rows].reshape(-1, 1, KV * SIZE), first, id=2, type="q4_0")
        facts = {"heads": HEADS, "scale": one.scale, "cap": one.cap, "mask": one.mask}
        yield record("q", one, one.q[rows], first, **facts, visible=one.visible[rows].tolist())
        yield record("out", one, one.out[rows], first, heads=HEADS)
        # a later layer that asks the same cache
        yield record("q", one, -one.q[rows], first, **facts, attention=9, visible=one.visible[rows].tolist())
        yield record("out", one, -one.out[rows], first, heads=HEADS, attention=9)


def record(part: str, one: AttentionLayer, values: Any, first: int, **facts: Any) -> bytes:
    header = {"part": part, "layer": one.layer, "first": first, "step": 1, "rows": len(values)}
    header |= {"width": values.shape[-1], "bytes": values.nbytes, **facts}
    return json.dumps(header).encode() + b"\n" + bytes(values.tobytes())


def test_batches_are_joined_and_a_kept_dump_is_the_same(tmp_path: Path) -> None:
    made = [layer(3, cap=5.0), layer(7, window=WINDOW, mask=7)]
    written = tmp_path / "dump"
    written.write_bytes(b"".join(piece for one in made for piece in records(one, 9)))
    found = queries.parse(written)
    queries.save(tmp_path / "kept.npz", found)
    for again in (found, tuple(queries.load(tmp_path / "kept.npz"))):
        assert [(one.layer, one.mask, one.cap, one.type_v) for one in again] == [
            (3, 0, 5.0, "q4_0"),
            (7, 7, 0.0, "q4_0"),
        ]
        for one, exact in zip(again, made, strict=True):
            for name in ("k", "v", "q", "out", "positions", "visible"):
                np.testing.assert_array_equal(getattr(one, name), getattr(exact, name))


@pytest.mark.parametrize("end", [-1, -200, 40])
def test_a_file_that_ends_early_is_refused(tmp_path: Path, end: int) -> None:
    written = tmp_path / "dump"
    written.write_bytes(b"".join(records(layer(3), 24))[:end])
    with pytest.raises(StateInvalid, match="not what turbo-dump writes"):
        queries.parse(written)
    with pytest.raises(StateInvalid, match="not a dump"):
        list(queries.load(written))


@pytest.mark.parametrize(("window", "cap"), [(TOKENS, 0.0), (WINDOW, 0.0), (TOKENS, 3.0)])
def test_attention_is_that_of_the_model(window: int, cap: float) -> None:
    one = layer(1, window=window, cap=cap)
    order = np.random.default_rng(0).permutation(TOKENS)  # cells are in any order
    found = compare(one, stored(one, order), one, CODECS)
    assert found.kernel == pytest.approx(0, abs=1e-10)
    assert found.k_error == pytest.approx(found.k_reference)
    assert 0.98 < found.cosine == pytest.approx(found.through)
    assert found.queries == TOKENS


def test_a_windows_cache_that_forgot_cells_serves_the_queries_that_are_left() -> None:
    one = layer(1, window=WINDOW)
    found = compare(one, stored(one, np.arange(8, TOKENS)), one, CODECS)
    assert found.queries == TOKENS - 8 - WINDOW + 1
    assert found.kernel == pytest.approx(0, abs=1e-10)
    with pytest.raises(StateInvalid, match="none of the cells"):
        compare(one, stored(one, np.arange(TOKENS - 3, TOKENS)), one, CODECS)


def test_two_caches_are_told_apart_by_their_keys() -> None:
    layers = [layer(0, window=WINDOW, mask=0), layer(1, mask=1), layer(2, window=WINDOW, mask=0)]
    at = np.arange(TOKENS)
    slot = SavedSlot(layers=tuple(stored(layers[number], at) for number in (1, 0, 2)), rest=0)
    assert [one.layer for one, _ in paired(layers, slot)] == [1, 0, 2]
    with pytest.raises(StateInvalid, match="2 layers of other sizes than the model's 3"):
        paired(layers, SavedSlot(layers=slot.layers[:2], rest=0))
