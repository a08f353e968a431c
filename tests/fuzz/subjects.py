"""All subjects, by the names that `python -m tests.fuzz` takes."""

from __future__ import annotations

from . import blocks, logs, plists, series, statements, states, trees
from .subject import Subject

SUBJECTS: dict[str, Subject] = {
    "plists": plists.SUBJECT,
    "logs": logs.SUBJECT,
    "series": series.SERIES,
    "settings": series.SETTINGS,
    "deploy": states.DEPLOY,
    "fleet": states.FLEET,
    "rollouts": states.ROLLOUT,
    "validation": states.VALIDATION,
    "statements": statements.STATEMENTS,
    "slots": blocks.SLOTS,
    "trees": trees.TREES,
    "blocks": blocks.BLOCKS,
    "first-runs": statements.FIRST_RUNS,
}
