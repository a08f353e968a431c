"""Property lists: the service's own, written by plistlib, and what those of a folder say.

The bytes of the service's change only with the configuration, never with the release.
"""

from __future__ import annotations

import os
import plistlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from ..core import records
from ..core.errors import ConfigError
from .manager import Definition

THROTTLE_S = 10
"""launchd's default, set explicitly because the health check depends on it"""
EXIT_TIMEOUT_S = 10
"""between SIGTERM and SIGKILL: Ollama ends its llama-server children in this time"""
SESSION_TYPES = ("Aqua", "Background", "LoginWindow", "StandardIO", "System")
"""every session, as Homebrew's services have it: without the key an agent belongs to Aqua and is refused over SSH"""
_MAX_BYTES = 4 << 20
"""no property list of a job is larger"""
_MOST_VALUES, _MOST_LETTERS = 100_000, 16 << 20
"""counted as often as a binary list refers to them"""
_DEEPEST = 50


def property_list(definition: Definition, *, label: str, home: Path, user: str = "") -> bytes:
    """The property list. The same arguments give the same bytes.

    `user` is the account of a system daemon. Raises `ConfigError` for text that XML cannot hold.
    """
    wanted: dict[str, Any] = {
        "Label": label,
        "LimitLoadToSessionType": list(SESSION_TYPES),
        "ProgramArguments": [str(definition.program)],
        "RunAtLoad": True,
        "KeepAlive": True,
        "ProcessType": "Interactive",
        "ThrottleInterval": THROTTLE_S,
        "ExitTimeOut": EXIT_TIMEOUT_S,
        "EnvironmentVariables": {"HOME": str(home), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        "StandardOutPath": str(definition.log),
        "StandardErrorPath": str(definition.log),
        **({"UserName": user} if user else {}),
    }
    try:
        data = plistlib.dumps(wanted, sort_keys=False)
        survives = plistlib.loads(data) == wanted
    except (plistlib.InvalidFileException, ExpatError, ValueError) as error:
        raise ConfigError(f"no property list can be made for {str(definition.program)!r}: {error}") from error
    if not survives:
        raise ConfigError(f"the path {str(definition.program)!r} or {str(home)!r} cannot be stored in XML")
    return data


def read(file: Path) -> dict[str, Any]:
    """The content of a property list; empty if there is none that can be read."""
    try:
        return parsed(content(file))
    except (OSError, ValueError):
        return {}


def content(file: Path) -> bytes:
    """The bytes of a property list, which may be anybody's. Raises `OSError` for a pipe, a device or a huge file."""
    return records.read_bytes(file, limit=_MAX_BYTES)


def parsed(data: bytes) -> dict[str, Any]:
    """The dictionary in a property list's bytes. Raises `ValueError` when they are none."""
    found = loaded(data)
    if not isinstance(found, dict):
        raise ValueError("the top of the property list is not a dictionary")
    return found


def loaded(data: bytes) -> Any:
    """What a property list's bytes hold. Raises `ValueError` for none, and for one that is too deep or too large.

    In a binary list a few bytes can stand for gigabytes, or for themselves: its objects refer to each other.
    """
    try:
        found = plistlib.loads(data)
    except Exception as error:  # plistlib meets odd content with AttributeError, IndexError and others
        raise ValueError(f"not a property list: {error or type(error).__name__}") from error
    values = letters = 0
    todo = [(found, 0)]
    while todo:
        value, depth = todo.pop()
        if isinstance(value, dict | list):
            values += len(value)
            if values <= _MOST_VALUES and depth < _DEEPEST:
                parts = value if isinstance(value, list) else chain(value, value.values())
                todo += [(part, depth + 1) for part in parts]
                continue
        elif isinstance(value, str | bytes):
            letters += len(value)
        if values > _MOST_VALUES or letters > _MOST_LETTERS or isinstance(value, dict | list):
            raise ValueError("not a property list that is read here: it is too deep, or stands for too much")
    return found


def entries(data: bytes) -> dict[str, str]:
    """The entries of a property list by their paths, such as EnvironmentVariables.HOME; none if it is damaged."""
    found, size = dict[str, str](), 0
    try:
        for name, value in _entries(parsed(data), ""):
            found[name] = value
            size += len(name) + len(value)
            if size > _MAX_BYTES:  # the names of what holds an entry are repeated in its own
                return {}
    except ValueError:
        return {}
    return found


def _entries(content: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _entries(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def session_types(file: Path) -> tuple[str, ...]:
    """The sessions that a property list is for; empty if it does not say, or cannot be read."""
    stated = read(file).get("LimitLoadToSessionType", ())
    return tuple(map(str, stated)) if isinstance(stated, list) else (stated,) if isinstance(stated, str) else ()


def user_name(file: Path) -> str:
    """UserName of a property list; empty if it has none, or cannot be read."""
    return str(read(file).get("UserName", ""))


def program(file: Path) -> str:
    """What a property list runs; empty if there is none, a question mark if it is a link or does not say."""
    if not os.path.lexists(file):
        return ""
    stated = {} if file.is_symlink() else read(file)
    words = stated.get("ProgramArguments")
    return str(stated.get("Program") or (words[0] if isinstance(words, list) and words else "?")).replace("\0", "?")


def of_label(label: str, folders: Iterable[Path]) -> tuple[Path, ...]:
    """The property lists of a label in these folders: those that say so, whatever their name, and the usual name."""
    files = (file for folder in dict.fromkeys(folders) for file in sorted(folder.glob("*.plist")))
    return tuple(file for file in files if file.name == f"{label}.plist" or read(file).get("Label") == label)
