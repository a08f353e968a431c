"""The arithmetic of `bench.keys`, on keys whose answers are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gguf
import numpy as np
import pytest

from bench import keys, keys_arithmetic, scaled
from bench.keys_arithmetic import ERRORS, Doubles
from toolchain.build.quantizers import Floats
from toolchain.models.quality import queries
from toolchain.models.quality.queries import AttentionLayer

TOKENS, KV, HEADS, SIZE, WINDOW, BASE = 96, 2, 4, 64, 40, 10000.0


def spun(early: Doubles, halves: bool) -> Floats:
    """Keys (tokens, heads, size) after RoPE, by its definition."""
    found = np.empty_like(early)
    for pair in range(SIZE // 2):
        a, b = (pair, pair + SIZE // 2) if halves else (2 * pair, 2 * pair + 1)
        angle = np.arange(len(early))[:, None] * BASE ** (-2 * pair / SIZE)
        found[..., a] = early[..., a] * np.cos(angle) - early[..., b] * np.sin(angle)
        found[..., b] = early[..., a] * np.sin(angle) + early[..., b] * np.cos(angle)
    return found.astype(np.float32)


def layer(k: Floats, *, window: int = TOKENS, seed: int = 0) -> AttentionLayer:
    at = np.arange(0, TOKENS, 8)
    q = np.random.default_rng(seed).standard_normal((len(at), HEADS, SIZE)).astype(np.float32)
    return AttentionLayer(
        layer=3, k=k, v=None, type_k="f16", id_k=1, type_v="f16", id_v=1, q=q, positions=at,
        visible=np.minimum(at + 1, window), scale=0.3, cap=0.0, alibi=0.0, sinks=False, mask=0, out=q,
    )  # fmt: skip


def drawn(seed: int, mean: float = 0.0) -> Floats:
    constant = mean * np.random.default_rng(99).standard_normal((1, KV, SIZE))
    return (np.random.default_rng(seed).standard_normal((TOKENS, KV, SIZE)) + constant).astype(np.float32)


@pytest.mark.parametrize("halves", [False, True])
def test_rope_is_found_and_taken_off(halves: bool) -> None:
    early = drawn(0, mean=2.0).astype(np.float64)
    turned = spun(early, halves).astype(np.float64)
    assert keys_arithmetic.rope(turned, [BASE, 1e6]) == (BASE, halves)
    found = keys_arithmetic.turned(turned[:, 1], BASE, halves)
    assert keys_arithmetic.share(found) == pytest.approx(keys_arithmetic.share(early[:, 1]), rel=1e-5)
    assert keys_arithmetic.share(found) > 0.7 > keys_arithmetic.share(turned[:, 1])


def test_the_divergence_is_that_of_two_softmaxes_and_ignores_what_cells_have_in_common() -> None:
    scores, errors = np.random.default_rng(0).standard_normal((2, 3, 5, 20))

    def softmax(of: Doubles) -> Doubles:
        return np.asarray(np.exp(of) / np.exp(of).sum(-1, keepdims=True))

    exact, rough = softmax(scores), softmax(scores + errors)
    wanted = np.sum(exact * np.log(exact / rough), axis=-1)
    np.testing.assert_allclose(keys_arithmetic.divergence(exact, errors), wanted)
    np.testing.assert_allclose(keys_arithmetic.divergence(exact, errors + 7), wanted)


def test_the_share_of_the_largest_channels() -> None:
    assert keys_arithmetic.largest(np.array([1.0] * 12 + [7.0] * 4)) == pytest.approx(0.7)


def test_a_cell_is_felt_as_its_weight_and_the_query_say() -> None:
    one = layer(np.zeros((TOKENS, KV, SIZE), dtype=np.float32), window=WINDOW)
    found = keys_arithmetic.felt_by_cell(one)
    wanted = np.zeros((KV, TOKENS))
    for query, position in enumerate(one.positions):  # all weights are 1 / n
        n = min(position + 1, WINDOW)
        squares = np.sum(one.q[query].astype(np.float64) ** 2, axis=1).reshape(KV, -1).sum(1)
        wanted[:, position + 1 - n : position + 1] += 0.09 * squares[:, None] * (n - 1) / n**2 / len(one.q)
    np.testing.assert_allclose(found, wanted)


def test_an_ideal_code_gains_what_theory_says() -> None:
    """Arithmetic over geometric mean of the variances, at a rate that reaches all; of an even error none is left."""
    even, loud = np.eye(SIZE), np.diag(np.repeat([1.0, 16.0], SIZE // 2))
    assert keys_arithmetic.ideal_db(even, even, even) == pytest.approx(0, abs=1e-6)
    gain = 10 * np.log10(8.5 / 4)
    assert keys_arithmetic.ideal_db(loud, even, even) == pytest.approx(gain)
    assert keys_arithmetic.ideal_db(even, loud, loud) == pytest.approx(gain)
    # what is loud to one text's queries is quiet to the other's
    assert keys_arithmetic.ideal_db(even, loud, loud[::-1, ::-1]) < -gain


@pytest.mark.parametrize("halves", [False, True])
def test_pairs_are_scaled_by_how_loud_keys_and_queries_are(halves: bool) -> None:
    """Arithmetic over geometric mean here too, since what is felt is the square of the mean of M C's root."""
    quiet = [(2 * pair, 2 * pair + 1) if not halves else (pair, pair + SIZE // 2) for pair in range(SIZE // 4)]
    variances = np.full(SIZE, 16.0)
    variances[np.ravel(quiet)] = 1
    found = keys_arithmetic.scales(np.diag(variances), np.eye(SIZE), halves)
    np.testing.assert_allclose(found, variances**-0.25)
    gain = keys_arithmetic.scaled_db(np.diag(variances), np.eye(SIZE), found)
    assert gain == pytest.approx(10 * np.log10(8.5 / 6.25))
    assert keys_arithmetic.scaled_db(np.eye(SIZE), np.eye(SIZE), np.ones(SIZE)) == pytest.approx(0)


def test_errors_in_proportion_to_keys_do_not_depend_on_a_constant() -> None:
    """An encoder that makes keys 2% larger errs by 0.02 q·k, whose constant part no softmax feels."""
    one, other = layer(drawn(1, mean=1.0), window=WINDOW), layer(drawn(2, mean=1.0), seed=1)
    heads = list(keys_arithmetic.examine(one, other, lambda values: values * np.float32(1.02), [BASE]))
    assert [(head.layer, head.head, head.window) for head in heads] == [(3, 0, True), (3, 1, True)]
    at = np.arange(TOKENS)
    for head in heads:
        wanted = []
        for query in range(len(one.q)):
            exact = queries.weights(one, query, one.k, at)[2 * head.head : 2 * head.head + 2].astype(np.float64)
            rough = queries.weights(one, query, one.k * np.float32(1.02), at)[2 * head.head : 2 * head.head + 2]
            wanted.append(np.sum(exact * np.log(exact / rough), axis=1).mean())
        for name in ERRORS:
            assert head.felt[name] == pytest.approx(np.mean(wanted), rel=1e-3)
        assert head.snr == pytest.approx((-20 * np.log10(0.02),) * 2 + (head.snr[2],), abs=1e-3)
        assert head.snr[2] - head.snr[0] == pytest.approx(-10 * np.log10(1 - head.other), abs=1e-3)
        assert 0.3 < head.other < head.after < 0.7


def test_cells_that_are_spared_are_not_felt() -> None:
    k = drawn(3)

    def spoiled(*rows: int) -> Floats:
        found = np.zeros_like(k)
        found[list(rows)] = 0.5 * k[list(rows)]
        return found

    felt, _, sink = keys_arithmetic.feel(layer(k), {"a": spoiled(0), "b": spoiled(0, 2), "c": spoiled(TOKENS - 8)})
    for name, spared, left in (
        ("a", "first", False), ("a", "newest 32", True), ("b", "first", True), ("b", "first 4", False),
        ("c", "first 4", True), ("c", "newest 32", False),
    ):  # fmt: skip
        assert all(felt[name] > 0)
        assert all((felt[f"{name}, {spared} exact"] > 1e-12) == left), (name, spared)
    assert all((sink > 0) & (sink < 1))
    away = keys_arithmetic.feel(layer(k, window=WINDOW), {"a": spoiled(0)})
    assert all(away[0]["a"] < felt["a"])  # later queries do not see the first token
    with pytest.raises(AssertionError, match="soft cap"):
        keys_arithmetic.feel(dataclasses.replace(layer(k), cap=5.0), {"a": k})


def test_the_table_has_sums_over_layers_and_their_ratios() -> None:
    found = list(keys_arithmetic.examine(layer(drawn(1)), layer(drawn(2)), lambda values: values, [BASE]))
    known = [dataclasses.replace(one, layer=at, felt=dict.fromkeys(one.felt, at)) for at in (1, 2, 3) for one in found]
    text = keys.table("model", known)
    assert "| as it is | 6.0000 | 1.000 |" in text
    assert "| constant off, layers 2, 3 exact | 1.0000 | 0.167 |" in text


@pytest.mark.parametrize("normed", [False, True])
def test_scaled_weights_give_the_same_scores(normed: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kv = 1 if normed else KV
    by = np.exp(rng.standard_normal((kv, SIZE)))
    weights = {
        "attn_q.weight": rng.standard_normal((HEADS * SIZE, 32)),
        "attn_k.weight": rng.standard_normal((kv * SIZE, 32)),
    }
    if normed:
        weights |= {"attn_q_norm.weight": rng.standard_normal(SIZE), "attn_k_norm.weight": rng.standard_normal(SIZE)}
    writer = gguf.GGUFWriter(tmp_path / "source.gguf", "llama")
    for name, data in weights.items():
        writer.add_tensor(f"blk.3.{name}", data.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    scaled.write(tmp_path / "source.gguf", tmp_path / "scaled.gguf", {3: by})

    def heads(path: Path, part: str) -> Doubles:
        found = {one.name: np.asarray(one.data) for one in gguf.GGUFReader(path).tensors}
        rows = found[f"blk.3.attn_{part}.weight"].reshape(-1, SIZE, 32).astype(np.float64)
        return np.asarray(rows * found[f"blk.3.attn_{part}_norm.weight"][:, None] if normed else rows)

    (q, k), (other_q, other_k) = (
        [heads(tmp_path / f"{name}.gguf", part) for part in "qk"] for name in ("source", "scaled")
    )
    np.testing.assert_allclose(other_k, k * by[:, :, None], rtol=1e-5)
    for head in range(HEADS):
        own = head // (HEADS // kv)
        np.testing.assert_allclose(other_q[head].T @ other_k[own], q[head].T @ k[own], rtol=1e-4, atol=1e-4)
