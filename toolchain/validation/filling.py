"""Prompts that fill a context to some depth, none of which starts like another, so that no cache serves them."""

from __future__ import annotations

import random

from .trial import Trial

ROOM = 0.92
"""of a context that a prompt may take by estimate, since its tokens are not known beforehand"""
_SAMPLE = 4096
"""characters that the estimate is made from"""


def filling(trial: Trial, context: int, depth: int, name: str) -> str:
    """About `depth` tokens of the plan's text, from a place of its own on, behind characters that no other prompt has.

    `name` and the numbers decide which; the same ones give the same prompt. Asks the baseline's server with `context`
    for the tokens of the text, once.
    """
    density = trial.kept("density", float, lambda: _density(trial, context))
    drawn = random.Random(f"{trial.plan.seed} {context} {depth} {name}")  # noqa: S311
    text = trial.plan.text.read_text(encoding="utf-8")
    size = int(density * depth)
    start = drawn.randrange(len(text))
    body = (text[start:] + text * (1 + size // len(text)))[:size]
    return f"{drawn.randrange(16**12):012x} {body}"


def _density(trial: Trial, context: int) -> float:
    """Characters of the text for each token. A character has one token or less, nearly everywhere."""
    text = trial.plan.text.read_text(encoding="utf-8")[: min(_SAMPLE, context // 2)]
    found = trial.at("baseline", context).generate(text, tokens=1, reuse=False).counters
    return len(text) / max(1, found.prompt + found.cached)
