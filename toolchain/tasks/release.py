"""`./inv release`: from a verified release to files that anyone can check."""

from __future__ import annotations

from .command import Group

group = Group("release")
