"""Statements of channels: proofs, rollbacks, revocations, and what is carried over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolchain import proofs
from toolchain.core import extras, records
from toolchain.core.delivery_errors import (
    CannotVerify,
    NotPromotable,
    OlderSequence,
    ReleaseRevoked,
    SigningFailed,
    Tampered,
)
from toolchain.core.errors import ConfigError, MissingExtra
from toolchain.core.run import Run
from toolchain.publishing import promotion, publication, signature, statements, testresult
from toolchain.publishing.published import STATEMENT_NAMESPACE, Document, PublishedRelease

from .kills import copied
from .world import World, at, damage, publisher_of, stage

MAC = proofs.RanOn(platform="macos-arm64", system="macOS 26.1")


@pytest.fixture
def publisher(base: Path, tmp_path: Path) -> Run:
    """Without metadata of The Update Framework, which other tests look at."""
    copied(base, tmp_path / "world")
    return publisher_of(tmp_path / "world", **{"publish.tuf_keys": ""})


@pytest.fixture
def world(publisher: Run) -> World:
    return at(publisher.workspace.parent)


def prove(run: Run, identifier: str, tester: proofs.RanOn, *, ok: bool = True) -> None:
    """Add the signed result of a verification to a staged release."""
    folder = run.workspace / "packed" / identifier
    draft = records.read(folder / "release.json", PublishedRelease)
    verification = proofs.Verification(
        release=identifier, version="1", proofs=(), unknown_type_message="", ok=ok, seconds=1.0, ran_on=tester
    )
    predicate: dict[str, Any] = {
        **testresult.of_verification(verification, b"{}"), "result": "PASSED" if ok else "FAILED"
    }  # fmt: skip
    path = folder / statements.file_name("verification")
    path.write_bytes(statements.make(draft, "verification", predicate))
    signature.sign(path, Path(run.config.publish.key), STATEMENT_NAMESPACE)
    document = Document(name=path.name, size=path.stat().st_size, sha256=records.sha256_file(path))
    records.write(folder / "release.json", replace(draft, documents={**draft.documents, "verification": document}))


def published(run: Run, content: str, sequence: int, tester: proofs.RanOn, *, ok: bool = True) -> str:
    identifier = stage(run, content, sequence)
    prove(run, identifier, tester, ok=ok)
    publication.publish(run, identifier, None)
    return identifier


def test_stable_asks_for_a_proof_from_a_mac(publisher: Run) -> None:
    elsewhere = published(publisher, "elsewhere", 3, proofs.RanOn(platform="linux-x86_64", system="Debian"))
    failed = published(publisher, "failed", 4, MAC, ok=False)
    proven = published(publisher, "proven", 5, MAC)
    for identifier, said in ((elsewhere, "linux-x86_64"), (failed, "verification failed")):
        with pytest.raises(NotPromotable, match=said):
            promotion.promote(publisher, identifier)
        assert promotion.promote(publisher, identifier, name="beta").statements[0].without_proof == ""
    (forced,) = promotion.promote(publisher, elsewhere, without_proof="an emergency").statements
    assert forced.without_proof == "an emergency"
    issued = promotion.promote(publisher, proven)
    (statement,) = issued.statements
    assert (statement.release, statement.without_proof, statement.sequence) == (proven, "", forced.sequence + 1)
    assert issued.before == {"stable": elsewhere}


def test_a_rollback_is_a_new_sequence(publisher: Run, world: World) -> None:
    before = world.statement()
    (back,) = promotion.promote(publisher, world.older, without_proof="a rollback").statements
    assert (back.release, back.sequence) == (world.older, before.sequence + 1)
    history = sorted((world.publication.folder / "statements").glob("*/stable.json"))
    assert [records.read(path, type(back)).sequence for path in history][-2:] == [before.sequence, back.sequence]


def test_a_revoked_release_stays_revoked_in_every_channel(publisher: Run, world: World) -> None:
    promotion.revoke(publisher, world.older)
    (renewed, stable) = promotion.refresh(publisher).statements
    assert (renewed.revoked, stable.revoked) == ((world.older,), (world.older,))
    damage(world.archive(world.newer))
    (_, stable) = promotion.revoke(publisher, world.newer).statements
    assert stable.revoked == tuple(sorted((world.older, world.newer)))
    for name in ("stable", "beta", "nightly"):
        with pytest.raises(ReleaseRevoked):
            promotion.promote(publisher, world.older, name=name, without_proof="a test")


def test_the_floor_only_rises(publisher: Run, world: World) -> None:
    promotion.promote(publisher, world.newer, minimum_sequence=2, without_proof="a test")
    (kept,) = promotion.promote(publisher, world.newer, minimum_sequence=1, without_proof="a test").statements
    assert kept.minimum_sequence == 2
    with pytest.raises(OlderSequence, match="minimum"):
        promotion.promote(publisher, world.older, without_proof="a test")


def test_without_what_tuf_needs_no_statement_is_issued(
    publisher: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.statement().sequence
    gone = publisher_of(tmp_path / "world", **{"publish.tuf_keys": str(tmp_path / "gone")})
    with pytest.raises(SigningFailed, match=r"publish\.tuf_keys: .*gone: no such folder"):
        promotion.refresh(gone)
    monkeypatch.setattr(extras, "installed", tuple)
    with pytest.raises(MissingExtra):
        promotion.refresh(publisher_of(tmp_path / "world"))
    assert world.statement().sequence == before


def test_a_refresh_changes_sequence_and_times_alone(publisher: Run, world: World) -> None:
    before = {name: world.statement(name) for name in ("beta", "stable")}
    issued = promotion.refresh(publisher)
    for one in issued.statements:
        old = before[one.channel]
        assert one.sequence == old.sequence + 1
        assert replace(one, sequence=old.sequence, issued=old.issued, expires=old.expires) == old
    folder = publisher.workspace.parent
    promotion.refresh(publisher_of(folder))
    (folder / "keys/tuf/targets.pem").unlink()
    whole = publisher_of(folder, **{"publish.key": "", "publish.signers": ""})
    first, second = (promotion.refresh(whole, timestamp_only=True) for _ in range(2))
    assert (first.statements, second.tuf) == ((), first.tuf + 1)
    assert world.statement().sequence == before["stable"].sequence + 2


def test_nothing_is_carried_over_from_what_somebody_else_wrote(publisher: Run, world: World) -> None:
    path = world.publication.channel("stable")
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"minimum_sequence": 1', b'"minimum_sequence": 2'))
    for action in (promotion.refresh, lambda run: promotion.promote(run, world.newer, without_proof="a test")):
        with pytest.raises(Tampered):
            action(publisher)
    path.write_bytes(good)
    with pytest.raises(CannotVerify, match="not published"):
        promotion.promote(publisher, "unknown", name="beta")
    for name, reason in (("../beta", ""), ("Beta", ""), ("stable", "x" * 70_000)):
        with pytest.raises(ConfigError):
            promotion.promote(publisher, world.older, name=name, without_proof=reason)
    damage(world.archive())
    with pytest.raises(Tampered, match="tar"):
        promotion.promote(publisher, world.newer, name="beta")
    with pytest.raises(ConfigError):
        promotion.promote(publisher, "../older", name="beta")


def test_the_sequence_of_a_lost_statement_goes_on(publisher: Run, world: World) -> None:
    before = world.statement()
    for path in world.publication.channel("stable").resolve().parent.glob("stable.json*"):
        path.unlink()
    (after,) = promotion.promote(publisher, world.newer, without_proof="a test").statements
    assert after.sequence > before.sequence


def test_a_link_to_older_statements_repeats_no_sequence(publisher: Run, world: World) -> None:
    folder = world.publication.folder
    before = promotion.refresh(publisher).statements
    oldest = sorted((folder / "statements").iterdir())[0]
    (folder / "channels").unlink()
    (folder / "channels").symlink_to(oldest.relative_to(folder))
    sequences = {one.channel: one.sequence for one in before}
    for one in promotion.refresh(publisher).statements:
        assert one.sequence > sequences[one.channel]
