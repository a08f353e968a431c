"""A release built, served and rolled back in miniature, on trees that we wrote."""

from .rehearsal import Rehearsal, rehearse

__all__ = ["Rehearsal", "rehearse"]
