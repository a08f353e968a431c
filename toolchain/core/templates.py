"""The one jinja environment: for templates/ and for the templates of the series."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

FOLDER = Path(__file__).resolve().parents[2] / "templates"
TemplateError = jinja2.TemplateError

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER),
    undefined=jinja2.StrictUndefined,
    autoescape=jinja2.select_autoescape(("html.j2", "plist.j2"), default=False, default_for_string=False),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(name: str, /, **values: Any) -> str:
    """A file of templates/, filled in. Values are escaped where the name says that it makes HTML or a plist."""
    return _ENVIRONMENT.get_template(name).render(values)


def fill(text: str, values: Mapping[str, Any]) -> str:
    """A template given as text, filled in as it is. Raises `TemplateError`, for an unknown name, too."""
    return _ENVIRONMENT.from_string(text).render(values)
