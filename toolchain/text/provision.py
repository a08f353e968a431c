"""Provisioning: what was rendered for the tools that manage Macs."""

from __future__ import annotations

from ..provisioning.adapters.rendering import Adapters
from .dispatch import as_text


@as_text.register
def _adapters(made: Adapters) -> str:
    lines = [f"{made.folder}: release {made.release}, sequence {made.sequence} of channel {made.channel}"]
    lines += [f"  {file.adapter:<12} {file.path}" for file in made.files]
    return "\n".join(lines)
