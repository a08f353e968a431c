"""Publishing into a folder: checked, signed, at once or not at all, and only once."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from toolchain.core import records
from toolchain.core.delivery_errors import (
    AlreadyPublished,
    CannotVerify,
    DriftFound,
    KeyRevoked,
    OlderSequence,
    SigningFailed,
    Tampered,
)
from toolchain.core.errors import ReleaseInvalid, ToolchainError
from toolchain.core.run import Run
from toolchain.publishing import checking, publication, published
from toolchain.publishing.published import PublishedRelease

from .kills import copied, is_valid, killed, steps
from .world import at, damage, publisher_of, stage

PROVISIONER = b"#!/bin/sh\necho newer provisioner\n"


@pytest.fixture
def publisher(base: Path, tmp_path: Path) -> Run:
    return copied(base, tmp_path / "world")[1]


def draft(run: Run, identifier: str) -> Path:
    return run.workspace / "packed" / identifier / published.RELEASE_FILE


def restate(run: Run, identifier: str, **changes: object) -> None:
    path = draft(run, identifier)
    records.write(path, replace(records.read(path, PublishedRelease), **changes))  # type: ignore[arg-type]


def test_a_release_appears_once_with_all_that_it_lists(publisher: Run, tmp_path: Path) -> None:
    identifier = stage(publisher, "newest", 3)
    staged = str(draft(publisher, identifier).parent)
    trust = checking.Trust(signers=Path(publisher.config.publish.signers))
    assert checking.verify(publisher, staged, trust, unsigned=True).kind == "packed"
    with pytest.raises(CannotVerify, match="not signed"):
        checking.verify(publisher, staged, trust)
    done = publication.publish(publisher, identifier, PROVISIONER)
    assert done.new
    assert {path.name for path in done.folder.iterdir()} == {
        f"{identifier}.tar.gz", "probe.gguf", "release.json", "release.json.sig"
    }  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in done.folder.iterdir()} == {0o644}
    before = {path: path.read_bytes() for path in done.folder.iterdir()}
    again = publication.publish(publisher, identifier, PROVISIONER)
    assert (again.new, again.key, again.provisioner) == (False, done.key, done.provisioner)
    assert {path: path.read_bytes() for path in done.folder.iterdir()} == before
    assert (done.folder.parent.parent / "tq").read_bytes() == PROVISIONER
    assert again.tuf > done.tuf > 0
    assert is_valid(at(tmp_path / "world"), tmp_path / "client") != identifier


def _other_content(run: Run, identifier: str) -> None:
    restate(run, identifier, min_macos="14.0")


def _drift(run: Run, identifier: str) -> None:
    damage(Path(run.config.publish.folder) / "releases" / identifier / "probe.gguf")


def _link(run: Run, _identifier: str) -> None:
    probe = draft(run, at(run.workspace.parent).newer).with_name("probe.gguf")
    probe.rename(probe.with_name("elsewhere"))
    probe.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_other_content, AlreadyPublished),
        (_drift, DriftFound),
        (_link, Tampered),
        (lambda run, identifier: damage(draft(run, identifier).with_name("probe.gguf")), Tampered),
        (lambda run, identifier: restate(run, identifier, id="another"), ReleaseInvalid),
    ],
)  # fmt: skip
def test_what_was_published_does_not_change(
    publisher: Run, change: Callable[[Run, str], None], expected: type[ToolchainError]
) -> None:
    identifier = at(publisher.workspace.parent).newer
    path = Path(publisher.config.publish.folder) / "releases" / identifier / "release.json"
    before = path.read_bytes()
    change(publisher, identifier)
    with pytest.raises(expected):
        publication.publish(publisher, identifier, None)
    assert path.read_bytes() == before


def test_a_sequence_has_to_grow(publisher: Run) -> None:
    identifier = stage(publisher, "newest", 2)
    with pytest.raises(OlderSequence, match="not above"):
        publication.publish(publisher, identifier, None)
    assert not (Path(publisher.config.publish.folder) / "releases" / identifier).exists()


def test_a_key_that_clients_would_refuse_publishes_nothing(publisher: Run, tmp_path: Path) -> None:
    identifier = stage(publisher, "newest", 3)
    target = Path(publisher.config.publish.folder) / "releases" / identifier
    Path(publisher.config.publish.revoked).write_text((tmp_path / "world/keys/signing.pub").read_text())
    with pytest.raises(KeyRevoked):
        publication.publish(publisher, identifier, None)
    with pytest.raises(SigningFailed, match=r"publish\.key"):
        publication.publish(publisher_of(tmp_path / "world", **{"publish.key": ""}), identifier, None)
    assert not target.exists()


def test_of_two_publishers_at_once_one_does_it(publisher: Run) -> None:
    identifier = stage(publisher, "newest", 3)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: publication.publish(publisher, identifier, PROVISIONER), range(2)))
    assert sorted(one.new for one in done) == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize(("title", "changes"), [("publish", 80), ("promote", 60), ("refresh", 60)])
def test_what_is_killed_leaves_the_publication_valid(base: Path, tmp_path: Path, title: str, changes: int) -> None:
    """All moments: python -m tests.publishing.kills."""
    world, run = copied(base, tmp_path / "world")
    step = steps(world, stage(run, "newest", 3))[title]
    assert killed(run, step, random.Random(title).randrange(10, changes))
    found = is_valid(world, tmp_path / "client")
    step(run)
    assert is_valid(world, tmp_path / "client") == (world.older if title == "promote" else found)
