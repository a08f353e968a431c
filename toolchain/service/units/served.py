"""A model that llama-server serves."""

from __future__ import annotations

from pathlib import Path

from ...core.records import record


@record
class ServedModel:
    """A model by the name that clients choose it by, and its files."""

    name: str
    file: Path
    projector: Path | None = None
    """what turns images into its tokens"""
    lost: tuple[str, ...] = ()
    """what Ollama does for it and llama-server does not, a sentence each"""
