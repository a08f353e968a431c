"""`./inv release`: from a verified release to files that anyone can check."""

from __future__ import annotations

from pathlib import Path

from .. import pipeline
from ..build import find_release
from ..core.run import Run
from ..publishing import (
    attestation,
    checking,
    codesign,
    comparison,
    forge,
    keyrehearsal,
    keys,
    notary,
    packing,
    promotion,
    publication,
    rotation,
)
from ..publishing import notes as noting
from .command import Group
from .flags import Names

group = Group("release")

_RELEASE = "id or directory of a release; empty: the newest one built"


@group.task("workspace", release=_RELEASE)
def sign(run: Run, release: str = "") -> None:
    """Make a release whose Mach-O files are signed."""
    run.finish(codesign.sign(run, find_release(run, release)))


@group.task("workspace", release=_RELEASE)
def notarize(run: Run, release: str = "") -> None:
    """Have Apple's notary accept a signed release."""
    run.finish(notary.notarize(run, find_release(run, release)))


@group.task(
    "workspace",
    release=_RELEASE,
    sequence="its number among the publication's releases; 0: the next one",
    unverified="pack it even without a successful verification",
)
def pack(run: Run, release: str = "", sequence: int = 0, unverified: bool = False) -> None:
    """Stage a verified release for publication."""
    folder = find_release(run, release)
    found = pipeline.verification_of(run, folder)
    run.finish(packing.pack(run, folder, found, sequence=sequence, unverified=unverified))


@group.task(
    "workspace",
    release=f"{_RELEASE}; or a release.json",
    rebuild="the same, of what should be its rebuild",
)
def compare(run: Run, release: str, rebuild: str) -> None:
    """Compare a release with its rebuild."""
    run.finish(comparison.compare(_either(run, release), _either(run, rebuild)))


@group.task(
    name="keys",
    to="new folder for the keys that are in use",
    offline="new folder for the root keys of The Update Framework, on a medium that you take away",
    key="public half of an SSH key that an agent or a token holds; empty: a new key is made",
)
def make_keys(run: Run, to: str, offline: str, key: str = "") -> None:
    """Make the keys of a publication."""
    public = Path(key).expanduser().absolute() if key else None
    folder, away = (Path(name).expanduser().absolute() for name in (to, offline))
    run.finish(keys.make(run.console, folder, away, public))


@group.task(
    "workspace",
    release="id of a release that was packed",
    provisioner="file with the provisioner for Macs; empty: the toolkit's own",
)
def publish(run: Run, release: str, provisioner: str = "") -> None:
    """Sign and publish a packed release in a folder."""
    run.finish(publication.publish(run, release, publication.provisioner_text(provisioner)))


@group.task(
    "workspace",
    release="id of a published release",
    repo="owner/name of the repository at publish.forge; empty: publish.repository",
    tag="tag of the release there; empty: the id",
    target="commit or branch that the tag is made on; empty: the default branch",
    prerelease="mark it as one that is not ready for everybody",
)
def upload(run: Run, release: str, repo: str = "", tag: str = "", target: str = "", prerelease: bool = False) -> None:
    """Publish at a forge: draft, compare, publish."""
    run.finish(forge.upload(run, release, repo, tag=tag, target=target, prerelease=prerelease))


@group.task(
    "workspace",
    release="id of a published release",
    channel="channel; empty: the setting publish.channel",
    minimum_sequence="raise the channel's floor: Macs neither install nor go back to a release below; 0: as it is",
    without_proof="why stable may have a release that no test on a Mac proves",
)
def promote(run: Run, release: str, channel: str = "", minimum_sequence: int = 0, without_proof: str = "") -> None:
    """Have a channel name a published release."""
    run.finish(
        promotion.promote(run, release, name=channel, minimum_sequence=minimum_sequence, without_proof=without_proof)
    )


@group.task("workspace", release="id of a published release")
def revoke(run: Run, release: str) -> None:
    """Have every channel revoke a release."""
    run.finish(promotion.revoke(run, release))


@group.task("workspace", timestamp_only="renew only timestamp and snapshot of The Update Framework")
def refresh(run: Run, timestamp_only: bool = False) -> None:
    """Renew the statements of the channels."""
    run.finish(promotion.refresh(run, timestamp_only=timestamp_only))


@group.task(
    "workspace",
    place="folder or URL of a publication, of a release in it (releases/ID, or a release.json), or of a packed one",
    channel="channel of a publication; empty: the setting publish.channel",
    signers="allowed_signers file that is trusted; empty: the setting publish.signers",
    tuf_root="root.json of The Update Framework that is trusted; empty: verify by SSH signatures alone",
    unsigned="verify a packed release, which is signed when it is published",
)
def verify(
    run: Run, place: str, channel: str = "", signers: str = "", tuf_root: str = "", unsigned: bool = False
) -> None:
    """Verify a release or a channel as a client does."""
    named = signers or run.config.publish.signers
    revoked = run.config.publish.revoked
    trust = checking.Trust(
        signers=Path(named).expanduser() if named else None,
        revoked=Path(revoked).expanduser() if revoked else None,
        tuf_root=Path(tuf_root).expanduser() if tuf_root else None,
    )
    run.finish(checking.verify(run, place, trust, name=channel, unsigned=unsigned))


@group.task(
    "workspace",
    name="rotate-keys",
    role="signing, root (one that was lost), targets, snapshot or timestamp (repeatable, or with commas)",
    to="new folder for the new keys",
    offline="folder with the root keys of The Update Framework",
    key="for signing: the public half of a key that an agent or a token holds; empty: a new key is made",
)
def rotate_keys(run: Run, to: str, role: Names = Names(), offline: str = "", key: str = "") -> None:
    """Make new keys beside those in use."""
    away, public = (Path(name).expanduser().absolute() if name else None for name in (offline, key))
    run.finish(rotation.rotate(run, role, Path(to).expanduser().absolute(), away, public))


@group.task("workspace", retire="public key that is trusted no more, once everything is signed again")
def resign(run: Run, retire: str = "") -> None:
    """Sign a publication again, with another key."""
    run.finish(rotation.resign(run, Path(retire).expanduser() if retire else None))


@group.task("workspace", name="rehearse-keys")
def rehearse_keys(run: Run) -> None:
    """Rehearse new and lost keys on a copy."""
    run.finish(keyrehearsal.rehearse(run))


def _either(run: Run, named: str) -> Path:
    path = Path(named).expanduser()
    return path.absolute() if path.is_file() else find_release(run, named)


@group.task(
    "workspace",
    release=_RELEASE,
    validation="JSON file of a validation of this release",
    firstrun="archive of a first run on its sources",
)
def attest(run: Run, release: str = "", validation: str = "", firstrun: str = "") -> None:
    """Add bill of materials and signed statements."""
    run.finish(attestation.attest(run, release, validation, firstrun))


@group.task(
    "workspace",
    release=_RELEASE,
    since="id or directory of the release to compare with; empty: none",
    results="page of measured tables to take in (repeatable, or with commas)",
    changelog="file that gets an entry, as CHANGELOG.md; empty: none",
)
def notes(run: Run, release: str = "", since: str = "", results: Names = Names(), changelog: str = "") -> None:
    """Write what changed and what is not known."""
    run.finish(noting.write(run, release, since, results, changelog))
