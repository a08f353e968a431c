"""Keys with random queries: what is left of the attention test where a release cannot tell the model's own queries.

The layers before a layer count as well: its keys come from two runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...core.cachetypes import grammar
from ...core.cachetypes.table import type_table
from ...core.errors import ConfigError
from ...core.records import record
from ...models.quality.dump import Heads, read_heads
from ...models.quality.measure import attention
from ...models.quality.samples import rotate, rotation_size
from ...serving import slot
from ...verify import evidence
from ..result import Figure, Table, TestResult
from ..trial import Trial
from . import saved_cache


@record
class KeysAlone:
    """Cosine of attention weights with random queries, by layer in the cache's order."""

    weights: tuple[float, ...]


def measure(trial: Trial, test: str, why: str) -> TestResult:
    """A result that says why the test was not asked, with the figures of keys alone where types are uniform."""
    setting = grammar.parse(trial.plan.candidate)
    result = TestResult(test=test, verdict="not asked", summary=why)
    if setting.reach or grammar.parse(trial.plan.baseline).names() != ("f16",):
        return result
    try:
        heads = read_heads(trial.plan.model)
        rotation = rotation_size(heads.key_size)
    except ConfigError:
        return result
    rotated = type_table(trial.added)[setting.k.base].quantized or type_table(trial.added)[setting.v.base].quantized
    read = saved_cache.tokens(trial)
    exact = saved_cache.stored(trial, "baseline", read)
    rough = saved_cache.stored(trial, "candidate", read)
    found = trial.kept(
        "attention/keys-alone",
        KeysAlone,
        lambda: _compare(trial, exact, rough, heads, rotation if rotated else 1),
    ).weights
    note = f"keys alone, with random queries, behind all layers before: worst layer {min(found):.4f}"
    return TestResult(
        test=test,
        verdict="not asked",
        summary=f"{why}; {note}",
        figures=(Figure(name="attention weights, random queries, worst layer", candidate=min(found), unit="cosine"),),
        tables=(
            Table(
                title="Keys with random queries, layers in the cache's order",
                header=("layer", "cosine"),
                rows=tuple((str(number), f"{one:.4f}") for number, one in enumerate(found)),
            ),
        ),
    )


def _compare(trial: Trial, exact: Path, rough: Path, heads: Heads, rotation: int) -> KeysAlone:
    directory = trial.plan.release_dir
    assert directory is not None
    setting = grammar.parse(trial.plan.candidate)
    names: dict[int, str] = {}

    def decode(kind: int, blocks: bytes) -> slot.Floats:
        # the file has numbers for types: that of K comes first
        name = names.setdefault(kind, setting.v.base if names or setting.k.base in ("f16", "f32") else setting.k.base)
        return evidence.decode(directory, name, blocks)

    pairs = zip(
        slot.load(exact, has_v=heads.has_v).layers,
        slot.load(rough, has_v=heads.has_v, decode=decode).layers,
        strict=True,
    )
    rng = np.random.default_rng(trial.plan.seed)
    weights = []
    for plain, stored in pairs:
        keys = plain.k.reshape(len(plain.k), -1, heads.key_size)
        restored = stored.k.reshape(keys.shape)
        restored = rotate(restored, rotation) if rotation > 1 else restored
        weights.append(attention(keys, restored, rng)[-1].weights)
    return KeysAlone(weights=tuple(weights))
