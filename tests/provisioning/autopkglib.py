"""What TurboQuantVerifier.py takes of AutoPkg: a processor with `env` and `output`, and its error.

AutoPkg itself is on GitHub alone. Its own `load_recipe` and `AutoPackager.verify` accepted the rendered recipes once,
by hand; the suite holds the keys that its processors document.
"""

from __future__ import annotations

from typing import Any


class ProcessorError(Exception):
    """A processor failed."""


class Processor:
    """A step of a recipe."""

    def __init__(self, env: dict[str, Any]) -> None:
        self.env = env
        self.said: list[str] = []

    def output(self, message: str) -> None:
        """Say something."""
        self.said.append(message)
