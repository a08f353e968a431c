"""How well a cache serves the attention of a model: each layer's weights, and what was stored."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ...build.quantizers import Floats
from ...core.errors import StateInvalid
from ...core.records import record
from ...serving.slot import SavedLayer, SavedSlot
from .codec import Codec
from .queries import AttentionLayer, weights


@record
class LayerFidelity:
    """One layer of a candidate's cache. Errors and energies are sums of squares, relative to the exact ones."""

    layer: int
    type_k: str
    type_v: str
    queries: int
    heads: tuple[float, ...]
    """cosine of the attention weights over the stored keys with those over the keys before they were quantized, by
    head, mean over queries"""
    deviation: float
    """standard error of the mean over heads and queries"""
    through: float
    """the same cosine with the weights of the baseline's run, whose queries and keys come through all layers before"""
    k_error: float
    k_reference: float | None
    """error that the reference quantizer makes of the same numbers; None without one"""
    v_error: float | None
    v_reference: float | None
    k_energy: float
    """of the stored keys, relative to those of the baseline's run"""
    v_energy: float | None
    empty: bool
    """whether all keys, or all values, are zero before they are stored"""
    kernel: float | None
    """error of what attention gave, against softmax and sum over the stored cells"""

    @property
    def cosine(self) -> float:
        """Mean over heads and queries."""
        return sum(self.heads) / len(self.heads)


def compare(
    exact: AttentionLayer, stored: SavedLayer, baseline: AttentionLayer, references: Mapping[str, Codec]
) -> LayerFidelity:
    """A layer of the candidate's run, as the server stored it, and in the baseline's run.

    Raises `StateInvalid` when the saved cells lack tokens that no query sees.
    """
    at = stored.positions.astype(np.int64)
    exact_k, exact_v = exact.k[at], None if exact.v is None else exact.v[at]
    k = _shaped(stored.k, exact_k)
    v = None if exact_v is None or stored.v is None else _shaped(stored.v, exact_v)
    base_at = np.arange(len(baseline.k))
    cosines, through, kernel = [], [], []
    for query in _complete(exact, at):
        mine, rough = weights(exact, query, exact_k, at), weights(exact, query, k, at)
        cosines.append(_cosine(mine, rough))
        order = np.argsort(at[_seen(exact, query, at)])
        through.append(_cosine(weights(baseline, query, baseline.k, base_at), rough[:, order]).mean())
        if v is not None and not exact.sinks:
            kernel.append(_error(_mixed(rough, v[_seen(exact, query, at)]), exact.out[query]))
    if not cosines:
        raise StateInvalid(f"layer {exact.layer}: the saved slot has none of the cells that a query sees")
    found = np.array(cosines)
    return LayerFidelity(
        layer=exact.layer,
        type_k=exact.type_k,
        type_v=exact.type_v,
        queries=len(found),
        heads=tuple(float(one) for one in found.mean(axis=0)),
        deviation=float(found.mean(axis=1).std(ddof=1) / math.sqrt(len(found))) if len(found) > 1 else 0.0,
        through=float(np.mean(through)),
        k_error=_error(k, exact_k),
        k_reference=_reference(exact.type_k, exact_k, references),
        v_error=None if v is None or exact_v is None else _error(v, exact_v),
        v_reference=None if v is None or exact_v is None else _reference(exact.type_v, exact_v, references),
        k_energy=_energy(k, baseline.k[at]),
        v_energy=None if v is None or baseline.v is None else _energy(v, baseline.v[at]),
        empty=not exact_k.any() or (exact_v is not None and not exact_v.any()),
        kernel=float(np.mean(kernel)) if kernel else None,
    )


def paired(layers: Sequence[AttentionLayer], saved: SavedSlot) -> list[tuple[AttentionLayer, SavedLayer]]:
    """Which saved layer is which.

    A model with windows has two caches, and the file does not say which layers are in which: of both orders the one
    that fits the keys. Raises `StateInvalid` when the file has other layers.
    """
    groups: dict[int, list[AttentionLayer]] = {}
    for layer in layers:
        groups.setdefault(layer.mask, []).append(layer)
    orders = [[one for group in order for one in group] for order in itertools.permutations(groups.values())]
    fitting = [order for order in orders if len(order) == len(saved.layers)]
    if not fitting or any(not _fits(a, b) for a, b in zip(fitting[0], saved.layers, strict=True)):
        raise StateInvalid(
            f"the saved slot has {len(saved.layers)} layers of other sizes than the model's {len(layers)}"
        )

    def misfit(order: Sequence[AttentionLayer]) -> float:
        return sum(
            _error(_shaped(b.k, a.k[b.positions]), a.k[b.positions]) for a, b in zip(order, saved.layers, strict=True)
        )

    best = min(fitting, key=lambda order: misfit(order))
    return list(zip(best, saved.layers, strict=True))


def _fits(layer: AttentionLayer, saved: SavedLayer) -> bool:
    return saved.k.shape[1] == layer.k[0].size and int(saved.positions.max()) < len(layer.k)


def _complete(layer: AttentionLayer, at: npt.NDArray[np.int64]) -> list[int]:
    """The queries all of whose cells are still there: a window's cache forgets those that no later token sees."""
    wanted = [(query, int(layer.visible[query])) for query in range(len(layer.positions))]
    return [query for query, count in wanted if int(_seen(layer, query, at).sum()) == count]


def _seen(layer: AttentionLayer, query: int, at: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    position = layer.positions[query]
    return np.asarray((at <= position) & (at > position - layer.visible[query]))


def _shaped(rows: Floats, like: Floats) -> Floats:
    return rows.reshape(like.shape)


def _mixed(found: Floats, v: Floats) -> Floats:
    """Attention's result (heads, size) from weights (heads, cells) and values (cells, KV heads, size)."""
    grouped = found.reshape(v.shape[1], -1, found.shape[1])
    return np.asarray(np.einsum("ghc,cgd->ghd", grouped, v, optimize=True).reshape(len(found), -1))


def _reference(name: str, values: Floats, references: Mapping[str, Codec]) -> float | None:
    if name == "f16":
        return _error(values.astype(np.float16).astype(np.float32), values)
    return _error(references[name].restore(values), values) if name in references else None


def _error(found: Floats, exact: Floats) -> float:
    """Squared error over energy; of zeros: 0 where they are kept, else 1."""
    lost = float(np.sum(np.square(found.astype(np.float64) - exact)))
    return _over(lost, float(np.sum(np.square(exact.astype(np.float64)))))


def _energy(found: Floats, exact: Floats) -> float:
    energies = [float(np.sum(np.square(one.astype(np.float64)))) for one in (found, exact)]
    return 1.0 if energies == [0.0, 0.0] else _over(*energies)


def _over(part: float, whole: float) -> float:
    return part / whole if whole else float(part > 0)


def _cosine(a: Floats, b: Floats) -> Floats:
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray(np.sum(a * b, axis=-1) / np.maximum(norms, 1e-30))
