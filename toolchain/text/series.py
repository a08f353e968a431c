"""Sources, the series rendered and checked, and what it was recorded from."""

from __future__ import annotations

from collections import Counter

from ..contract.check import Checked
from ..series.manifest import Sealed
from ..stages import Rendered, Scratch, Sources
from .contract import behaviour_lines
from .dispatch import as_text


@as_text.register
def _sources(found: Sources) -> str:
    """Both commits and the pin."""
    pin = found.pin.name if found.pin.exact else f"{found.pin.name}, which is not there: b{found.pin.build} stands in"
    lines = [f"Ollama    {found.ollama.describe:<20} {found.ollama.commit}  ({found.era} era)"]
    lines.append(f"llama.cpp {found.llama_cpp.describe:<20} {found.llama_cpp.commit}  (pin {pin})")
    for source in (found.ollama, found.llama_cpp):
        if source.dirty:
            lines.append(f"  {source.origin}: not part of the run: {', '.join(source.dirty[:5])}")
    return "\n".join(lines)


@as_text.register
def _rendered(result: Rendered) -> str:
    """Files and lines that the series changes, upstream's and ours separately."""
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


@as_text.register
def _scratch(made: Scratch) -> str:
    """The branch and its folder."""
    return f"{made.branch} in {made.ollama} and {made.llama_cpp}"


@as_text.register
def _checked(checked: Checked) -> str:
    """The dry run as text: one line for each edit, more where one fails."""
    lines = [f"series {checked.series_sha256[:12]} on llama.cpp {checked.llama_cpp} and Ollama {checked.ollama}"]
    for edit in checked.edits:
        place = f"{edit.file}:{edit.line}" if edit.line else edit.file
        lines.append(f"  {edit.status:<10} {edit.name:<28} {place}")
        if edit.status in ("moved", "broken"):
            lines.append(f"             {edit.reason}")
            lines += [f"             candidate: {candidate}" for candidate in edit.candidates]
            if edit.culprit:
                lines.append(f"             broken by: {edit.culprit}")
        elif edit.reason:
            lines.append(f"             {edit.reason}")
    for breach in checked.contract:
        lines.append(f"  contract   {breach}")
        if breach.used:
            lines.append(f"             used by: {', '.join(breach.used)}")
        if breach.culprit:
            lines.append(f"             broken by: {breach.culprit}")
    if checked.reason:
        lines.append(f"  not supported: {checked.reason}")
    counts = Counter(edit.status for edit in checked.edits)
    if counts:
        lines.append("  " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    if checked.symbols:
        broken = f", {len(checked.contract)} of them changed" if checked.contract else " unchanged"
        lines.append(f"  {checked.symbols} symbols of llama.cpp{broken}")
    if checked.beyond:
        lines.append(f"  {checked.beyond}")
    if checked.behaviour:
        lines += behaviour_lines(checked.behaviour)
    return "\n".join(lines)


@as_text.register
def _sealed(done: Sealed) -> str:
    """The digest."""
    return f"series {done.series_sha256}"
