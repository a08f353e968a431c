"""Changing keys: a new SSH key beside the old one, everything signed by it, the old one revoked; new keys for TUF.

A Mac trusts what its own allowed_signers lists. So the new key goes there first (`announce`), then it signs
(`resign`), and then the old one goes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..core import extras, records, temporary
from ..core.delivery_errors import SigningFailed
from ..core.errors import ConfigError
from ..core.records import record
from ..core.run import Run
from . import channel as channels
from . import keyfiles, keys, published, signature
from .publication import Publisher, opened
from .published import signature_of

SIGNING, ROOT = "signing", "root"
ROLES = (SIGNING, ROOT, *keyfiles.ONLINE_ROLES)


@record
class Rotated:
    """Keys that were changed."""

    roles: tuple[str, ...]
    key: str = ""
    """for publish.key, once every Mac has the new allowed_signers"""
    signers: str = ""
    """allowed_signers, which lists the new key beside the old one: give it to each Mac"""
    tuf_keys: str = ""
    """for publish.tuf_keys, from now on"""
    root: int = 0
    """version of TUF's root"""


@record
class Resigned:
    """What was signed again with publish.key."""

    files: tuple[str, ...]
    key: str
    """fingerprint of the key that signs now"""
    revoked: str = ""
    """the list of revoked keys that has the old one: give it to each Mac"""
    tuf: int


def rotate(run: Run, roles: Collection[str], to: Path, offline: Path | None, public: Path | None = None) -> Rotated:
    """Make new keys in the new folder `to`: for signing, for roles of TUF, and for the one root key that was lost.

    `offline` has at least two root keys, and gets the new one. Raises `ConfigError`, `SigningFailed`, `MissingExtra`.
    """
    if not roles or not set(roles) <= set(ROLES):
        raise ConfigError(f"--role {' '.join(roles)}: expected some of {', '.join(ROLES)}", hint="--role targets")
    if to.exists() and any(to.iterdir()):
        raise ConfigError(f"{to} has files, and a key is never overwritten", hint="name a new folder")
    with opened(run) as publisher:
        of_tuf = [one for one in roles if one != SIGNING]
        change_tuf = _tuf_change(publisher, of_tuf, offline) if of_tuf else None
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
        done = Rotated(roles=tuple(roles))
        if SIGNING in roles:
            key = public or keyfiles.generate(to / keys.KEY)
            done = replace(done, key=str(key), signers=str(announce(publisher, key)))
        return change_tuf(to / keys.TUF, done) if change_tuf else done


def announce(publisher: Publisher, key: Path) -> Path:
    """List a new key in allowed_signers, beside those that are there; both are trusted then."""
    line = keys.signer_line(keys.public_half(key), since=datetime.now(UTC) - timedelta(days=1))
    keys.check(key, line)
    text = publisher.signers.read_text(encoding="utf-8")
    if keys.public_half(key) not in text:
        records.write_bytes(publisher.signers, f"{text.rstrip()}\n{line}".encode())
    records.write_bytes(publisher.publication.allowed_signers, publisher.signers.read_bytes())
    return publisher.signers


def resign(run: Run, retired: Path | None = None) -> Resigned:
    """Sign everything again with publish.key, and revoke the `retired` public key.

    What does not verify now is not signed. Raises `ConfigError` where there is no list for revoked keys, and the errors
    of `signature.verify`.
    """
    if retired and not run.config.publish.revoked:
        raise ConfigError("publish.revoked is not set, so no key can be revoked", hint="--set publish.revoked=FILE")
    gone = keys.public_half(retired) if retired else ""
    done = []
    with opened(run) as publisher:
        if gone and gone == keys.public_half(Path(run.config.publish.key).expanduser()):
            raise ConfigError(f"{retired}: the key that publish.key names", hint="set publish.key to the new key first")
        publication = publisher.publication
        for path in publication.release_files():
            done.append(_again(publisher, path, published.RELEASE_NAMESPACE))
            for statement in sorted(path.parent.glob("*.intoto.json")):
                done.append(_again(publisher, statement, published.STATEMENT_NAMESPACE))
        for path in (*publication.provisioners(), publication.provisioner):
            if path.is_file():
                done.append(_again(publisher, path, published.PROVISIONER_NAMESPACE))
        if names := channels.names(publication):
            days = run.config.publish.channel_days
            channels.issue(
                publisher, {one: channels.reissued(channels.read(publisher, one), days) for one in names}
            )  # fmt: skip
            done += [f"channels/{one}.json" for one in names]
        if gone:
            _revoke(publisher, gone)
        timestamp = publisher.synchronise()
    return Resigned(
        files=tuple(done), key=keys.fingerprint(Path(run.config.publish.key).expanduser()),
        revoked=run.config.publish.revoked if gone else "", tuf=timestamp,
    )  # fmt: skip


