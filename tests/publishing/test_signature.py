"""Signatures by ssh-keygen: each refusal has a reason of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.core.delivery_errors import (
    CannotVerify,
    KeyRevoked,
    SigningFailed,
    Tampered,
    UnknownKey,
    WrongNamespace,
)
from toolchain.publishing import published, signature
from toolchain.publishing.keyfiles import generate

RELEASE = published.RELEASE_NAMESPACE


def list_signer(path: Path, key: Path, options: str = f'namespaces="{RELEASE}"') -> Path:
    public = key.with_name(key.name + ".pub").read_text().strip()
    path.write_text(f"{published.PRINCIPAL} {options} {public}\n".replace("  ", " "))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed")
    for name in ("key", "other"):
        generate(folder / name)
    list_signer(folder / "signers", folder / "key")
    (folder / "file").write_bytes(b"content\n")
    signature.sign(folder / "file", folder / "key", RELEASE)
    return folder


def test_what_was_signed_verifies_and_tells_its_key(world: Path) -> None:
    found = signature.verify_file(world / "file", RELEASE, world / "signers")
    assert found in subprocess.run(["ssh-keygen", "-lf", world / "key.pub"], capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"data": b"Content\n"}, Tampered),
        ({"namespace": published.CHANNEL_NAMESPACE}, WrongNamespace),
        ({"signature": b"none"}, CannotVerify),
        ({"signers": "missing"}, CannotVerify),
        ({"options": f'namespaces="{published.CHANNEL_NAMESPACE}"'}, WrongNamespace),
        ({"options": 'valid-before="20200101"'}, KeyRevoked),
        ({"options": 'valid-after="20900101"'}, KeyRevoked),
        ({"key": "other"}, UnknownKey),
        ({"revoked": "key.pub"}, KeyRevoked),
    ],
)
def test_each_refusal_has_its_own_error(
    world: Path, tmp_path: Path, change: dict[str, str | bytes], expected: type[Exception]
) -> None:
    signers = list_signer(
        tmp_path / "signers", world / str(change.get("key", "key")), str(change.get("options", ""))
    ) if {"key", "options"} & set(change) else world / str(change.get("signers", "signers"))  # fmt: skip
    data, text = change.get("data", b"content\n"), change.get("signature", (world / "file.sig").read_bytes())
    assert isinstance(data, bytes)
    assert isinstance(text, bytes)
    with pytest.raises(expected, match="file:"):
        signature.verify(
            data, text, str(change.get("namespace", RELEASE)), signers, name="file:",
            revoked=world / "key.pub" if "revoked" in change else None,
        )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_damaged_signature_is_never_accepted(world: Path, data: st.DataObject) -> None:
    good = (world / "file.sig").read_bytes()
    at = data.draw(st.integers(0, len(good) - 2))
    bad = good[:at] + bytes([data.draw(st.integers(0, 255).filter(lambda one: one != good[at]))]) + good[at + 1 :]
    with pytest.raises((CannotVerify, Tampered, UnknownKey, WrongNamespace)):
        signature.verify(b"content\n", bad, RELEASE, world / "signers", name="file")


def test_a_key_with_a_passphrase_is_refused_without_a_question(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "key"], check=True)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SigningFailed, match="does not sign"):
        signature.sign(tmp_path / "file", tmp_path / "key", RELEASE)
