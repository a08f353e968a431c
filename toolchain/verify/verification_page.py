"""The verification report as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..core import templates
from ..core.cachetypes.table import bits_per_value, type_table
from ..core.errors import ToolchainError
from ..core.records import record
from ..proofs import CacheProof, TypeProof, Verification
from ..serving.cachelog import MIB, portions
from ..stages import CacheType, Release


@record
class CacheRow:
    """One cache of one proof, as a row of the table. A failed proof may have no cache; its cells are then empty."""

    kv_cache_type: str
    head_size: int
    type_k: str
    type_v: str
    cells: str
    mib: str
    expected_mib: str
    bits: str
    tokens: int
    context_shifts: int
    ok: bool


def render_report(verification: Verification, release: Release, failures: Sequence[ToolchainError]) -> str:
    """The report on a verification of `release`, as Markdown; `failures` are the failed proofs."""
    return templates.render(
        "verification.md.j2",
        verification=verification,
        release=release,
        failures=[failure.message for failure in failures],
        rows=[row for proof in verification.proofs for row in _rows(proof, type_table(release.cache_types))],
    )


def _rows(proof: TypeProof, types: dict[str, CacheType]) -> Iterator[CacheRow]:
    def bits(cache: CacheProof, side: str) -> str:
        """Mean over the layers."""
        held = {name: layers for where, name, layers, _ in portions(cache) if where == side}
        if not all(name in types for name in held) or not held:
            return "?"
        return f"{sum(bits_per_value(types[name]) * n for name, n in held.items()) / sum(held.values()):.4g}"

    named = f"{proof.kv_cache_type} (option {proof.option})" if proof.option else proof.kv_cache_type

    def row(type_k: str, type_v: str, cells: str, mib: str, expected_mib: str, bits: str) -> CacheRow:
        return CacheRow(
            kv_cache_type=" ".join(filter(None, (named, proof.engine and f"[{proof.engine}]"))),
            head_size=proof.head_size,
            type_k=type_k,
            type_v=type_v,
            cells=cells,
            mib=mib,
            expected_mib=expected_mib,
            bits=bits,
            tokens=proof.tokens,
            context_shifts=proof.context_shifts,
            ok=proof.ok,
        )

    if not proof.caches:
        yield row("", "", "", "", "", "")
    for cache in proof.caches:
        yield row(
            cache.type_k,
            cache.type_v,
            str(cache.cells),
            f"{cache.mib:.2f}",
            f"{cache.expected_bytes / MIB:.3f}",
            f"{bits(cache, 'K')} / {bits(cache, 'V')}",
        )
