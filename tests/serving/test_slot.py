from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.core.errors import StateInvalid
from toolchain.serving import slot

from ..quality import slots


@settings(max_examples=40)
@given(
    layers=st.integers(1, 4),
    cells=st.integers(2, 9),  # one cell at position 0 would fit both layouts of a position
    tokens=st.integers(0, 9),
    transposed=st.booleans(),
    dimensions=st.sampled_from([1, 4]),
    has_v=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_was_written_is_read(
    layers: int, cells: int, tokens: int, transposed: bool, dimensions: int, has_v: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    k, v = slots.numbers(rng, layers, cells, 8), slots.numbers(rng, layers, cells, 6)
    data = slots.header(range(tokens)) + slots.cache(
        k, v if has_v else None, transposed=transposed, dimensions=dimensions
    )
    found = slot.parse(data, has_v=has_v)
    assert (len(found.layers), found.rest) == (layers, 0)
    for index, layer in enumerate(found.layers):
        np.testing.assert_array_equal(layer.k, k[index].astype(np.float32))
        if layer.v is None:
            assert not has_v
        else:
            np.testing.assert_array_equal(layer.v, v[index].astype(np.float32))


def _whole() -> bytes:
    rng = np.random.default_rng(1)
    full = slots.cache(slots.numbers(rng, 2, 5, 8), slots.numbers(rng, 2, 5, 8))
    windowed = slots.cache(slots.numbers(rng, 1, 3, 4), slots.numbers(rng, 1, 3, 4))
    return slots.header([1, 2, 3]) + full + windowed


def test_a_second_cache_and_a_recurrent_rest() -> None:
    found = slot.parse(_whole())
    assert [layer.k.shape for layer in found.layers] == [(5, 8), (5, 8), (3, 4)]
    rest = slots.recurrent(position=5)
    hybrid = slot.parse(_whole() + rest)
    assert (len(hybrid.layers), hybrid.rest) == (3, len(rest))


def test_every_truncation_is_refused() -> None:
    """Cut anywhere, but between its caches, where a shorter file is a whole one."""
    data = _whole()
    complete = len(slots.header([1, 2, 3])) + len(
        slots.cache([np.zeros((5, 8), np.float16)] * 2, [np.zeros((5, 8), np.float16)] * 2)
    )
    for size in range(len(data)):
        if size == complete:
            continue
        with pytest.raises(StateInvalid, match=r"truncated|no cell"):
            slot.parse(data[:size])


@settings(max_examples=200)
@given(data=st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    whole = bytearray(_whole())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = slot.parse(bytes(whole))
    except StateInvalid:
        return
    assert all(np.isfinite(layer.k).all() for layer in found.layers)


def _one(kind: int) -> bytes:
    zeros = [np.zeros((2, 4), np.float16)]
    return slots.header([1]) + slots.cache(zeros, zeros, kind=kind)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "truncated"),
        (b"GGUF" + bytes(60), "begins with 46554747 and not 67677371"),
        (
            slots.header([1], version=3) + bytes(99),
            "saved in version 3 of llama.cpp's format; this toolkit reads version 2, which llama.cpp b10488 writes",
        ),
        (slots.header([1]), "no cell"),
        (slots.header([1]) + b"\1\0\0\0\0\0\0\0", "no cell"),
        (slots.header([1]) + b"\2\0\0\0\1\0\0\0" + bytes(99), "2 streams"),
        (_one(kind=8), "type 8, which is neither f16 nor f32"),
        (slots.header([1]) + slots.cache([np.full((2, 4), np.nan, np.float16)], None), "infinities or NaN"),
    ],
)
def test_what_is_no_state_is_named(data: bytes, words: str) -> None:
    with pytest.raises(StateInvalid, match=words):
        slot.parse(data)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StateInvalid, match=r"none\.bin: cannot be read"):
        slot.load(tmp_path / "none.bin")
