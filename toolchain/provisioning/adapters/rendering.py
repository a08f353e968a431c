"""All adapters by name, and their files in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ...core import records
from ...core.errors import ConfigError
from ...core.records import record
from . import agents, munki, packages, profiles
from .inputs import Inputs, check

ADAPTERS: dict[str, Callable[[Inputs], dict[str, bytes]]] = {
    "munki": munki.files,
    "jamf": agents.jamf,
    "kandji": agents.kandji,
    "pkg": packages.pkg,
    "mobileconfig": profiles.mobileconfig,
    "ddm": profiles.ddm,
    "ansible": agents.ansible,
    "homebrew": packages.homebrew,
    "autopkg": packages.autopkg,
}


@record
class AdapterFile:
    """A file that was rendered."""

    adapter: str
    path: str
    """relative to the folder"""
    sha256: str


@record
class Adapters:
    """What was rendered, and for which release."""

    folder: Path
    channel: str
    sequence: int
    release: str
    files: tuple[AdapterFile, ...]


def render(given: Inputs, only: Iterable[str] = ()) -> dict[str, dict[str, bytes]]:
    """The files of the adapters by their paths: the same inputs give the same bytes. Raises `ConfigError`."""
    names = tuple(only) or tuple(ADAPTERS)
    if unknown := [name for name in names if name not in ADAPTERS]:
        raise ConfigError(f"unknown adapter {unknown[0]!r}", hint=f"--only {','.join(ADAPTERS)}")
    checked = check(given)
    return {name: ADAPTERS[name](checked) for name in names}


def write(given: Inputs, folder: Path, only: Iterable[str] = ()) -> Adapters:
    """Render into a folder, each file in one step; other files in it stay. Raises `ConfigError`, `DiskFull`."""
    made = render(given, only)
    written = []
    for adapter, files in made.items():
        for name, data in files.items():
            records.write_bytes(folder / name, data, mode=0o755 if data.startswith(b"#!") else 0o644)
            written.append(AdapterFile(adapter=adapter, path=name, sha256=records.sha256_bytes(data)))
    return Adapters(
        folder=folder, channel=given.channel, sequence=given.sequence, release=given.release, files=tuple(written)
    )
