"""A tree to which the series is applied."""

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
    """the version that a part's `serves` is matched with: a build number, or Ollama's version"""
