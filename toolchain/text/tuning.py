"""A tuning as text."""

from __future__ import annotations

from ..models.quality.measure import Estimate
from ..validation.tuning.result import Row, Tuning
from .dispatch import as_text

_MIB = 1 << 20


@as_text.register
def _tuning(found: Tuning) -> str:
    """The setting, the shares by layer, and the settings that it was compared with."""
    losses = found.losses
    lines = [
        f"{found.model}, {found.context} tokens, {found.room / _MIB:.2f} MiB for the cache ({found.why})",
        f"  {found.setting}",
        f"  {found.bytes} bytes, {'as the log states' if found.stated else 'not loaded: this machine is too small'}; "
        f"predicted KL {_shown(found.predicted)}, the optimum's {found.optimum:.4f}, "
        + ("exact" if found.optimal else f"at least {found.bound:.4f} for any"),
    ]
    if found.better:
        lines.append(f"  {found.better} measured better, and is in the profile")
    lines += [
        "",
        f"KL to f16 on {found.final_chunks} contexts of {found.final_context} tokens that the shares never saw:",
        "",
        "| K and V | MiB | bits | predicted | KL (nats) | delta of perplexity | same top token (%) | ratio of KL |",
        "|---|---|---|---|---|---|---|---|",
        *map(_row, found.rows),
        "",
        f"shares of the layers at {losses.coarsest}, each alone (nats): K, V",
    ]
    each = {(one.side, one.layer): one.kl for one in losses.shares}
    lines += [f"  {layer:>3}  {_shown(each['k', layer])}  {_shown(each['v', layer])}" for layer in range(losses.layers)]
    lines.append("all K, all V at a type (nats), and the factor to the shares:")
    lines += [f"  {one.side.upper()} {one.type:<8} {_shown(one.kl)}  {one.factor:.4f}" for one in losses.factors]
    lines += ["", f"{found.seconds:.0f} s; profile: {found.profile}"]
    return "\n".join(lines)


def _row(one: Row) -> str:
    cells = (
        one.setting,
        f"{one.bytes / _MIB:.2f}",
        f"{one.bits_per_value:.3g}",
        "-" if one.predicted is None else f"{one.predicted.mean:.4f}",
        _shown(one.kl),
        f"{one.delta.mean:+.3f} ± {one.delta.error:.3f}",
        f"{one.same_top.mean:.2f} ± {one.same_top.error:.2f}",
        "" if one.ratio is None else f"{one.ratio.mean:.2f} ± {one.ratio.error:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _shown(one: Estimate) -> str:
    return f"{one.mean:.4f} ± {one.error:.4f}"
