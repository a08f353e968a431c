"""Statements of channels: which release their Macs run. Each has a sequence of its own, which only grows.

`channels` in a publication is a link to the newest folder in statements/, so that a statement and its signature change
by one rename, and that all earlier ones stay as a record of who was told what.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..core import records, temporary
from ..core.delivery_errors import CannotVerify, DocumentInvalid, Tampered
from ..core.errors import ConfigError, FolderUnusable, RecordError
from . import published
from .publication import Publisher
from .published import Channel, Publication

LARGEST = 1 << 16
"""bytes of a statement"""
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_KEPT = ("*.json", "*.json.sig")


def stamp(when: datetime) -> str:
    """A time as statements have it."""
    return when.astimezone(UTC).strftime(_TIME)


def moment(text: str, name: str) -> datetime:
    """A time that a statement states. Raises `DocumentInvalid`."""
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError as error:
        raise DocumentInvalid(f"{name}: {text!r} is no time", hint="tell its publisher") from error


def checked_name(name: str) -> str:
    """The name of a channel, which becomes part of a path. Raises `ConfigError`."""
    if not published.is_channel_name(name):
        raise ConfigError(f"--channel {name!r}: expected small letters, digits and -", hint="--channel stable")
    return name


def names(publication: Publication) -> list[str]:
    """The channels that a publication has."""
    return sorted(path.stem for path in publication.channel("any").parent.glob("[a-z]*.json"))


def read(publisher: Publisher, name: str, path: Path | None = None) -> Channel:
    """A statement of the publication, verified, as nothing is taken over from one that somebody else wrote.

    `path` is that of an earlier one.

    Raises `CannotVerify` where there is none, and what `signature.verify` raises.
    """
    path = path or publisher.publication.channel(name)
    if not path.is_file():
        raise CannotVerify(f"{path}: there is no channel {name!r}", hint="./inv release.promote makes it")
    publisher.verify(path)
    try:
        found = records.read(path, Channel)
    except RecordError as error:
        raise DocumentInvalid(error.message, hint=error.hint) from error
    if found.channel != name:
        raise Tampered(f"{path}: it is of the channel {found.channel!r}", hint="restore the publication from a copy")
    return found


def reissued(statement: Channel, days: float) -> Channel:
    """The same with the next sequence, for `days` from now."""
    now = datetime.now(UTC)
    return replace(
        statement, sequence=statement.sequence + 1, issued=stamp(now), expires=stamp(now + timedelta(days=days))
    )


def issue(publisher: Publisher, statements: Mapping[str, Channel]) -> None:
    """Sign statements and make them those of their channels, all at once; other channels stay.

    Raises what signing raises, `ConfigError` for one that is too large, and `FolderUnusable` where `channels` is not
    the link that it has to be.
    """
    publication = publisher.publication
    link, history = publication.folder / "channels", publication.folder / "statements"
    if link.exists() and not link.is_symlink():
        raise FolderUnusable(
            f"{link}: a folder, where a link into {history} belongs", hint="copy publications with their links: cp -a"
        )
    records.make_folder(history)
    number = 1 + max((int(one.name) for one in history.iterdir() if one.name.isdecimal()), default=0)
    with temporary.folder("statements", within=publication.making) as private:
        made = private / "made"
        made.mkdir(0o755)
        made.chmod(0o755)
        for pattern in _KEPT:
            for path in link.glob(pattern):
                shutil.copyfile(path, made / path.name)
        for name, statement in statements.items():
            path = made / f"{name}.json"
            records.write(path, statement)
            if path.stat().st_size > LARGEST:
                raise ConfigError(
                    f"{name}: its statement would have more than {LARGEST} bytes, which clients refuse",
                    hint="a short reason; a minimum sequence instead of many revoked releases",
                )
            publisher.sign(path, published.CHANNEL_NAMESPACE)
        _flush(made)
        target = history / f"{number:06d}"
        made.rename(target)
        records.flush_directory(history)
        (private / "link").symlink_to(os.path.relpath(target, link.parent))
        os.replace(private / "link", link)
    records.flush_directory(publication.folder)


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o644)
        with path.open("rb") as file:
            records.flush_to_disk(file.fileno())
    records.flush_directory(folder)
