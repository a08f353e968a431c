"""The values of settings: read from text or YAML into the setting's type, and what is allowed, in words."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, get_args, get_origin

import msgspec
from msgspec import inspect

from . import variables
from .cachetypes import grammar
from .errors import ConfigError

_SHOWN = 140
_AS_TEXT = (str, int, float, datetime.date)
"""what YAML makes of plain words, and what a setting that is text takes as it is written"""


def is_mapping(kind: Any) -> bool:
    """Whether a setting of this annotated type maps names to text."""
    return get_origin(get_args(kind)[0]) is Mapping if get_args(kind) else False


def named(key: str, parent: str, raw: Any, origin: str, origins: dict[str, str]) -> dict[str, str]:
    """Names and texts of a mapping, or of one name in it; their origins are noted. Raises `ConfigError`."""
    example = f"allowed: NAME: TEXT in a file, or --set {parent}.NAME=TEXT"
    if key == parent and not isinstance(raw, Mapping):
        raise ConfigError(f"{key}: {shown(raw)} (from {origin}) is not a mapping of names to text", hint=example)
    given = raw if key == parent else {key.removeprefix(f"{parent}."): raw}
    found = {}
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, str | int | float):
            raise ConfigError(f"{parent}.{name}: {shown(value)} (from {origin}) is not text", hint=example)
        found[name] = str(value).lower() if isinstance(value, bool) else str(value)
        origins[f"{parent}.{name}"] = origins[parent] = origin
    return found


def value(key: str, raw: Any, kind: Any, origin: str) -> Any:
    """A value in its setting's type. Raises `ConfigError`."""
    try:
        found = msgspec.convert(_readable(raw, get_args(kind)[0]), kind, strict=False)
        for text in found if isinstance(found, tuple) else (found,):
            if isinstance(text, str) and (why := variables.value_refused(text)):
                raise ConfigError(f"{shown(text)} {why}", hint="write it as one line of plain text")
        return _canonical(found, inspect.type_info(kind))
    except (msgspec.ValidationError, OverflowError, ValueError):
        hint = f"allowed: {allowed(kind)}"
        raise ConfigError(f"{key}: {shown(raw)} (from {origin}) is not allowed", hint=hint) from None
    except ConfigError as error:
        raise ConfigError(f"{key} (from {origin}): {error.message}", hint=error.hint) from error


def shown(raw: Any) -> str:
    """A value for a message: of a long one the beginning."""
    try:
        text = repr(raw)
    except ValueError:  # a number of thousands of digits
        return "a number that is too long"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _readable(raw: Any, kind: Any) -> Any:
    """A value as msgspec accepts it for `kind`: yes/no as bool, one string as a list, a number as text."""
    if kind is str and isinstance(raw, _AS_TEXT) and not isinstance(raw, bool):
        return str(raw)
    if not isinstance(raw, str):
        return raw
    if kind is bool:
        return {"yes": True, "on": True, "no": False, "off": False}.get(raw.lower(), raw)
    return list(grammar.split_settings(raw)) if get_origin(kind) is tuple else raw.strip()


def _canonical(value: Any, kind: inspect.Type) -> Any:
    """Cache types in their canonical form, with all rules; other values unchanged."""
    match kind:
        case inspect.Metadata(extra={"cache_type": True}):
            return str(grammar.parse(value))
        case inspect.Metadata(type=inner):
            return _canonical(value, inner)
        case inspect.VarTupleType(item_type=inner):
            return tuple(_canonical(part, inner) for part in value)
    return value


def allowed(kind: Any) -> str:
    """The allowed values of a setting of this annotated type, in words."""
    return _allowed(inspect.type_info(kind))


def _allowed(kind: inspect.Type) -> str:
    match kind:
        case inspect.Metadata(extra={"cache_type": True}):
            return "TYPE or K:V, each with rules for layers such as turbo2,first=2:q8_0,last=2:q8_0"
        case inspect.Metadata(type=inner) | inspect.VarTupleType(item_type=inner):
            return _allowed(inner)
        case inspect.BoolType():
            return "true | false"
        case inspect.DictType():
            return "names of variables with text"
        case inspect.LiteralType(values=values):
            return " | ".join(map(str, values))
        case inspect.IntType(ge=low, le=high):
            return f"int from {low} to {high}"
        case inspect.FloatType(ge=low, le=high):
            return f"float from {low:g} to {high:g}"
        case inspect.StrType(pattern=str(pattern)):
            return f"text like {pattern[4:-3]}"
    return "text"