def _again(publisher: Publisher, path: Path, namespace: str) -> str:
    """Verify a file, and replace its signature at once."""
    signature.verify_file(path, namespace, publisher.signers, revoked=publisher.revoked)
    with temporary.folder("signature", within=publisher.publication.making) as private:
        copy = private / path.name
        shutil.copyfile(path, copy)
        publisher.sign(copy, namespace)
        records.write_bytes(signature_of(path), signature_of(copy).read_bytes())
    return path.relative_to(publisher.publication.folder).as_posix()


def _revoke(publisher: Publisher, public: str) -> None:
    """List a key as revoked, and in allowed_signers as not valid any more, for a Mac that gets only one of the two."""
    assert publisher.revoked is not None
    listed = publisher.revoked.read_text(encoding="utf-8") if publisher.revoked.is_file() else ""
    if public not in listed:
        records.write_bytes(publisher.revoked, f"{listed}{public} {keyfiles.COMMENT}\n".encode())
    over = keys.signer_line(public, until=datetime.now(UTC) - timedelta(days=1))
    lines = publisher.signers.read_text(encoding="utf-8").splitlines(keepends=True)
    records.write_bytes(publisher.signers, "".join(over if public in one else one for one in lines).encode())
    records.write_bytes(publisher.publication.allowed_signers, publisher.signers.read_bytes())


def _tuf_change(
    publisher: Publisher, roles: Collection[str], offline: Path | None
) -> Callable[[Path, Rotated], Rotated]:
    """Check that keys of TUF can be changed, and return what does it. Raises `ConfigError`, `SigningFailed`."""
    extras.require("release", "metadata of The Update Framework")
    from . import tuf_repository

    if offline is None or not publisher.config.tuf_keys:
        raise ConfigError("--offline and publish.tuf_keys are needed to change keys of TUF", hint="--offline FOLDER")
    before = Path(publisher.config.tuf_keys).expanduser()
    free = [name for name in keyfiles.ROOT_KEYS if not os.path.lexists(offline / f"{name}.pem")]
    if ROOT in roles and not free:
        raise ConfigError(f"{offline} has three root keys, and one can be replaced", hint="move it out of the folder")
    signers = tuf_repository.offline_signers(offline)
    if len(signers) < tuf_repository.THRESHOLD:
        raise SigningFailed(
            f"{offline}: a new root needs {tuf_repository.THRESHOLD} root keys, and it has {len(signers)}",
            hint="name the folder with at least two of them",
        )
    replaced = tuf_repository.lost_root_key(publisher.publication, signers) if ROOT in roles else ""
    kept = [name for name in keyfiles.ONLINE_ROLES if name not in roles]
    for name in kept:
        tuf_repository.signer_of(before / f"{name}.pem")

    def change(to: Path, done: Rotated) -> Rotated:
        to.mkdir(mode=0o700)
        new = {name: tuf_repository.new_key(to / f"{name}.pem") for name in keyfiles.ONLINE_ROLES if name in roles}
        for name in kept:
            keyfiles.write_new(to / f"{name}.pem", (before / f"{name}.pem").read_bytes())
        if ROOT in roles:
            new[ROOT] = tuf_repository.new_key(offline / f"{free[0]}.pem")
        keyfiles.write_new(to / keyfiles.ROOT_FILE, (before / keyfiles.ROOT_FILE).read_bytes(), mode=0o644)
        state = tuf_repository.rotate(
            publisher.publication, tuf_repository.offline_signers(offline), to, new, replaced
        )  # fmt: skip
        return replace(done, tuf_keys=str(to), root=state.root)

    return change
