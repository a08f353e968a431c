"""Releases that are signed, notarized, packed and compared."""

from __future__ import annotations

from ..publishing.codesign import Signed
from ..publishing.comparison import Comparison
from ..publishing.notary import Notarized
from ..publishing.packing import Packed
from .dispatch import as_text


@as_text.register
def _signed(result: Signed) -> str:
    """What was signed, and the new release."""
    if not result.files:
        return f"{result.release}: nothing to sign"
    lines = [f"{result.release}: {len(result.files)} files signed ({result.signing}, {result.tool}), of {result.of}"]
    after = {one.name: f", built {one.built[:16]}, signed {one.signed[:16]}" for one in result.digests}
    unsigned = result.unsigned
    return "\n".join(
        [*lines, *(f"  {name:<32} unsigned {unsigned[name][:16]}{after.get(name, '')}" for name in result.files)]
    )


@as_text.register
def _notarized(answer: Notarized) -> str:
    """The answer."""
    lines = [f"{answer.release}: {answer.status} by Apple's notary, submission {answer.submission}"]
    return "\n".join([*lines, *(f"  {issue}" for issue in answer.issues)])


@as_text.register
def _packed(packed: Packed) -> str:
    """The staged files with their sizes and digests."""
    release = packed.release
    how = f"signing: {release.signing}{', notarized' if release.notarized else ''}"
    mac = f", macOS {release.min_macos} or newer" if release.min_macos else ""
    rows = [(release.archive.name, release.archive.size, release.archive.sha256)]
    rows += [(one.name, one.size, one.sha256) for one in release.documents.values()]
    return "\n".join(
        [
            f"{release.id}: sequence {release.sequence}, {release.platform}{mac}, {how}"
            + ("" if packed.new else "; packed before, nothing changed"),
            *(f"  {size:>12} {digest[:16]} {name}" for name, size, digest in rows),
            f"  {release.archive.tar_size:>12} {release.archive.tar_sha256[:16]} the tar in it",
            f"folder    {packed.folder}",
        ]
    )


@as_text.register
def _comparison(found: Comparison) -> str:
    """Whether they are equal, else what differs."""
    if found.equal:
        signatures = "the same signatures" if found.identical else "other signatures"
        return f"{found.new}: the same {found.files} files as {found.old}, with {signatures}"
    return "\n".join(
        [f"{found.new} differs from {found.old}:", *(f"  {one.change:<8} {one.what}" for one in found.differences)]
    )
