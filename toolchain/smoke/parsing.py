"""Whether a file parses, by a parser for its kind."""

from __future__ import annotations

import json
import re
import tomllib
import warnings
from collections.abc import Callable, Iterator
from xml.parsers.expat import ExpatError

import jinja2
import yaml

from ..core import documents, templates
from ..service import propertylist
from .findings import Fault
from .tree import File

_AT_LINE = re.compile(r"\(at line (\d+), ")


def faults(file: File) -> Iterator[Fault]:
    """The first fault of a file whose kind we know."""
    suffix = ".py" if file.interpreter.startswith("python") else file.suffix
    if file.is_link or suffix not in _PARSERS:
        return
    if file.text is None:
        yield Fault(path=file.name, reason=f"a {suffix} file that is not UTF-8 text")
        return
    try:
        fault = _PARSERS[suffix](file)
    except (ValueError, RecursionError, MemoryError) as error:  # too deep, or a number too long
        fault = _fault(file, 0, str(error) or type(error).__name__)
    if fault is not None:
        yield fault


def _yaml(file: File) -> Fault | None:
    try:
        documents.parse_yaml(file.text or "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        return _fault(file, mark.line + 1 if mark else 0, f"{error.problem}")
    except yaml.YAMLError as error:
        return _fault(file, 0, str(error))
    return None


def _json(file: File) -> Fault | None:
    try:
        json.loads(file.text or "")
    except json.JSONDecodeError as error:
        return _fault(file, error.lineno, error.msg)
    return None


def _toml(file: File) -> Fault | None:
    try:
        tomllib.loads(file.text or "")
    except tomllib.TOMLDecodeError as error:
        place = _AT_LINE.search(str(error))
        return _fault(file, int(place[1]) if place else 0, str(error))
    return None


def _python(file: File) -> Fault | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an escape that Python will refuse one day
        try:
            compile(file.data, file.name, "exec", dont_inherit=True)
        except SyntaxError as error:
            return _fault(file, error.lineno or 0, error.msg)
        except ValueError as error:  # a NUL
            return _fault(file, 0, str(error))
    return None


def _plist(file: File) -> Fault | None:
    try:
        propertylist.loaded(file.data)
    except ValueError as error:
        cause = error.__cause__
        return _fault(file, cause.lineno, str(cause)) if isinstance(cause, ExpatError) else _fault(file, 0, str(error))
    return None


def _jinja(file: File) -> Fault | None:
    try:
        templates.check(file.text or "")
    except jinja2.TemplateSyntaxError as error:
        return _fault(file, error.lineno, error.message or "a template that does not parse")
    return None


def _fault(file: File, line: int, why: str) -> Fault:
    return Fault(path=file.name, line=line, reason=f"does not parse: {' '.join(why.split())}")


_PARSERS: dict[str, Callable[[File], Fault | None]] = {
    ".yaml": _yaml,
    ".yml": _yaml,
    ".json": _json,
    ".toml": _toml,
    ".py": _python,
    ".plist": _plist,
    ".mobileconfig": _plist,
    ".j2": _jinja,
}
