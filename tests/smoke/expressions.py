"""The expressions of GitHub Actions that our workflows use.

Modelled: `||`, `&&`, `!`, `==`, `!=`, parentheses, text, numbers, truth values, properties of contexts, and functions
that say how the steps before ended. Text compares without regard to case, and an unknown property is empty, as there.
Everything else is an error, and not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_TOKEN = re.compile(r"\s*(?:(\|\||&&|==|!=|[!()])|'((?:[^']|'')*)'|(\d+)|([A-Za-z_][\w-]*(?:\.[\w-]+)*))")
_INSIDE = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
STATUS = ("success", "failure", "always", "cancelled")


def filled(text: str, contexts: Mapping[str, Any]) -> str:
    """A text whose `${{ }}` are evaluated."""
    return _INSIDE.sub(lambda match: shown(evaluate(match[1], contexts)), text)


def condition(text: str, contexts: Mapping[str, Any], status: Mapping[str, bool]) -> bool:
    """What `if:` says; without a function about the status it also asks for success."""
    inside = _INSIDE.fullmatch(text.strip())
    expression = inside[1] if inside else text
    asks = any(re.search(rf"\b{name}\(", expression) for name in STATUS)
    return bool(evaluate(expression or "true", contexts, status)) and (asks or status["success"])


def shown(value: Any) -> str:
    """A value as text."""
    return {True: "true", False: "false", None: ""}.get(value, str(value)) if not isinstance(value, str) else value


def evaluate(expression: str, contexts: Mapping[str, Any], status: Mapping[str, bool] | None = None) -> Any:
    """The value of an expression. Raises `ValueError` for what is not modelled."""
    return _Parser(expression, contexts, status or {}).whole()


class _Parser:
    def __init__(self, expression: str, contexts: Mapping[str, Any], status: Mapping[str, bool]) -> None:
        self._text, self._contexts, self._status = expression, contexts, status
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while expression[position:].strip():
            match = _TOKEN.match(expression, position)
            if not match:
                raise ValueError(f"not modelled: {expression!r} from {expression[position:]!r} on")
            kind = ("operator", "text", "number", "name")[(match.lastindex or 1) - 1]
            self._tokens.append((kind, match[match.lastindex or 1]))
            position = match.end()

    def whole(self) -> Any:
        value = self._either()
        if self._tokens:
            raise ValueError(f"not modelled: {self._text!r} from {self._tokens[0][1]!r} on")
        return value

    def _next_is(self, *operators: str) -> str:
        if self._tokens and self._tokens[0][0] == "operator" and self._tokens[0][1] in operators:
            return self._tokens.pop(0)[1]
        return ""

    def _either(self) -> Any:
        value = self._both()
        while self._next_is("||"):
            other = self._both()
            value = value or other
        return value

    def _both(self) -> Any:
        value = self._compared()
        while self._next_is("&&"):
            other = self._compared()
            value = value and other
        return value

    def _compared(self) -> Any:
        value = self._single()
        while operator := self._next_is("==", "!="):
            value = _same(value, self._single()) == (operator == "==")
        return value

    def _single(self) -> Any:
        if self._next_is("!"):
            return not self._single()
        if self._next_is("("):
            value = self._either()
            if not self._next_is(")"):
                raise ValueError(f"{self._text!r}: a parenthesis is open")
            return value
        if not self._tokens:
            raise ValueError(f"{self._text!r}: it ends early")
        kind, word = self._tokens.pop(0)
        if kind == "text":
            return word.replace("''", "'")
        if kind == "number":
            return int(word)
        if kind == "name":
            return self._function(word) if self._next_is("(") else self._property(word)
        raise ValueError(f"{self._text!r}: {word!r} is out of place")

    def _function(self, name: str) -> bool:
        if name not in self._status or not self._next_is(")"):
            raise ValueError(f"not modelled: {name}() in {self._text!r}")
        return self._status[name]

    def _property(self, path: str) -> Any:
        if path in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[path]
        first, *rest = path.split(".")
        if first not in self._contexts:
            raise ValueError(f"not modelled: the context {first} in {self._text!r}")
        value: Any = self._contexts[first]
        for name in rest:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value


def _same(one: Any, other: Any) -> bool:
    normal: Callable[[Any], Any] = lambda value: value.lower() if isinstance(value, str) else value or ""  # noqa: E731
    return bool(normal(one) == normal(other))
