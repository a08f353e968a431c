"""Proof that a built release does what was asked of it: see `verify`."""

from .verification import verify

__all__ = ["verify"]
