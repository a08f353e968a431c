"""Default folders of this user. Without a home they stay unexpanded, and whoever uses one says that it is unknown."""

from __future__ import annotations

from collections.abc import Callable

import platformdirs

_NAME = "turboquant"


def cache_folder() -> str:
    """For the workspace."""
    return _found(platformdirs.user_cache_dir, f"~/.cache/{_NAME}")


def _found(find: Callable[[str], str], otherwise: str) -> str:
    try:
        return find(_NAME)
    except RuntimeError:  # no HOME, and a user that no database knows
        return otherwise
