"""The verdict on a cache's attention: a build that is broken, keys that are too much for the type, or neither.

A type is asked for as much as 0.995 asks of turbo4. What a cosine loses grows with the energy of the error, so a
coarser type gets 1 - 0.005 * 10^((23.7 - dB) / 10), by its nominal dB; a finer one gets no more than 0.995.
Measured so on the keys of SmolLM2-135M (mean loss relative to turbo4's, beside the formula): q4_0 1.6 (1.7), iq4_nl 1.2
(1.4), turbo3 4.0 (4.2), turbo2 14 (17).

Where a layer stays below, its stored bytes tell why. They are the reference quantizer's: the model's keys are too much
for the type, and another one is to be tried. They are worse: the build is broken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...core.cachetypes.table import type_table
from ...models.quality.fidelity import LayerFidelity
from ...stages import CacheType
from ..result import Figure, Line, Plot, Table, TestResult, Verdict

NAME = "attention"
LEAST_COSINE = 0.995
STANDARD_DB = 23.7
"""of turbo4"""
WORSE_THAN_REFERENCE = 1.05
"""times the reference's error, in the first layer. A sound build has 1.0000 on a CPU, and up to 1.01 where a GPU
chooses its own radius; one wrong level of turbo4's 32 makes 1.08 to 1.12"""
FURTHER = 2.0
"""the same behind the first layer, where llama-server's run and turbo-dump's drift apart: they cut the text into other
batches, so sums are rounded otherwise, and now and then a value gets another code"""
WORSE_THAN_PROMISED = 2.0
"""times the type's nominal error, where there is no reference; a sound build has 0.94 to 1.03 on the models tried"""
ROUNDING = 1e-5
"""error, relative to the energy, by which both runs may differ in the first layer"""
DRIFT = 1e-3
"""the same behind it; 0 to 5e-5 was measured"""
KERNEL_ERROR = 0.01
"""of attention's result; queries that are rounded to 8 bits make 0.0001"""
ENERGY = 2.0
"""times the baseline's energy, or its inverse"""


def limit(name: str, added: Sequence[CacheType]) -> float:
    """What the cosine of a layer with keys of this type must reach."""
    db = type_table(added)[name].db
    coarser = max(STANDARD_DB - db, 0.0) if db is not None else 0.0
    return float(1 - (1 - LEAST_COSINE) * 10 ** (coarser / 10))


def judge(
    layers: Sequence[LayerFidelity], added: Sequence[CacheType], *, tokens: int, unreferenced: str = ""
) -> TestResult:
    """The verdict on all layers; `added` are the series' types."""
    faults = [fault for one in layers for fault in broken(one, added, first=one is layers[0])]
    limits = [limit(one.type_k, added) for one in layers]
    short = [one for one, least in zip(layers, limits, strict=True) if one.cosine + 2 * one.deviation < least]
    worst = min(layers, key=lambda one: one.cosine)
    head = min(range(len(worst.heads)), key=lambda index: worst.heads[index])
    summary = (
        f"cosine {worst.cosine:.4f} in layer {worst.layer}, the worst ({worst.heads[head]:.4f} in its head {head})"
    )
    verdict: Verdict = "passed"
    if faults:
        verdict = "broken"
        summary = faults[0] + (f"; {len(faults) - 1} further faults" if len(faults) > 1 else "")
    elif short:
        verdict = "failed"
        summary += f"; {len(short)} of {len(layers)} layers miss their limit, although {_sound(layers)}"
    notes = [*faults, f"{layers[0].queries} queries over {tokens} tokens, in each head"]
    if unreferenced:
        notes.append(f"stored numbers were compared with the types' nominal errors alone: {unreferenced}")
    return TestResult(
        test=NAME,
        verdict=verdict,
        summary=summary,
        figures=tuple(_figures(layers, limits, short)),
        notes=tuple(notes),
        plots=(_plot(layers, limits),),
        tables=(_table(layers, limits),),
    )


def broken(layer: LayerFidelity, added: Sequence[CacheType], *, first: bool) -> Iterator[str]:
    """What a sound build cannot show, each in words; `first`: no other layer comes before."""
    sides = (
        ("K", layer.type_k, layer.k_error, layer.k_reference, layer.k_energy),
        ("V", layer.type_v, layer.v_error, layer.v_reference, layer.v_energy),
    )
    if layer.empty:
        yield f"layer {layer.layer} stores nothing but zeros"
    for side, name, error, reference, energy in sides:
        where = f"{side} of layer {layer.layer} ({name})"
        if error is not None and error > (least := _allowed(name, reference, added, first=first)):
            yield f"{where}: error {error:.3g} of the stored numbers, {least:.3g} allowed"
        if energy is not None and not 1 / ENERGY <= energy <= ENERGY:
            yield f"{where}: {energy:.3g} times the baseline's energy"
    if layer.kernel is not None and layer.kernel > KERNEL_ERROR:
        yield f"layer {layer.layer}: error {layer.kernel:.3g} of what attention makes of the stored numbers"


