"""Checks of this repository itself: every file parses, no file holds a secret, workflows are sound."""

from .check import check
from .findings import Fault, FilesChecked, NotChecked

__all__ = ["Fault", "FilesChecked", "NotChecked", "check"]
