"""The default folder of the workspace."""

from __future__ import annotations

import platformdirs

_NAME = "turboquant"


def cache_folder() -> str:
    """This user's. Without a home it stays unexpanded, and whoever uses it says that the home is unknown."""
    try:
        return platformdirs.user_cache_dir(_NAME)
    except RuntimeError:  # no HOME, and a user that no database knows
        return f"~/.cache/{_NAME}"
