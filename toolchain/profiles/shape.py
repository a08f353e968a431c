"""The shape of a client's configuration, as far as our templates use it, and whether a rendered one has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Shape = type | Mapping[str, "Shape"] | Sequence["Shape"]
"""a type; names with shapes, where `name?` may be missing and `*` stands for any name; a list of one shape"""


def misfit(data: Any, shape: Shape, where: str = "") -> str:
    """The first place where data has another shape; empty if there is none. Unknown names are misfits."""
    match shape:
        case type():
            fits = isinstance(data, shape) and not isinstance(data, bool)
            return "" if fits and data != "" else f"{where}: expected {shape.__name__}"
        case Mapping():
            if not isinstance(data, dict):
                return f"{where}: expected a mapping"
            return _named(data, shape, where)
    if not isinstance(data, list):
        return f"{where}: expected a list"
    return next((told for at, one in enumerate(data) if (told := misfit(one, shape[0], f"{where}[{at}]"))), "")


def _named(data: Mapping[Any, Any], shape: Mapping[str, Shape], where: str) -> str:
    known = {name.removesuffix("?"): inner for name, inner in shape.items()}
    for name in shape:
        if not name.endswith("?") and name != "*" and name not in data:
            return f"{where}.{name}: missing"
    for name, value in data.items():
        inner = known.get(name, known.get("*")) if isinstance(name, str) else None
        if inner is None:
            return f"{where}.{name}: unknown"
        if told := misfit(value, inner, f"{where}.{name}"):
            return told
    return ""
