"""Releases at a forge."""

from __future__ import annotations

from ..publishing.forge import UploadedRelease
from .dispatch import as_text


@as_text.register
def _uploaded(one: UploadedRelease) -> str:
    """Where it is, and its files."""
    how = "was published before, and is complete" if one.already_published else "published"
    lines = [f"{one.release}: {how} at {one.url}", f"tag {one.tag} of {one.repository}, {one.seconds:.1f} s"]
    if one.immutable is False:
        lines.append("note: the forge lets its owners change it; immutable releases are a setting of the repository")
    return "\n".join([*lines, *(f"  {file.size:>12}  {file.sha256}  {file.name}" for file in one.files)])
