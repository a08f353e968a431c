"""Profiles of clients."""

from __future__ import annotations

from ..profiles.clients import Clients
from ..profiles.rendering import RenderedProfile
from .dispatch import as_text


@as_text.register
def _clients(clients: Clients) -> str:
    lines = []
    for one in clients:
        least = f", needs {one.minimum_context} tokens" if one.minimum_context else ""
        lines += [f"{one.name:<10}{one.title}", f"{'':<10}fallbacks: {one.fallbacks}{least}"]
        lines += [f"{'':<10}file: {one.file}", f"{'':<10}use:  {one.use}"]
    return "\n".join(lines)


@as_text.register
def _profile(one: RenderedProfile) -> str:
    """The profile itself, unless it was written to a file."""
    if not one.out:
        return one.text
    first = one.models[0]
    lines = [f"{one.out}: {first.model} at {one.api}, {first.context} tokens with {one.kv_cache_type}"]
    lines += [f"fallback: {other.model} at {other.api}" for other in one.models[1:]]
    return "\n".join([*lines, f"use it: {one.use}", *(f"note: {note}" for note in one.notes)])
