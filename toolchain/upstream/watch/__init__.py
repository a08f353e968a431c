"""Upstream, watched: what moved since the last look, and whether the series still holds."""

from .look import Look, look
from .report import text

__all__ = ["Look", "look", "text"]
