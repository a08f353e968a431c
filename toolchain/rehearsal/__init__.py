"""A release built, served and rolled back, on a miniature upstream of our own."""

from .rehearsal import Rehearsal, rehearse

__all__ = ["Rehearsal", "rehearse"]
