"""Signatures by ssh-keygen, which every Mac has: made and verified, with a reason for every refusal.

ssh-keygen ends with 255 whatever is wrong, so the reason is found step by step. The format is SSHSIG (OpenSSH's
PROTOCOL.sshsig): magic, version, public key, namespace.
"""

from __future__ import annotations

import base64
import binascii
import re
import shlex
import shutil
from pathlib import Path

from ..core import process, temporary
from ..core.delivery_errors import CannotVerify, KeyRevoked, SigningFailed, Tampered, UnknownKey, WrongNamespace
from ..core.errors import MissingTool
from ..core.records import read_bytes
from .published import PRINCIPAL, signature_of

_ARMOR = re.compile(r"-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)-----END SSH SIGNATURE-----\n?")
_MAGIC = b"SSHSIG\0\0\0\1"
_TIMEOUT_S = 60.0
_LARGEST = 1 << 16
"""bytes of a signature: RSA's of 16384 bits has a tenth"""


def sign(path: Path, key: Path, namespace: str) -> Path:
    """Sign a file, and return the file with the signature, which replaces an earlier one.

    `key` is a private key without a passphrase, or a public key whose private half an agent or a hardware token holds.
    Raises `SigningFailed`, `MissingTool`.
    """
    if not key.is_file():
        raise SigningFailed(f"{key}: there is no such key", hint="ssh-keygen -t ed25519 -f KEY, and set publish.key")
    done = process.capture(
        (tool(), "-Y", "sign", "-f", key, "-n", namespace, "-"),
        given=path.read_bytes(), env={"SSH_ASKPASS_REQUIRE": "never"}, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SigningFailed(
            f"{path}: {key} does not sign: {done.error_text.strip() or f'ssh-keygen ended with {done.returncode}'}",
            hint="a key without a passphrase, or the public half of one that ssh-agent or a hardware token holds",
        )
    target = signature_of(path)
    target.write_bytes(done.stdout)
    return target


def verify(
    data: bytes, signature: bytes, namespace: str, signers: Path, *, name: str, revoked: Path | None = None
) -> str:
    """Verify a signature over `data`, and return the fingerprint of its key.

    `signers` is an allowed_signers file, `revoked` a list of public keys; `name` is for messages. Raises
    `CannotVerify`, `WrongNamespace`, `Tampered`, `UnknownKey`, `KeyRevoked`, `MissingTool`.
    """
    key, found = _parsed(signature, name)
    if found != namespace:
        raise WrongNamespace(
            f"{name}: the signature is for {found!r}, not for {namespace!r}", hint="it was taken from another file"
        )
    for needed in (signers, *([revoked] if revoked else [])):
        if not needed.is_file():
            raise CannotVerify(
                f"{needed}: there is no such file, so {name} cannot be verified", hint="see publish.signers"
            )
    with temporary.folder("signature") as folder:
        file = folder / "signature"
        file.write_bytes(signature)
        checked = _ask(data, "check-novalidate", "-n", namespace, "-s", file)
        if checked.returncode != 0:
            raise Tampered(
                f"{name}: its content is not what was signed", hint="fetch it again; if it stays, tell its publisher"
            )
        if not _lists(signers, key):
            raise UnknownKey(
                f"{name}: signed by a key that {signers} does not list: {_fingerprint(checked)}",
                hint="take the publisher's keys from a place that you trust, not from the same server",
            )
        options = ("-f", signers, "-I", PRINCIPAL, "-n", namespace, "-s", file)
        trusted = _ask(data, "verify", *options)
        if trusted.returncode != 0:
            said = trusted.error_text.strip()
            if "namespace" in said:
                raise WrongNamespace(f"{name}: {signers} does not allow its key to sign {namespace!r}", hint=said)
            if "expired" in said or "not yet valid" in said:
                raise KeyRevoked(f"{name}: the key that signed it is not valid today", hint=said)
            raise UnknownKey(f"{name}: {signers} does not list its key for {PRINCIPAL}", hint=said)
        if revoked and _ask(data, "verify", *options, "-r", revoked).returncode != 0:
            raise KeyRevoked(
                f"{name}: signed by a key that was revoked: {_fingerprint(checked)}", hint=f"see {revoked}"
            )
    return _fingerprint(trusted)


def verify_file(path: Path, namespace: str, signers: Path, *, revoked: Path | None = None) -> str:
    """`verify` for a file with its signature beside it."""
    return read_verified(path, namespace, signers, revoked=revoked)[1]


def read_verified(
    path: Path, namespace: str, signers: Path, *, revoked: Path | None = None, limit: int = 64 << 20
) -> tuple[bytes, str]:
    """The content of such a file, of `limit` bytes at most, and the fingerprint of its key."""
    try:
        data, signature = read_bytes(path, limit=limit), read_bytes(signature_of(path))
    except OSError as error:
        raise CannotVerify(f"{error.filename}: {error.strerror}, so {path.name} cannot be verified") from error
    return data, verify(data, signature, namespace, signers, name=str(path), revoked=revoked)


def _parsed(signature: bytes, name: str) -> tuple[bytes, str]:
    """The public key and the namespace of a signature."""
    try:
        armored = _ARMOR.fullmatch(signature[:_LARGEST].decode("ascii"))
        raw = base64.b64decode(armored[1].replace("\n", ""), validate=True) if armored else b""
        if not raw.startswith(_MAGIC):
            raise ValueError
        key, rest = _string(raw[len(_MAGIC) :])
        namespace, _ = _string(rest)
        return key, namespace.decode()
    except (ValueError, binascii.Error) as error:
        raise CannotVerify(f"{name}: its signature is none of ssh-keygen's", hint="fetch it again") from error


def _string(raw: bytes) -> tuple[bytes, bytes]:
    """A string of SSH's wire format, and what comes behind it."""
    size = int.from_bytes(raw[:4], "big")
    if len(raw) < 4 + size:
        raise ValueError
    return raw[4 : 4 + size], raw[4 + size :]


def _lists(signers: Path, key: bytes) -> bool:
    text = base64.b64encode(key).decode()
    lines = signers.read_text(encoding="utf-8", errors="replace").splitlines()
    return any(text in shlex.split(line, comments=True, posix=False) for line in lines if line.count('"') % 2 == 0)


def _ask(data: bytes, verb: str, *options: str | Path) -> process.Captured:
    return process.capture((tool(), "-Y", verb, *options), given=data, timeout=_TIMEOUT_S, check=False)


def _fingerprint(done: process.Captured) -> str:
    found = re.search(r"SHA256:[A-Za-z0-9+/]+", done.text)
    return found[0] if found else "unknown"


def tool() -> str:
    """The path of ssh-keygen. Raises `MissingTool`."""
    if not (found := shutil.which("ssh-keygen")):
        raise MissingTool("ssh-keygen was not found", hint="install OpenSSH 8.1 or newer (Debian: openssh-client)")
    return found
