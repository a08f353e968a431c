"""The summary of a first run."""

from __future__ import annotations

from ..firstrun import report
from ..firstrun.report import Summary
from .dispatch import as_text


@as_text.register
def _summary(found: Summary) -> str:
    """As in the archive."""
    return report.page(found)
