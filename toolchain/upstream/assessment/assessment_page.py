"""An assessment as a page of HTML."""

from __future__ import annotations

from pathlib import Path

import jinja2

from ...core.checkout import TEMPLATES
from ...core.records import write, write_bytes
from .assessment import Assessment


def save(found: Assessment, folder: Path) -> Path:
    """Write assessment.json and assessment.html into `folder`; returns the path of the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    page = environment.get_template("assessment.html.j2").render(found=found)
    write(folder / "assessment.json", found)
    write_bytes(folder / "assessment.html", page.encode())
    return folder / "assessment.html"
