"""The only jinja environments: for our own templates/, and for the templates of a series, which may be another's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from . import checkout
from .bounds import bounded

TemplateError = jinja2.TemplateError

_SYNTAX: Mapping[str, Any] = {
    "undefined": jinja2.StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
}
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(checkout.TEMPLATES),
    autoescape=jinja2.select_autoescape(("html.j2", "plist.j2"), default=False, default_for_string=False),
    auto_reload=False,  # a loaded one needs its file no more
    **_SYNTAX,
)
_SANDBOX = ImmutableSandboxedEnvironment(autoescape=False, **_SYNTAX)


def render(name: str, /, **values: Any) -> str:
    """A file of templates/, rendered. Values are escaped when the name ends in .html.j2 or .plist.j2."""
    return _ENVIRONMENT.get_template(name).render(values)


def load(*names: str) -> None:
    """Load files of templates/, so that `render` does not read them later."""
    for name in names:
        _ENVIRONMENT.get_template(name)


def fill(text: str, values: Mapping[str, Any]) -> str:
    """A template given as text, rendered without escaping, in jinja's sandbox and within bounds.

    Raises `TemplateError` for an unknown name, and whatever else the template does wrong.
    """
    try:
        with bounded():
            return _SANDBOX.from_string(text).render(values)
    except TemplateError:
        raise
    except Exception as error:  # of an expression in the template
        raise jinja2.TemplateRuntimeError(f"{type(error).__name__}: {error}") from error


def check(text: str) -> None:
    """Raise `TemplateError` for text that does not parse as a template, or names an unknown filter or test."""
    _ENVIRONMENT.compile(text)
