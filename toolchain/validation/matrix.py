"""The tests of the matrix, in the order in which they run: the cheap and deciding ones first."""

from __future__ import annotations

from collections.abc import Callable

from .result import TestResult
from .trial import Trial
from .trials import (
    attention,
    ceiling,
    checklist,
    memory,
    needle,
    perplexity,
    perturbation,
    prompts,
    refract,
    session,
    speed,
    trajectory,
)

Measure = Callable[[Trial], TestResult]

TESTS: dict[str, Measure] = {
    "checklist": checklist.measure,
    "perplexity": perplexity.measure,
    "attention": attention.measure,
    "trajectory": trajectory.measure,
    "speed": speed.measure,
    "memory": memory.measure,
    "ceiling": ceiling.measure,
    "needle": needle.measure,
    "prompts": prompts.measure,
    "session": session.measure,
    "perturbation": perturbation.measure,
    "refract": refract.measure,
}
"""name -> what measures and judges it"""
