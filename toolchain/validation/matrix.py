"""The tests of the matrix, in the order in which they run: the cheap and deciding ones first."""

from __future__ import annotations

from collections.abc import Callable

from .result import TestResult
from .trial import Trial
from .trials import attention, checklist

Measure = Callable[[Trial], TestResult]

TESTS: dict[str, Measure] = {
    "checklist": checklist.measure,
    "attention": attention.measure,
}
"""name -> what measures and judges it"""