def _allowed(name: str, reference: float | None, added: Sequence[CacheType], *, first: bool) -> float:
    """Largest error of stored numbers, relative to their energy."""
    if reference is not None:
        return WORSE_THAN_REFERENCE * reference + ROUNDING if first else FURTHER * reference + DRIFT
    db = type_table(added)[name].db
    return float(WORSE_THAN_PROMISED * 10 ** (-db / 10)) + DRIFT if db is not None else 1.0


def _sound(layers: Sequence[LayerFidelity]) -> str:
    known = any(one.k_reference is not None for one in layers)
    return (
        "the server stored what the reference gives" if known else "the stored keys are as exact as the type promises"
    )


def _figures(
    layers: Sequence[LayerFidelity], limits: Sequence[float], short: Sequence[LayerFidelity]
) -> Iterator[Figure]:
    worst = min(layers, key=lambda one: one.cosine)
    least = limits[layers.index(worst)]
    mean = sum(one.cosine for one in layers) / len(layers)
    yield Figure(
        name="attention weights, worst layer",
        baseline=1.0,
        candidate=worst.cosine,
        unit="cosine",
        error=worst.deviation,
        limit=f">= {least:.4f} for {worst.type_k}, in each layer",
        ok=not short,
    )
    yield Figure(name="attention weights, mean of the layers", baseline=1.0, candidate=mean, unit="cosine")
    through = min(one.through for one in layers)
    yield Figure(
        name="attention weights behind all layers before, worst layer", baseline=1.0, candidate=through, unit="cosine"
    )
    for side, error, reference in (
        ("K", layers[0].k_error, layers[0].k_reference),
        ("V", layers[0].v_error, layers[0].v_reference),
    ):
        if error is not None and reference:
            yield Figure(
                name=f"error of stored {side} in the first layer, over the reference quantizer's",
                candidate=error / reference,
                limit=f"<= {WORSE_THAN_REFERENCE}",
                ok=error <= WORSE_THAN_REFERENCE * reference + ROUNDING,
            )
    if kernels := [one.kernel for one in layers if one.kernel is not None]:
        yield Figure(
            name="error of attention's result, worst layer",
            candidate=max(kernels),
            unit="of its energy",
            limit=f"<= {KERNEL_ERROR}",
            ok=max(kernels) <= KERNEL_ERROR,
        )


def _plot(layers: Sequence[LayerFidelity], limits: Sequence[float]) -> Plot:
    x = tuple(float(one.layer) for one in layers)
    lines = (
        Line(name="the type alone", x=x, y=tuple(one.cosine for one in layers)),
        Line(name="worst head", x=x, y=tuple(min(one.heads) for one in layers)),
        Line(name="behind all layers before", x=x, y=tuple(one.through for one in layers)),
    )
    same = limits[0] if len(set(limits)) == 1 else None
    return Plot(title="Attention weights against f16", x="layer", y="cosine", lines=lines, limit=same)


def _table(layers: Sequence[LayerFidelity], limits: Sequence[float]) -> Table:
    def row(one: LayerFidelity, least: float) -> tuple[str, ...]:
        head = min(range(len(one.heads)), key=lambda index: one.heads[index])
        return (
            str(one.layer),
            one.type_k if one.type_v in ("", one.type_k) else f"{one.type_k}:{one.type_v}",
            f"{one.cosine:.4f} ± {one.deviation:.4f}",
            f"{least:.4f}",
            f"{one.heads[head]:.4f} ({head})",
            f"{one.through:.4f}",
            _pair(one.k_error, one.k_reference),
            _pair(one.v_error, one.v_reference),
            "" if one.kernel is None else f"{one.kernel:.1e}",
        )

    header = ("layer", "type", "cosine", "limit", "worst head", "behind the layers before")
    return Table(
        title="Attention by layer",
        header=(*header, "error of K / reference", "error of V / reference", "error of the result"),
        rows=tuple(row(one, least) for one, least in zip(layers, limits, strict=True)),
    )


def _pair(error: float | None, reference: float | None) -> str:
    if error is None:
        return ""
    return f"{error:.2e}" if reference is None else f"{error:.2e} / {reference:.2e}"
