"""Does a model work with a cache type, and if not, which parts should stay at q8_0?

First the weights are read (`channels`), which is fast. With a llama-server the model then reads a text: its keys show
what the weights do not (`keys`), and its predictions with the requested type, compared with f16, decide (`trial`).
 The thresholds and how often the predictions hold are in docs/results/compatibility.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...core.cachetypes.grammar import CacheTypes, LayerRule, LayerTypes, parse
from ...core.cachetypes.table import averages, bits_per_value, nominal, own, standard, type_table
from ...core.config import Config
from ...core.console import Console
from ...core.errors import CacheCollapse, ConfigError, ModelLoadFailed
from ...core.records import sha256_bytes
from ...proofs import Answer, Compatibility, LayerLoss, Trial
from ...serving.llama_server import LlamaServer
from ...stages import CacheType
from ..memory import geometry, gguf, sensitivity
from ..memory.dialect import BUILT_IN, Dialect
from ..memory.kv import obstacle
from ..memory.sensitivity import GENTLE
from ..quality.dump import read_heads, saved
from ..quality.measure import Estimate
from ..quality.samples import Sample
from . import channels, keys, trial

FINE_DB, COLLAPSE_DB = 10.0, 5.0
"""predicted SNR of the scores: fine from the first on, collapses below the second"""
WORST_DB = 5.0
"""a single layer with useless scores can ruin a model"""
FINE_KL, COLLAPSE_KL = math.log(1.05), 0.2
"""measured divergence from f16, nats per token: fine up to the first, collapses above the second. log 1.05 is the cost
of a perplexity that is 5% higher, where `toolchain.validation` stops, too"""
KEPT = GENTLE
TOKENS = 1024
"""tokens of the text, for keys and predictions"""


def examine(
    model: Path,
    asked: str,
    *,
    added: Iterable[CacheType],
    server: Path | None,
    text: str,
    config: Config,
    console: Console,
    tokens: int = TOKENS,
    dialect: Dialect = BUILT_IN,
) -> Compatibility:
    """Judge the type `asked` on `model`; without a `server`, only from the weights.

    Raises `ConfigError` for a type that is neither upstream's nor `added` by the series, or rules beyond the model's
    layers, `ModelInvalid`, `ArchitectureUnknown`, and with a server the errors of `trial.predictions` and
    `toolchain.models.quality.dump.saved`.
    """
    types = parse(asked)
    # manifests of older releases do not state it
    stated = nominal(own())
    added = [replace(kind, db=stated.get(kind.name)) if kind.db is None else kind for kind in added]
    table = type_table(added)
    for name in types.names():
        if name not in table:
            raise ConfigError(f"unknown cache type {name!r} in {asked!r}", hint=", ".join(table))
    with console.step(f"weights of {model.name}"):
        found = channels.read(model, dialect)
        risk = _risk(model, types, added, dialect)
    types.k.each(len(found))
    layers = [LayerLoss(layer=number, weights_db=_decibels(one.loss())) for number, one in enumerate(found)]
    if server is None:
        first = _predicted(types, layers, table)
        gentler = _alternatives(types, layers, table, added) if first.answer in ("costly", "collapses") else []
        proposal = next((one for one in gentler if _predicted(parse(one), layers, table).answer == "fine"), "")
        return replace(_result(model, types, layers, [first], proposal), risk=risk)
    heads, dumped = read_heads(model), list[Sample]()

    def run(cache: str, then: Callable[[LlamaServer], None] = lambda _: None) -> tuple[trial.Prediction, ...]:
        with console.step(f"predictions with {cache}"):
            return trial.predictions(
                server, model, text, cache=cache, context=heads.context, config=config, tokens=tokens, then=then
            )

    def keep(running: LlamaServer) -> None:
        if heads.key_size % 64 == 0:
            dumped.extend(saved(running, heads))

    exact = run("f16", keep)
    layers = [
        LayerLoss(layer=one.layer, weights_db=one.weights_db, keys_db=_decibels(seen))
        for one, seen in zip(layers, keys.losses(dumped, found), strict=True)
    ]
    trials = [_measured(types, layers, table, trial.divergence(exact, run(str(types))))]
    proposal = ""
    if trials[0].answer != "fine":
        for candidate in _alternatives(types, layers, table, added):
            try:
                trials.append(_measured(parse(candidate), layers, table, trial.divergence(exact, run(candidate))))
            except ModelLoadFailed as error:
                trials.append(_not_run(parse(candidate), layers, table, error.message.splitlines()[0]))
            if trials[-1].answer == "fine":
                proposal = candidate
                break
    digest = sha256_bytes(text.encode())
    return replace(_result(model, types, layers, trials, proposal), risk=risk, text_sha256=digest)


def _risk(model: Path, types: CacheTypes, added: Sequence[CacheType], dialect: Dialect) -> str:
    shape = geometry.read(gguf.load(str(model), dialect))
    table = type_table(added)
    if not shape.cached or obstacle(shape, types, table):
        return ""
    why = sensitivity.known_loss(shape, types, table, model.name)
    return f"{why}; better: {sensitivity.gentler(shape, added)}" if why else ""


def refusal(found: Compatibility, config: Config) -> CacheCollapse | None:
    """The error for a type that collapses; None for others, or if verify.collapse is accept."""
    if found.answer != "collapses" or config.verify.collapse != "refuse":
        return None
    better = f"--kv-cache-type {found.proposal}, or " if found.proposal else ""
    return CacheCollapse(_consequence(found), hint=f"{better}--set verify.collapse=accept")


def warn(found: Compatibility, console: Console) -> None:
    """Warn of a type that costs quality."""
    if found.answer in ("costly", "collapses"):
        why = _consequence(found)
        console.warn(f"{why}; {found.proposal} does better" if found.proposal else why)


def _consequence(found: Compatibility) -> str:
    return f"{found.model}: {found.asked} {_CONSEQUENCES[found.answer]}"


_CONSEQUENCES = {
    "costly": "costs the model noticeable quality",
    "collapses": "makes its answers collapse: the keys' channels are too extreme for the type",
}


def _result(
    model: Path, types: CacheTypes, layers: Sequence[LayerLoss], trials: Sequence[Trial], proposal: str
) -> Compatibility:
    return Compatibility(
        model=model.name,
        asked=str(types),
        answer=trials[0].answer,
        measured=trials[0].kl is not None,
        proposal=proposal,
        layers=tuple(layers),
        trials=tuple(trials),
    )


def _decibels(ratio: float | None) -> float | None:
    if ratio is None:
        return None
    return round(10 * math.log10(ratio), 2) if math.isfinite(ratio) and ratio > 0 else 99.0


def predict(types: LayerTypes, layers: Sequence[LayerLoss], table: Mapping[str, CacheType]) -> float | None:
    """SNR of the scores in dB: from the mean noise over layers, but at most `WORST_DB` above the worst layer.

    None if the layers or the types are unknown.
    """
    left = [
        db - one.worst_db
        for one, name in zip(layers, types.each(len(layers)), strict=True)
        if (db := table[name].db) is not None and (one.weights_db is not None or one.keys_db is not None)
    ]
    if not left:
        return None
    noise = math.fsum(10 ** (-one / 10) for one in left) / len(left)
    return min(-10 * math.log10(noise), min(left) + WORST_DB)


def _predicted(types: CacheTypes, layers: Sequence[LayerLoss], table: Mapping[str, CacheType]) -> Trial:
    value = predict(types.k, layers, table)
    answer: Answer = "unknown"
    if value is not None:
        answer = "fine" if value >= FINE_DB else "costly" if value >= COLLAPSE_DB else "collapses"
    return Trial(cache=str(types), predicted_db=value, answer=answer)


def _not_run(types: CacheTypes, layers: Sequence[LayerLoss], table: Mapping[str, CacheType], reason: str) -> Trial:
    return Trial(cache=str(types), predicted_db=predict(types.k, layers, table), answer="unknown", reason=reason)


def _measured(types: CacheTypes, layers: Sequence[LayerLoss], table: Mapping[str, CacheType], kl: Estimate) -> Trial:
    answer: Answer = "fine" if kl.mean <= FINE_KL else "costly" if kl.mean <= COLLAPSE_KL else "collapses"
    value = predict(types.k, layers, table)
    return Trial(cache=str(types), predicted_db=value, kl=kl.mean, kl_error=kl.error, answer=answer)


def _alternatives(
    types: CacheTypes, layers: Sequence[LayerLoss], table: Mapping[str, CacheType], added: Sequence[CacheType]
) -> list[str]:
    """Alternatives, the cheapest first: K of the worst layers, or of all, at q8_0, and finer types."""
    settings = [KEPT, f"{KEPT}:{standard(added)}", *(kind.name for kind in added), *_averages(table)]
    found = [CacheTypes(k=LayerTypes(base=KEPT), v=types.v), *map(parse, settings)]
    if kept := _worst_kept(types.k, layers, table):
        found.append(CacheTypes(k=kept, v=types.v))

    def precision(side: LayerTypes) -> float:
        return predict(side, layers, table) or 0.0

    def bits(one: CacheTypes) -> float:
        return sum(bits_per_value(table[name]) for side in (one.k, one.v) for name in side.each(len(layers)))

    usable = [
        one
        for one in found
        if bits(one) > bits(types)
        and precision(one.k) >= min(FINE_DB, precision(types.k))
        and precision(one.k) + precision(one.v) > precision(types.k) + precision(types.v)
    ]
    return list(dict.fromkeys(str(one) for one in sorted(usable, key=bits)))


def cheapest(added: Sequence[CacheType]) -> str:
    """The coarsest setting worth a trial: `examine` it, and its `proposal` is the cheapest one that is fine."""
    return next(iter(_averages(type_table(added))), standard(added))


def fine(found: Compatibility) -> str:
    """The first setting that was found fine: the one asked about, or the proposal; empty: none."""
    return found.asked if found.answer == "fine" else found.proposal


def _averages(table: Mapping[str, CacheType]) -> list[str]:
    return [setting for setting in averages().values() if set(parse(setting).names()) <= set(table)]


def _worst_kept(types: LayerTypes, layers: Sequence[LayerLoss], table: Mapping[str, CacheType]) -> LayerTypes | None:
    """The fewest layers at q8_0, at most half of them, that make the scores fine; None if that is impossible."""
    if (predict(types, layers, table) or FINE_DB) >= FINE_DB:
        return None
    db = [table[name].db or 0 for name in types.each(len(layers))]
    worst = sorted(layers, key=lambda one: one.worst_db - db[one.layer], reverse=True)
    coarse = [one.layer for one in worst if db[one.layer] < (table[KEPT].db or 0)]
    for count in range(1, len(layers) // 2 + 1):
        kept = LayerTypes(base=types.base, rules=(*types.rules, *_rules(sorted(coarse[:count]))))
        if (predict(kept, layers, table) or 0) >= FINE_DB:
            return kept
    return None


def _rules(layers: Sequence[int]) -> Iterable[LayerRule]:
    """Rules for these layers, one for each run of neighbours."""
    start = 0
    for end in range(1, len(layers) + 1):
        if end == len(layers) or layers[end] != layers[end - 1] + 1:
            yield LayerRule(where="layers", low=layers[start], high=layers[end - 1], type=KEPT)
            start = end
