"""The desired state of a Mac: KEY=VALUE lines, which tq, an MDM's scripts and a fleet's controller read alike."""

from __future__ import annotations

from collections.abc import Mapping

from ..core import variables
from ..core.errors import ConfigError

KEYS = (
    "channel_url", "channel", "signers", "revoked_keys", "release",
    "prefix", "label", "domain", "user", "host", "port", "kv_cache_type", "models", "keep", "log_mb", "log_files",
    "health_timeout_s", "stability_s", "wired_limit_mb", "conflicts", "gpu", "state", "offline_days",
)  # fmt: skip
ENVIRONMENT = "env."
"""prefix of the keys of variables"""
MOST_BYTES = 1 << 16


def parse(text: str, *, name: str = "the desired state") -> dict[str, str]:
    """The values by their keys, in the order of the lines. Raises `ConfigError`, which names the line.

    Only the shape is checked here. tq checks the values themselves, on the Mac that they are for.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise ConfigError(f"{name}: longer than {MOST_BYTES} bytes", hint="name the desired-state file, not another")
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, separator, value = line.partition("=")
        if not separator:
            raise ConfigError(f"{name}: line {number}: not KEY=VALUE", hint="port=11434")
        if key in found:
            raise ConfigError(f"{name}: line {number}: {key} occurs twice", hint="leave one of the lines")
        _check(name, number, key, value)
        found[key] = value
    return found


def render(values: Mapping[str, str]) -> str:
    """The lines, which `parse` reads back. Raises `ConfigError`."""
    for number, (key, value) in enumerate(values.items(), 1):
        _check("the desired state", number, key, value)
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _check(name: str, number: int, key: str, value: str) -> None:
    where = f"{name}: line {number}"
    if key.startswith(ENVIRONMENT):
        try:
            variables.check({key.removeprefix(ENVIRONMENT): value})
        except ConfigError as error:
            raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
    elif key not in KEYS:
        raise ConfigError(f"{where}: unknown key {key[:80]!r}", hint=f"known: {', '.join(KEYS)}, {ENVIRONMENT}NAME")
    if why := variables.value_refused(value):
        raise ConfigError(f"{where}: the value of {key} {why}", hint="one line of text without control characters")
