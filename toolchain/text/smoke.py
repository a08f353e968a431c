"""Checks of the repository."""

from __future__ import annotations

from ..smoke import FilesChecked
from .dispatch import as_text


@as_text.register
def _checked(result: FilesChecked) -> str:
    """A line for each finding, then what was not checked."""
    lines = [str(one) for one in result.findings]
    for one in result.not_checked:
        lines += [f"not checked: {one.what}: {one.why}", f"  try: {one.hint}"]
    lines.append(f"{result.files} files, {len(result.findings)} findings, {result.seconds:.1f} s")
    return "\n".join(lines)
