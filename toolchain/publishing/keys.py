"""The publisher's keys: made once, never overwritten, readable by their owner alone.

One SSH key signs what Macs read. It is a file, or the public half of a key that ssh-agent or a hardware token holds.
The Update Framework has four roles with keys of their own; those of root stay offline, and two of its three are needed.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..core import extras, process, temporary
from ..core.console import Console
from ..core.delivery_errors import SigningFailed
from ..core.errors import ConfigError, reason
from ..core.records import record
from . import signature
from .keyfiles import COMMENT, ROOT_KEYS, generate, write_new
from .published import NAMESPACES, PRINCIPAL, RELEASE_NAMESPACE

SIGNERS = "allowed_signers"
REVOKED = "revoked_keys"
TUF = "tuf"
KEY = "signing"


@record
class Keys:
    """What `release.keys` made."""

    key: Path
    """for publish.key: the private key, or the public half of one that an agent or a token holds"""
    fingerprint: str
    signers: Path
    """for publish.signers, and for each Mac"""
    revoked: Path
    """for publish.revoked, and for each Mac: an empty list of keys that are trusted no more"""
    tuf_keys: Path
    """for publish.tuf_keys: the keys of targets, snapshot and timestamp"""
    tuf_root: Path
    """for clients with Python: the root that they trust first"""
    offline: Path
    """three root keys, two of which sign a new root: to be taken off this machine"""


def make(console: Console, folder: Path, offline: Path, public: Path | None = None) -> Keys:
    """Make all keys of a publication: those in use in `folder`, those of TUF's root in `offline`.

    `public` is the public half of an SSH key that exists; without it one is made. Raises `ConfigError` where there is
    a key already, `SigningFailed` when the key does not sign, `MissingExtra`.
    """
    extras.require("release", "a publication's keys")
    from . import tuf_repository

    if folder == offline or offline.is_relative_to(folder) or folder.is_relative_to(offline):
        raise ConfigError(f"{offline}: the root keys would lie with the others", hint="name another disk, or a token")
    wanted = [
        folder / KEY,
        folder / SIGNERS,
        folder / REVOKED,
        folder / TUF,
        *(offline / f"{name}.pem" for name in ROOT_KEYS),
    ]
    if found := next((path for path in wanted if os.path.lexists(path)), None):
        raise ConfigError(f"{found} exists, and a key is never overwritten", hint="name a new folder")
    for one in (folder, offline):
        one.mkdir(mode=0o700, parents=True, exist_ok=True)
        one.chmod(0o700)
    with console.step("making the keys"):
        key = public or generate(folder / KEY)
        line = signer_line(public_half(key), since=datetime.now(UTC) - timedelta(days=1))
        check(key, line)
        write_new(folder / SIGNERS, line.encode(), mode=0o644)
        write_new(folder / REVOKED, b"", mode=0o644)
        root = tuf_repository.create(folder / TUF, offline)
    return Keys(
        key=key,
        fingerprint=fingerprint(key),
        signers=folder / SIGNERS,
        revoked=folder / REVOKED,
        tuf_keys=folder / TUF,
        tuf_root=root,
        offline=offline,
    )


def public_half(key: Path) -> str:
    """Type and base64 of a key's public half: of `key` itself, or of `key`.pub. Raises `SigningFailed`."""
    path = key if key.suffix == ".pub" else key.with_name(f"{key.name}.pub")
    try:
        words = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise SigningFailed(f"{path}: no public key: {reason(error)}", hint="ssh-keygen -y -f KEY > KEY.pub") from error
    if len(words) < 2 or not words[0].startswith(("ssh-", "sk-ssh-", "ecdsa-", "sk-ecdsa-")):
        raise SigningFailed(f"{path}: not a public SSH key", hint="ssh-keygen -y -f KEY > KEY.pub")
    return " ".join(words[:2])


def signer_line(public: str, *, since: datetime | None = None, until: datetime | None = None) -> str:
    """A line of allowed_signers for a key, which may sign what a publication consists of, and nothing else.

    ssh-keygen compares dates with today in local time, whatever was signed when.
    """
    options = [f'namespaces="{",".join(NAMESPACES)}"']
    options += [f'valid-after="{since:%Y%m%d}"'] if since else []
    options += [f'valid-before="{until:%Y%m%d}"'] if until else []
    return f"{PRINCIPAL} {','.join(options)} {public} {COMMENT}\n"


def check(key: Path, signers: str) -> None:
    """Sign something with a key, and verify it with this text of allowed_signers. Raises `SigningFailed` and others."""
    with temporary.folder("key") as folder:
        (folder / SIGNERS).write_text(signers, encoding="utf-8")
        trial = folder / "trial"
        trial.write_bytes(b"trial\n")
        signature.sign(trial, key, RELEASE_NAMESPACE)
        signature.verify_file(trial, RELEASE_NAMESPACE, folder / SIGNERS)


def fingerprint(key: Path) -> str:
    """As ssh-keygen shows it: SHA256:..."""
    path = key if key.suffix == ".pub" else key.with_name(f"{key.name}.pub")
    words = process.capture(("ssh-keygen", "-l", "-E", "sha256", "-f", path), failure=SigningFailed).text.split()
    return words[1] if len(words) > 1 else ""
