"""Cache types: measured, compared on a model, and whether the model works with them."""

from __future__ import annotations

from ..models.quality.benchmark import Benchmark
from ..models.quality.benchmark_page import panels
from ..models.quality.divergence import Divergences
from ..models.quality.measure import Estimate
from ..proofs import Compatibility
from .dispatch import as_text

_HEADER = f"{'bits':>6} {'SNR dB':>8} {'gap dB':>7} {'cosine':>8} {'ip bias':>9} {'ip var':>9}"


@as_text.register
def _benchmark(lab: Benchmark) -> str:
    """The figures as a table; of a dump the sums over layers."""
    lines = []
    for panel in panels(lab):
        lines.append(f"{panel.data:<24} {_HEADER}  attention over the longest context")
        scores = {(row.type, row.rotated, row.seed): row for row in panel.attention}
        for row in panel.rows:
            score = scores.get((row.type, row.rotated, row.seed))
            last = f"{score.weights:.5f} ({score.context} tokens)" if score else ""
            how = f"{'rotated' if row.rotated else 'plain'}, seed {row.seed}"
            lines.append(
                f"  {row.type:<8} {how:<14}{row.bits_per_value:>6.3f} {row.snr_db:>8.2f} {row.gap_db:>7.2f} "
                f"{row.cosine:>8.5f} {row.ip_bias:>9.5f} {row.ip_variance:>9.5f}  {last}".rstrip()
            )
    return "\n".join(lines)


@as_text.register
def _divergences(found: Divergences) -> str:
    """The table for docs and terminals."""

    def cell(one: Estimate, digits: int) -> str:
        return f"{one.mean:.{digits}f} ± {one.error:.{digits}f}"

    lines = [
        f"{found.model}, {found.text_bytes} bytes of text ({found.text_sha256[:12]}), context {found.context}, "
        f"{found.chunks} chunks:",
        "",
        "| K and V | bits per value | perplexity | delta to f16 | mean KL to f16 (nats) | same top token (%) |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.cache} | {row.bits_per_value:g} | {cell(row.ppl, 3)} | {cell(row.delta, 3)} | {cell(row.kl, 5)} "
        f"| {cell(row.same_top, 2)} |"
        for row in found.rows
    ]
    return "\n".join(lines) + "\n"


@as_text.register
def guarded(found: Compatibility) -> str:
    """The answer, the trials, and the layers that lose most."""
    how = "measured" if found.measured else "from the weights only"
    lines = [f"{found.model}: {found.asked}: {found.answer} ({how})"]
    if found.proposal:
        lines.append(f"  propose {found.proposal}")
    if found.risk:
        lines.append(f"  {found.risk}")
    for one in found.trials:
        kl = f"KL {one.kl:.4f} ± {one.kl_error:.4f}" if one.kl is not None else "not run"
        snr = f"{one.predicted_db:.1f} dB" if one.predicted_db is not None else "?"
        lines.append(f"  {one.cache:<32} {one.answer:<10} {kl:<22} scores at {snr} {one.reason}".rstrip())
    lines.append("  attention layer: dB lost by the scores, from the weights / on the text's keys")
    for layer in sorted(found.layers, key=lambda one: one.worst_db, reverse=True)[:8]:
        lines.append(f"    {layer.layer:<4} {_shown(layer.weights_db)} / {_shown(layer.keys_db)}")
    return "\n".join(lines)


def _shown(decibels: float | None) -> str:
    return "-" if decibels is None else f"{decibels:.1f}"
