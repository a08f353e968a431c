"""Publications: keys, releases, channels, and what a client finds."""

from __future__ import annotations

from ..publishing.checking import Verified
from ..publishing.keyrehearsal import KeyRehearsal
from ..publishing.keys import Keys
from ..publishing.promotion import Issued
from ..publishing.publication import Published
from ..publishing.rotation import Resigned, Rotated
from .dispatch import as_text


@as_text.register
def _keys(made: Keys) -> str:
    """Where they are, and the settings that name them."""
    return "\n".join(
        [
            f"key       {made.key}  ({made.fingerprint})",
            f"signers   {made.signers}, and beside it {made.revoked.name}: give both to each Mac",
            f"root      {made.tuf_root}: give it to clients with Python",
            f"offline   {made.offline}: take this folder off this machine, with a copy elsewhere",
            "publish:",
            f"  key: {made.key}",
            f"  signers: {made.signers}",
            f"  revoked: {made.revoked}",
            f"  tuf_keys: {made.tuf_keys}",
        ]
    )


@as_text.register
def _published(done: Published) -> str:
    """What is where."""
    how = "published" if done.new else "was published before"
    lines = [f"{done.release}: {how}, sequence {done.sequence}, in {done.folder}", f"  signed by {done.key}"]
    lines += [f"  provisioner {done.provisioner}"] if done.provisioner else []
    lines += [f"  TUF timestamp {done.tuf}"] if done.tuf else []
    return "\n".join(lines)


@as_text.register
def _issued(issued: Issued) -> str:
    """A line for each channel."""
    lines = []
    for one in issued.statements:
        before = issued.before.get(one.channel, "")
        change = f", before {before}" if before and before != one.release else ""
        lines.append(
            f"{one.channel}: sequence {one.sequence}, {one.release}{change}, minimum {one.minimum_sequence}, "
            f"expires {one.expires}"
        )
        lines += [f"  revoked: {', '.join(one.revoked)}"] if one.revoked else []
        lines += [f"  without a proof from a Mac: {one.without_proof}"] if one.without_proof else []
    lines += [f"TUF timestamp {issued.tuf}"] if issued.tuf else []
    return "\n".join(lines)


@as_text.register
def _rotated(done: Rotated) -> str:
    """What to do with the new keys."""
    lines = [f"new keys: {', '.join(done.roles)}"]
    if done.key:
        lines.append(f"  give {done.signers} to each Mac; then set publish.key to {done.key}, and ./inv release.resign")
    lines += [f"  set publish.tuf_keys to {done.tuf_keys} (root {done.root})"] if done.tuf_keys else []
    return "\n".join(lines)


@as_text.register
def _resigned(done: Resigned) -> str:
    """What was signed."""
    lines = [f"{len(done.files)} files signed by {done.key}", *(f"  {name}" for name in done.files)]
    return "\n".join(lines + ([f"  give {done.revoked} to each Mac"] if done.revoked else []))


@as_text.register
def _rehearsed(rehearsal: KeyRehearsal) -> str:
    """A line for each client."""
    width = max(len(one.client) for one in rehearsal.answers)
    lines = []
    for one in rehearsal.answers:
        verdict = "ok" if one.ok else f"WRONG, expected {one.expected}"
        lines.append(f"{one.step:<62} {one.client:<{width}}  {one.said:<16} {verdict}")
    return "\n".join(lines)


@as_text.register
def _verified(checked: Verified) -> str:
    """What was checked, in order."""
    what = f"{checked.channel} of {checked.where}" if checked.channel else checked.where
    lines = [f"{what}: {checked.release}, version {checked.version}, sequence {checked.sequence}: all in order"]
    return "\n".join(lines + [f"  {point.what:<28} {point.found}" for point in checked.points])
