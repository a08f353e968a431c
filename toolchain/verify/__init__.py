"""Proof that a built release does what was configured: see `verify`."""

from .verification import verify

__all__ = ["verify"]
