"""The further variables of deploy.environment, for a program whose own variables are known."""

from __future__ import annotations

import difflib
import re

from ...core.config import DeployConfig
from ...core.errors import ConfigError
from ...core.variables import masked
from ..unit import Variables

_CLOSE = 0.8
_PATTERNS = {
    "duration": (
        r"[-+]?((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+|[-+]?\d+",
        "a duration such as 30m or 1h30m, or seconds",
    ),
    "number": (r"\d+", "a whole number from 0 on"),
    "switch": (r"1|t|T|TRUE|true|True|0|f|F|FALSE|false|False", "true or false"),
    "level": (r"true|false|\d", "a level: false, true or 0 to 2"),
}
_ORIGIN = re.compile(r"[^\s*]*\*[^\s*]*|(https?|(chrome|safari|moz|ms-browser)-extension)://[^\s*]+")


def further(config: DeployConfig, known: Variables) -> dict[str, str]:
    """The variables of deploy.environment. Raises `ConfigError` for one that the unit sets, or a value of another kind.

    An empty value is always good: programs take it for a variable that is not set.
    """
    for name, value in config.environment.items():
        if name in known.settings:
            setting = known.settings[name]
            raise ConfigError(
                f"deploy.environment: {name} is set by the service itself",
                hint=f"set {setting}" if setting else "leave it out",
            )
        if name in known.refused:
            raise ConfigError(f"deploy.environment: {name} {known.refused[name]}", hint="leave it out")
        if wanted := _wanted(known.kinds.get(name, "text"), value):
            raise ConfigError(f"deploy.environment: {name}: {masked(name, value)!r} is not {wanted}")
    return dict(config.environment)


def unknown(config: DeployConfig, known: Variables) -> dict[str, str]:
    """Names that begin as the program's own but are not known, each with the known name that it resembles, or none."""
    names = [name for name in config.environment if known.prefix and name.startswith(known.prefix)]
    close = {name: difflib.get_close_matches(name, known.kinds, n=1, cutoff=_CLOSE) for name in names}
    return {name: (close[name] or [""])[0] for name in names if name not in known.kinds}


def _wanted(kind: str, value: str) -> str:
    """What the value should be; empty if it is."""
    value = value.strip().strip("\"'")  # as Ollama reads them
    if not value or kind == "text":
        return ""
    if kind == "origins":
        good = all(_ORIGIN.fullmatch(origin) for origin in value.split(","))
        return "" if good else "origins divided by commas without blanks, each with http://, https:// or one *"
    pattern, words = _PATTERNS[kind]
    return "" if re.fullmatch(pattern, value, re.ASCII) else words
