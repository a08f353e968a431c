"""systemd's unit files: the service's own, and what those of a folder say.

The bytes of the service's change only with the configuration, never with the release. systemd would open a log as root,
and through a link that the service's user made; so a shell of that user opens it. The shell passes on HOME and PATH
alone: a user's systemd holds whatever a login left in its environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ...core import records
from ...core.errors import ConfigError
from ..manager import Definition

RESTART_S = 10
"""between the end of the program and its next start, as with launchd: the health check depends on it"""
STOP_S = 10
"""between SIGTERM and SIGKILL: Ollama ends its llama-server children in this time"""
SUFFIX = ".service"
_MAX_BYTES = 1 << 20
_CLEAN = "exec /usr/bin/env -i "
_SCRIPT = f"""{_CLEAN}"HOME=$HOME" "PATH=$PATH" /bin/sh -c 'exec "$1"' sh "$1" >>"$3" 2>&1"""
"""with a second shell, as env would take a path with = for a variable"""
_SHELL = ("/bin/sh", "-c", _SCRIPT, "sh")
_APPENDED = ">>"
"""the word between the program and the log: `show` prints words without quotes"""
_LOADED = re.compile(r"\{ path=(.*?) ; argv\[\]=(.*) ; ignore_errors=", re.DOTALL)
_OURS = re.compile(rf"/bin/sh -c {_CLEAN}.*? 2>&1 sh (.*?) {_APPENDED} ", re.DOTALL)
"""any version's script: a unit that is installed stays ours when the script changes"""
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|[0-7]{3}|.)", re.DOTALL)
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}
_WORD = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\\.|[^\s"'\\])+""", re.DOTALL)
_PART = re.compile(r""""((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'|((?:\\.|[^"'\\])+)""", re.DOTALL)


def render(definition: Definition, *, label: str, home: Path, user: str = "", wanted_by: str) -> bytes:
    """The unit file. `user` is the account of a system unit. The same arguments give the same bytes.

    Raises `ConfigError` for a path that a unit file cannot hold.
    """
    words = (*_SHELL, str(definition.program), _APPENDED, str(definition.log))
    if any(f" {_APPENDED} " in word for word in words[-3:]):
        raise ConfigError(f"the path {str(definition.program)!r} cannot be told from others in systemd's answers")
    command = (":" + words[0], *words[1:])  # with the colon $ is a character like others
    service = [
        "Type=simple",  # what ends at once is for the health check, and no refusal
        f"ExecStart={' '.join(map(_quoted, command))}",
        f"Environment={_quoted(f'HOME={home}')} {_quoted('PATH=/usr/bin:/bin:/usr/sbin:/sbin')}",
        *([f"User={user}"] if user else []),
        "UMask=0022",
        "Restart=always",
        f"RestartSec={RESTART_S}",
        "KillMode=mixed",
        f"TimeoutStopSec={STOP_S}",
        "NoNewPrivileges=yes",
    ]
    sections = {
        "Unit": [f"Description={label}", *(["After=network.target"] if user else []), "StartLimitIntervalSec=0"],
        "Service": service,
        "Install": [f"WantedBy={wanted_by}"],
    }
    return "\n".join(f"[{name}]\n{chr(10).join(lines)}\n" for name, lines in sections.items()).encode()


def probe(like: bytes) -> bytes:
    """The unit file of a job that ends at once, and is otherwise like the service's."""
    changed = {"Type": "oneshot", "ExecStart": "/bin/sh -c :", "Restart": "no"}
    lines = []
    for line in like.decode().partition("[Install]")[0].splitlines():
        key = line.partition("=")[0]
        lines.append(f"{key}={changed[key]}" if key in changed else line)
    return "\n".join([*lines, "TimeoutStartSec=2", ""]).encode()


def entries(data: bytes) -> dict[str, str]:
    """What a unit file says, as Service.Restart, its variables as Service.Environment.HOME; empty if it is none."""
    found: dict[str, str] = {}
    for key, value in _lines(data):
        if key == "Service.Environment":
            for one in words(value):
                name, _, text = one.partition("=")
                found[f"{key}.{name}"] = text
        elif key in found:
            found[key] += f"\n{value}"
        else:
            found[key] = value
    return found


def program(file: Path) -> str:
    """What a unit file runs; empty if there is no plain file, or it does not say."""
    if file.is_symlink():
        return ""
    return runs(entries(content(file)).get("Service.ExecStart", "").splitlines()[-1:])


def content(file: Path) -> bytes:
    """The bytes of a unit file, which may be anybody's; none if it cannot be read."""
    try:
        return records.read_bytes(file, limit=_MAX_BYTES)
    except OSError:
        return b""


def runs(commands: list[str]) -> str:
    """The program of an ExecStart: the one that our shell starts, or the command itself."""
    found = words(commands[0]) if commands else []
    if not found:
        return ""
    first = found[0].lstrip("@-:+!|")
    ours = _OURS.match(" ".join((first, *found[1:])))
    return ours[1] if ours else first


def runs_loaded(shown: str) -> str:
    """The same of ExecStart as `systemctl show` prints it."""
    found = _LOADED.search(shown)
    if not found:
        return ""
    path, argv = found.groups()
    ours = _OURS.match(argv)
    return ours[1] if ours else path


def words(text: str) -> list[str]:
    """The words of a value, as systemd.syntax(7) splits them, with %% for a percent sign."""
    return [
        "".join(_ESCAPE.sub(_escaped, double or single or bare) for double, single, bare in _PART.findall(word))
        .replace("%%", "%")
        for word in _WORD.findall(text)
    ]  # fmt: skip


def _escaped(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) == 3:
        return chr(int(code[1:], 16) if code[0] == "x" else int(code, 8))
    return _ESCAPED.get(code, code)


def _quoted(word: str) -> str:
    if not word.isprintable():
        raise ConfigError(f"the path {word!r} cannot be stored in a unit file")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _lines(data: bytes) -> Iterator[tuple[str, str]]:
    section, text = "", data.decode(errors="replace")
    for line in re.sub(r"\\\n[ \t]*", " ", text).splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line and section and line[0] not in "#;":
            key, _, value = line.partition("=")
            yield f"{section}.{key.strip()}", value.strip()


def in_folders(unit: str, folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files of that name, each real file once."""
    found = {os.path.realpath(path): path for folder in reversed(folders) if os.path.lexists(path := folder / unit)}
    return tuple(found.values())[::-1]


def drop_ins(unit: str, shown: str, folders: tuple[Path, ...]) -> dict[Path, tuple[str, ...]]:
    """The drop-ins of one unit alone, each with the names of what it sets.

    `shown` is DropInPaths of `systemctl show`, which is empty while the unit has no file; hence the `folders`, too.
    """
    known = (Path(f"{path}.conf") for path in shown.removesuffix(".conf").split(".conf ") if path)
    there = (path for folder in folders for path in sorted((folder / f"{unit}.d").glob("*.conf")))
    ours = (path for path in dict.fromkeys((*known, *there)) if path.parent.name == f"{unit}.d")
    return {path: tuple(entries(content(path))) for path in ours}
