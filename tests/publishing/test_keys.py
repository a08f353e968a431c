"""Keys: made once, for their owner alone, in a file or in an agent; changed as the rehearsal shows."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolchain.core.console import Console
from toolchain.core.delivery_errors import SigningFailed, WrongNamespace
from toolchain.core.errors import ConfigError
from toolchain.publishing import keyfiles, keyrehearsal, keys, published, rotation, signature
from toolchain.publishing.keyfiles import generate

from .kills import copied


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A real ssh-agent with a key whose private half is nowhere else; the public half."""
    key, socket = generate(tmp_path / "held"), tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            assert process.poll() is None
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        subprocess.run(["ssh-add", "-q", key], check=True)
        key.unlink()
        yield key.with_name("held.pub")
    finally:
        process.terminate()
        process.wait()


def test_keys_are_for_their_owner_and_for_what_they_are_made_for(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        made = keys.make(Console(json=True), tmp_path / "keys", tmp_path / "offline")
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    public = {"signing.pub", "allowed_signers", "revoked_keys", "root.json"}
    assert {name for name, mode in modes.items() if mode != 0o600} == public
    assert {made.key.parent.stat().st_mode & 0o777, made.offline.stat().st_mode & 0o777} == {0o700}
    assert {path.name for path in made.offline.iterdir()} == {f"{name}.pem" for name in keyfiles.ROOT_KEYS}
    assert not (tmp_path / "keys/.making").exists()
    file = tmp_path / "file"
    file.write_text("content")
    signature.sign(file, made.key, "git")
    with pytest.raises(WrongNamespace):
        signature.verify_file(file, "git", made.signers)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for folder, offline in (("keys", "elsewhere"), ("elsewhere", "offline"), ("new", "new/inside")):
        with pytest.raises(ConfigError):
            keys.make(Console(json=True), tmp_path / folder, tmp_path / offline)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_agent_signs_with_the_public_half_alone(
    agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = keys.make(Console(json=True), tmp_path / "keys", tmp_path / "offline", agent)
    assert made.key == agent
    file = tmp_path / "file"
    file.write_text("content")
    signature.sign(file, made.key, published.RELEASE_NAMESPACE)
    assert signature.verify_file(file, published.RELEASE_NAMESPACE, made.signers) == made.fingerprint
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(SigningFailed):
        keys.make(Console(json=True), tmp_path / "more", tmp_path / "away", agent)
    assert not (tmp_path / "more/allowed_signers").exists()


@pytest.mark.slow
def test_the_rehearsal_of_new_and_lost_keys(base: Path, tmp_path: Path) -> None:
    world, run = copied(base, tmp_path / "world")
    before = {path: path.read_bytes() for path in world.publication.folder.rglob("*") if path.is_file()}
    found = keyrehearsal.rehearse(run)
    assert found.failure() is None, found
    said = {one.said for one in found.answers}
    assert said == {"accepts", "Tampered", "SigningFailed", "UnknownKey", "KeyRevoked"}
    assert {path: path.read_bytes() for path in world.publication.folder.rglob("*") if path.is_file()} == before


def test_keys_are_not_changed_by_halves(base: Path, tmp_path: Path) -> None:
    _, run = copied(base, tmp_path / "world")
    offline = tmp_path / "world/offline"
    for roles, where, said in (
        (("other",), offline, "expected some of"),
        (("targets",), None, "--offline"),
        (("root",), offline, "one can be replaced"),
        (("targets",), tmp_path / "nowhere", "needs 2 root keys"),
    ):
        with pytest.raises((ConfigError, SigningFailed), match=said):
            rotation.rotate(run, roles, tmp_path / "new", where)
    assert not (tmp_path / "new").exists()
    assert len(list((tmp_path / "world/publication/tuf/metadata").glob("*.root.json"))) == 1
    with pytest.raises(ConfigError, match=r"publish\.key names"):
        rotation.resign(run, tmp_path / "world/keys/signing.pub")
