"""`release.rehearse-keys`: new keys and lost keys, on a copy of the publication with keys that live as long as it.

The steps are those of `release.rotate-keys` and `release.resign`. After each, clients that started before and after it
look at the copy: some must accept it, and an attacker who has an old key must be refused.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core import records, temporary
from ..core.delivery_errors import DriftFound
from ..core.errors import ConfigError, ToolchainError
from ..core.records import record
from ..core.run import Run
from . import channel as channels
from . import checking, keyfiles, keys, packing, published, rotation, signature
from .publication import opened
from .published import Publication

ACCEPTS = "accepts"
_AWAY = "tuf client, away since the start"


@record
class Answer:
    """What one client said after one step."""

    step: str
    client: str
    said: str
    """`accepts`, or the name of the error"""
    expected: str

    @property
    def ok(self) -> bool:
        """Whether it said what it should."""
        return self.said == self.expected


@record
class KeyRehearsal:
    """All answers, in order."""

    answers: tuple[Answer, ...]

    def failure(self) -> ToolchainError | None:
        """When a client accepted what it should not, or the other way round."""
        wrong = [one for one in self.answers if not one.ok]
        if not wrong:
            return None
        first = wrong[0]
        return DriftFound(
            f"{first.step}: {first.client} says {first.said}, and should say {first.expected}",
            hint="do not change keys before this is understood",
        )


@dataclass
class _Stage:
    """The copy, its keys, and the clients."""

    run: Run
    """of the publisher of the copy"""
    folder: Path
    channel: str
    answers: list[Answer] = field(default_factory=list)

    @property
    def publication(self) -> Publication:
        return packing.publication(self.run)

    def set(self, **settings: Any) -> None:
        """Change settings of the publisher."""
        self.run = replace(
            self.run, config=replace(self.run.config, publish=replace(self.run.config.publish, **settings))
        )

    def ask(self, step: str, client: str, expected: str = ACCEPTS, *, trusts: str = "first", tuf: bool = False) -> None:
        """Have a client look. Its name is that of its memory, `trusts` the state of its allowed_signers."""
        workspace = self.folder / "clients" / client.replace(" ", "-")
        run = replace(self.run, config=replace(self.run.config, workspace=str(workspace)))
        trust = checking.Trust(
            signers=self.folder / f"{trusts}-signers",
            revoked=self.folder / f"{trusts}-revoked",
            tuf_root=self.folder / "keys/tuf" / keyfiles.ROOT_FILE if tuf else None,
        )
        self._keep(
            step, client, expected,
            lambda: checking.verify(run, str(self.publication.folder), trust, name=self.channel, files=False),
        )  # fmt: skip

    def attempt(self, step: str, who: str, expected: str, action: Callable[[], object]) -> None:
        """Try something that must be refused."""
        self._keep(step, who, expected, action)

    def _keep(self, step: str, client: str, expected: str, action: Callable[[], object]) -> None:
        try:
            action()
            said = ACCEPTS
        except ToolchainError as error:
            said = type(error).__name__
        self.answers.append(Answer(step=step, client=client, said=said, expected=expected))

    def remember(self, name: str) -> None:
        """Keep the lists of keys as they are now, as what some clients have."""
        shutil.copyfile(self.run.config.publish.signers, self.folder / f"{name}-signers")
        shutil.copyfile(self.run.config.publish.revoked, self.folder / f"{name}-revoked")


def rehearse(run: Run) -> KeyRehearsal:
    """Rehearse on a copy of the publication, without its archives. Nothing of the publication or its keys is used up.

    Raises `ConfigError` where nothing is published yet.
    """
    original = packing.publication(run)
    names = channels.names(original)
    if not names:
        raise ConfigError(f"{original.folder}: it has no channel to rehearse with", hint="./inv release.promote")
    with temporary.folder("rehearsal") as folder, run.console.step("rehearse new and lost keys"):
        stage = _Stage(run, folder, names[0])
        _begin(stage, original, names)
        _rotate_online_keys(stage)
        _lose_a_root_key(stage)
        _change_the_signing_key(stage)
    return KeyRehearsal(answers=tuple(stage.answers))


def _begin(stage: _Stage, original: Publication, names: list[str]) -> None:
    """The copy, signed with new keys, and clients that have seen it."""
    made = keys.make(stage.run.console, stage.folder / "keys", stage.folder / "offline")
    stage.set(
        folder=str(stage.folder / "publication"), key=str(made.key), signers=str(made.signers),
        revoked=str(made.revoked), tuf_keys=str(made.tuf_keys),
    )  # fmt: skip
    copy = stage.publication
    with opened(stage.run) as publisher:
        for path in original.release_files():
            publisher.sign(_copied(path, original, copy), published.RELEASE_NAMESPACE)
        for path in original.provisioners():
            publisher.sign(_copied(path, original, copy), published.PROVISIONER_NAMESPACE)
        read = {name: records.read(original.channel(name), published.Channel) for name in names}
        channels.issue(publisher, {name: channels.reissued(one, 30.0) for name, one in read.items()})
        publisher.synchronise()
    stage.remember("first")
    for client in ("ssh client", "tuf client", _AWAY):
        stage.ask("at the start", client, tuf=client.startswith("tuf"))


def _copied(path: Path, original: Publication, copy: Publication) -> Path:
    target = copy.folder / path.relative_to(original.folder)
    records.write_bytes(target, path.read_bytes())
    return target


def _rotate_online_keys(stage: _Stage) -> None:
    step = "new keys for targets and timestamp"
    old = Path(stage.run.config.publish.tuf_keys)
    done = rotation.rotate(stage.run, ("targets", "timestamp"), stage.folder / "second", stage.folder / "offline")
    stage.set(tuf_keys=done.tuf_keys)
    stage.ask(step, "tuf client", tuf=True)
    stage.ask(step, "tuf client, new", tuf=True)
    from . import tuf_repository

    whole = stage.folder / "before-attack"
    shutil.copytree(stage.publication.tuf, whole)
    repository = tuf_repository.Repository(stage.publication)
    _, _, timestamp = repository.current()
    timestamp.signed.version += 1
    timestamp.signatures.clear()
    timestamp.sign(tuf_repository.signer_of(old / "timestamp.pem"))
    repository.write_versioned(timestamp)
    stage.ask(f"{step}; the old one signs", "tuf client", "Tampered", tuf=True)
    shutil.rmtree(stage.publication.tuf)
    whole.rename(stage.publication.tuf)
    with opened(stage.run) as publisher:
        stage.attempt(
            f"{step}; the old folder of keys", "publisher", "SigningFailed",
            lambda: tuf_repository.synchronise(stage.publication, old, publisher.verify),
        )  # fmt: skip


def _lose_a_root_key(stage: _Stage) -> None:
    step = "a root key is lost, the other two make a new one"
    offline = stage.folder / "offline"
    (offline / "root-2.pem").unlink()
    done = rotation.rotate(stage.run, (rotation.ROOT,), stage.folder / "third", offline)
    stage.set(tuf_keys=done.tuf_keys)
    stage.ask(step, "tuf client", tuf=True)
    stage.ask(step, _AWAY, tuf=True)
    for name in ("root-1.pem", "root-2.pem"):
        (offline / name).rename(stage.folder / name)
    stage.attempt(
        "two root keys are lost", "publisher", "SigningFailed",
        lambda: rotation.rotate(stage.run, (rotation.ROOT,), stage.folder / "fourth", offline),
    )  # fmt: skip
    for name in ("root-1.pem", "root-2.pem"):
        (stage.folder / name).rename(offline / name)


def _change_the_signing_key(stage: _Stage) -> None:
    old = Path(stage.run.config.publish.key)
    done = rotation.rotate(stage.run, (rotation.SIGNING,), stage.folder / "fifth", None)
    stage.remember("both")
    stage.ask("a new SSH key is listed, the old one signs", "ssh client")
    stage.ask("a new SSH key is listed, the old one signs", "ssh client with the new list", trusts="both")
    stage.set(key=done.key)
    rotation.resign(stage.run, old.with_name(f"{old.name}.pub"))
    stage.remember("new")
    step = "the new SSH key signs, the old one is revoked"
    stage.ask(step, "ssh client", "UnknownKey")
    stage.ask(step, "ssh client with the new list", trusts="both")
    stage.ask(step, "ssh client with new and revoked list", trusts="new")
    stage.ask(step, "tuf client", tuf=True, trusts="new")
    stage.attempt(
        "the publisher goes on with the revoked key", "publisher", "KeyRevoked",
        lambda: _publish_with(stage, old),
    )  # fmt: skip
    path = stage.publication.channel(stage.channel)
    statement = records.read(path, published.Channel)
    records.write(path, replace(statement, sequence=statement.sequence + 1))
    signature.sign(path, old, published.CHANNEL_NAMESPACE)
    step = "an attacker signs with the revoked key"
    stage.ask(step, "ssh client with the new list", ACCEPTS, trusts="both")
    stage.ask(step, "ssh client with new and revoked list", "KeyRevoked", trusts="new")


def _publish_with(stage: _Stage, key: Path) -> None:
    with opened(replace(stage.run, config=replace(
        stage.run.config, publish=replace(stage.run.config.publish, key=str(key))
    ))) as publisher:  # fmt: skip
        channels.issue(publisher, {stage.channel: channels.read(publisher, stage.channel)})
