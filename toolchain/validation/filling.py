"""Prompts that fill a context to some depth, none of which starts like another, so that no cache serves them."""

from __future__ import annotations

import random

from .trial import Trial

ROOM = 0.92
"""of a context that a prompt may take by estimate, since its tokens are not known beforehand"""
_PASSAGE = 400
"""characters that are repeated, so that their tokens say those of any length"""


def filling(trial: Trial, context: int, depth: int, name: str) -> str:
    """About `depth` tokens: a passage of the plan's text again and again, behind characters that no other prompt has.

    `name` and the numbers decide which; the same ones give the same prompt. Asks the baseline's server with `context`
    for the tokens of the passage, once.
    """
    passage = trial.plan.text.read_text(encoding="utf-8")[:_PASSAGE]
    density = trial.kept("density", float, lambda: _density(trial, context, passage))
    drawn = random.Random(f"{trial.plan.seed} {context} {depth} {name}")  # noqa: S311
    size, start = int(density * depth), drawn.randrange(len(passage))
    body = (passage[start:] + passage * (1 + size // len(passage)))[:size]
    return f"{drawn.randrange(16**12):012x} {body}"


def _density(trial: Trial, context: int, passage: str) -> float:
    """Characters for each token."""
    found = trial.at("baseline", context).generate(passage, tokens=1, reuse=False).counters
    return len(passage) / max(1, found.prompt + found.cached)
