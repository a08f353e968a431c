"""What `provision.adapters` renders: a publication as a channel states it, each part verified before it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from ..core import records
from ..core.delivery_errors import CannotVerify, Tampered
from ..core.errors import ConfigError, reason
from ..provisioning import desired
from ..provisioning.adapters.inputs import Inputs
from . import signature
from .published import (
    CHANNEL_NAMESPACE,
    PRINCIPAL,
    PROVISIONER_NAMESPACE,
    RELEASE_NAMESPACE,
    Channel,
    Publication,
    PublishedRelease,
    signature_of,
)

T = TypeVar("T")


def inputs(publication: Publication, channel: str, wanted: Path, signers: Path, revoked: Path | None = None) -> Inputs:
    """Read a publication's folder and a desired-state file.

    Raises `ConfigError`, `CannotVerify`, `Tampered` and what else `signature.verify` raises.
    """
    values = desired.parse(_text(wanted, "the desired-state file"), name=str(wanted))
    if values.setdefault("channel", channel) != channel:
        raise ConfigError(f"{wanted}: its channel is {values['channel']}, not {channel}", hint="--channel, or edit it")

    def verified(path: Path, namespace: str) -> bytes:
        data, signed = _read(path), _read(signature_of(path))
        signature.verify(data, signed, namespace, signers, name=str(path), revoked=revoked)
        return data

    statement = _decode(
        publication.channel(channel), verified(publication.channel(channel), CHANNEL_NAMESPACE), Channel
    )
    file = publication.release_file(statement.release)
    content = verified(file, RELEASE_NAMESPACE)
    _same(file, content, statement.release_sha256)
    release = _decode(file, content, PublishedRelease)
    provisioner = publication.provisioner_of(statement.tq_sha256)
    tq = verified(provisioner, PROVISIONER_NAMESPACE)
    _same(provisioner, tq, statement.tq_sha256)
    return Inputs(
        channel=channel,
        sequence=statement.sequence,
        release=release.id,
        version=release.version,
        min_macos=release.min_macos,
        platform=release.platform,
        tq=tq,
        tq_signature=_read(signature_of(provisioner)),
        tq_sha256=statement.tq_sha256,
        desired=values,
        signers=_text(signers, "publish.signers"),
        revoked=_text(revoked, "publish.revoked") if revoked else "",
        namespace=PROVISIONER_NAMESPACE,
        principal=PRINCIPAL,
    )


def _read(path: Path) -> bytes:
    try:
        return records.read_bytes(path)
    except OSError as error:
        raise CannotVerify(
            f"{path}: {error.strerror}", hint="publish and promote a release first, or see publish.folder"
        ) from error


def _text(path: Path, what: str) -> str:
    try:
        return records.read_bytes(path, limit=1 << 20).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {what} cannot be read: {reason(error)}", hint="name another file") from error


def _same(path: Path, data: bytes, digest: str) -> None:
    if records.sha256_bytes(data) != digest:
        raise Tampered(f"{path}: the channel's statement names another content", hint="promote the release again")


def _decode(path: Path, data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except records.UNREADABLE as error:
        raise CannotVerify(f"{path}: signed, but no {kind.__name__}: {error}", hint="update this toolkit") from error
