"""Upstream, watched: what moved since the last look, and whether the series still holds."""

from .look import UpstreamLook, look

__all__ = ["UpstreamLook", "look"]
