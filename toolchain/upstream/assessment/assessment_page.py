"""An assessment as a page of HTML."""

from __future__ import annotations

from pathlib import Path

from ...core import templates
from ...core.records import write, write_bytes
from .assessment import Assessment


def save(found: Assessment, folder: Path) -> Path:
    """Write assessment.json and assessment.html into `folder`; returns the path of the page."""
    page = templates.render("assessment.html.j2", found=found)
    write(folder / "assessment.json", found)
    write_bytes(folder / "assessment.html", page.encode())
    return folder / "assessment.html"
