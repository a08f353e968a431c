"""What the series is held against."""

from __future__ import annotations

from ..core.records import record
from ..sources.repository import Repository
from ..stages import Target


@record
class Tree:
    """A pristine tree to render onto."""

    target: Target
    repository: Repository
    commit: str
    version: str
    """what a part's `serves` is held against: a build number, or Ollama's version"""
