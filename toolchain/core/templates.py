"""The only jinja environment, for templates/ and the templates of the series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

from . import checkout

TemplateError = jinja2.TemplateError

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(checkout.TEMPLATES),
    undefined=jinja2.StrictUndefined,
    autoescape=jinja2.select_autoescape(("html.j2", "plist.j2"), default=False, default_for_string=False),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    auto_reload=False,  # a loaded one needs its file no more
)


def render(name: str, /, **values: Any) -> str:
    """A file of templates/, rendered. Values are escaped when the name ends in .html.j2 or .plist.j2."""
    return _ENVIRONMENT.get_template(name).render(values)


def load(*names: str) -> None:
    """Load files of templates/, so that `render` does not read them later."""
    for name in names:
        _ENVIRONMENT.get_template(name)


def fill(text: str, values: Mapping[str, Any]) -> str:
    """A template given as text, rendered without escaping. Raises `TemplateError`, also for an unknown name."""
    return _ENVIRONMENT.from_string(text).render(values)


def check(text: str) -> None:
    """Raise `TemplateError` for text that does not parse as a template, or names an unknown filter or test."""
    _ENVIRONMENT.compile(text)
