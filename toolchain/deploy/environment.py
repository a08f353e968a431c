"""The `environment` file of an installed release: the variables that the shim gives to its program.

It is in the release directory, so that a rollback restores environment and binary together: a stock binary with a
TurboQuant type in its environment fails every model load.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..core import variables
from ..core.errors import ConfigError, ReleaseInvalid

FILE_NAME = "environment"


def render(values: Mapping[str, str]) -> str:
    """KEY=VALUE lines. Raises `ConfigError` when a line cannot hold a value."""
    for key, value in values.items():
        if why := variables.value_refused(value):
            raise ConfigError(f"{key}: {variables.masked(key, value)[:140]!r} {why}")
    return "".join(f"{key}={value}\n" for key, value in values.items())


def read(release_dir: Path) -> dict[str, str]:
    """The variables of an installed release. Raises `ReleaseInvalid`."""
    path = release_dir / FILE_NAME
    try:
        lines = path.read_bytes().decode().split("\n")  # as the shell divides them, and not str.splitlines
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseInvalid(f"{path}: {error}", hint="install the release again") from error
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
