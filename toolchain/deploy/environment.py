"""The `environment` file of an installed release: the variables that the shim gives to its program.

It is in the release directory, so that a rollback restores environment and binary together: a stock binary with a
TurboQuant type in its environment fails every model load.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..core import variables
from ..core.errors import ConfigError, ReleaseInvalid

FILE_NAME = "environment"
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_LOADERS = ("DYLD_", "LD_")
"""variables with which a program loads libraries of others"""


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
    except PermissionError as error:
        raise ReleaseInvalid(f"{path}: {error.strerror}", hint="run it with sudo") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseInvalid(f"{path}: {error}", hint="install the release again") from error
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def doubt(text: str) -> str:
    """Why a text cannot be an environment file that `render` wrote, without what it holds; empty if it can."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not separator or not _NAME.fullmatch(name) or any(ord(letter) < ord(" ") for letter in value):
            return f"line {number}: not KEY=VALUE"
        if name.startswith(_LOADERS):
            return f"{name} makes the program load libraries of others"
    return ""
