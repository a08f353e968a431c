"""Records as text for a terminal: `as_text`. `--json` prints the records themselves.

A module for each package registers a function for each type of record.
"""

from . import (  # noqa: F401  each registers what it shows
    assessment,
    channel,
    contract,
    documents,
    drift,
    firstrun,
    fleet,
    forge,
    fork,
    host,
    memory,
    metal,
    packing,
    profiles,
    provision,
    quality,
    release,
    series,
    settings,
    smoke,
    surface,
    tuning,
    validation,
    watch,
)
from .dispatch import as_text

__all__ = ["as_text"]
