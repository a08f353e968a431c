"""Upstream, watched: what moved since the last look, and whether the series still holds."""

from .look import Look, look

__all__ = ["Look", "look"]
