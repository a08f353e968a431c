"""The commits that a run works on: mirrors, layouts, the pin, and scratch work trees."""

from . import eras
from .layout import Layout, recognise
from .origins import open_origin, prepare, release_name
from .repository import Commit, Repository
from .scratch import create, locked, scratch_root

__all__ = [
    "Commit",
    "Layout",
    "Repository",
    "create",
    "eras",
    "locked",
    "open_origin",
    "prepare",
    "recognise",
    "release_name",
    "scratch_root",
]
