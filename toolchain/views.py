"""Records for a reader at a terminal; `--json` prints the records themselves."""

from __future__ import annotations

from .host.doctor import Finding
from .models.compatibility.verdict import markdown as guard_text
from .pipeline import Shipped
from .stages import Deployment, Rendered, Sources, Verification


def sources(found: Sources) -> str:
    """Both commits and the pin."""
    pin = found.pin.name if found.pin.exact else f"{found.pin.name}, which is not there: b{found.pin.build} stands in"
    lines = [f"Ollama    {found.ollama.describe:<20} {found.ollama.commit}  ({found.era} era)"]
    lines.append(f"llama.cpp {found.llama_cpp.describe:<20} {found.llama_cpp.commit}  (pin {pin})")
    for source in (found.ollama, found.llama_cpp):
        if source.dirty:
            lines.append(f"  {source.origin}: not part of the run: {', '.join(source.dirty[:5])}")
    return "\n".join(lines)


def rendered(result: Rendered) -> str:
    """Files and lines that the series touches, upstream's and ours apart."""
    lines = [f"series {result.series_sha256[:12]}"]
    for target in result.targets:
        theirs = [file for file in target.files if file.pristine]
        ours = [file for file in target.files if not file.pristine]
        lines.append(
            f"  {target.target} {target.commit[:12]}: {len(theirs)} upstream files,"
            f" +{sum(file.inserted for file in theirs)} -{sum(file.deleted for file in theirs)};"
            f" {len(ours)} files of ours, {sum(file.inserted for file in ours)} lines"
        )
        lines += [f"    +{file.inserted:<4} -{file.deleted:<3} {file.path}" for file in target.files]
    return "\n".join(lines)


def findings(found: list[Finding]) -> str:
    """What the machine has of what is needed."""
    lines = []
    for item in found:
        lines.append(f"{'ok' if item.ok else 'MISSING':<8} {item.name:<12} {item.found or '-':<32} {item.needed}")
        if not item.ok:
            lines.append(f"         try: {item.hint}")
    return "\n".join(lines)


def verification(proven: Verification) -> str:
    """One line for each type and model: what the log of llama-server showed."""
    lines = [f"{proven.release}: version {proven.version}, proven in {proven.seconds:.1f} s"]
    for proof in proven.proofs:
        verdict = "proven" if proof.ok else f"NOT PROVEN: {proof.reason}"
        lines.append(f"  {proof.kv_cache_type:<14} head size {proof.head_size:<4} {proof.tokens:>3} tokens  {verdict}")
        for cache in proof.caches:
            sizes = f"K {cache.type_k} {cache.mib_k:.3f} MiB, V {cache.type_v} {cache.mib_v:.3f} MiB"
            lines.append(f"    {cache.cells} cells, {cache.layers} layers: {sizes}; {proof.context_shifts} shifts")
    for point in proven.checklist:
        lines.append(f"  {point.number} {'ok' if point.ok else 'FAILED':<6} {point.name}")
        lines.append(f"    {point.evidence}")
    if proven.guard:
        lines += [f"  {line}" for line in guard_text(proven.guard).splitlines()]
    if proven.unknown_type_message:
        lines.append(f"  an unknown type is answered: {proven.unknown_type_message}")
    return "\n".join(lines)


def deployment(state: Deployment) -> str:
    """What is active, what came before, and whether it is healthy."""
    if not state.active:
        return f"{state.prefix}: {state.reason or 'nothing is installed'}"
    health = "healthy" if state.healthy else f"NOT HEALTHY: {state.reason}"
    others = [name for name in state.releases if name != state.active]
    return "\n".join(
        [
            f"active    {state.active}  (version {state.version or '?'}, pid {state.pid or '-'}, {health})",
            f"parent    {state.parent or '-'}",
            f"releases  {', '.join(others) or 'no other'}",
            f"prefix    {state.prefix}",
        ]
    )


def shipped(result: Shipped, port: int) -> str:
    """The end of a `ship`."""
    lines = [deployment(result.deployment), f"port      {port}", f"records   {result.run}"]
    lines += [f"passed over {one.release}: {one.reason}" for one in result.passed_over]
    return "\n".join(lines)
