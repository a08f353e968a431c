"""Attacks on a channel, for every client: what is done to the publication, and what the client must say.

`ATTACKS` is used with `release.verify` here, and with the provisioner in tests/provisioning. A client gets a world of
its own (`World.copy`), which `prepare` changes; then the folder is served with the `Behaviour` that it returns. Where
`seen_before` is set, the client has first to see the untouched publication. It must end with the word, and install
nothing.

    python -m tests.publishing.attacks      runs all of them against release.verify, and prints a table
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import random
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from toolchain.core import delivery_errors as errors
from toolchain.core import records
from toolchain.core.errors import ToolchainError
from toolchain.publishing import checking, published, signature
from toolchain.publishing.channel import stamp
from toolchain.publishing.published import signature_of

from .server import Behaviour, serving
from .world import World, damage, list_key, make, run_in

Word = Literal[
    "tampered", "cannot-verify", "unknown-key", "key-revoked", "wrong-namespace", "channel-expired", "older-sequence",
    "clock-wrong", "release-revoked", "below-minimum", "unsafe-archive", "network", "malformed",
]  # fmt: skip

CODES: dict[Word, tuple[int, type[ToolchainError]]] = {
    "tampered": (30, errors.Tampered),
    "cannot-verify": (31, errors.CannotVerify),
    "unknown-key": (32, errors.UnknownKey),
    "key-revoked": (33, errors.KeyRevoked),
    "wrong-namespace": (34, errors.WrongNamespace),
    "channel-expired": (35, errors.ChannelExpired),
    "older-sequence": (36, errors.OlderSequence),
    "clock-wrong": (37, errors.ClockWrong),
    "release-revoked": (38, errors.ReleaseRevoked),
    "below-minimum": (38, errors.OlderSequence),
    "unsafe-archive": (39, errors.ArchiveUnsafe),
    "network": (40, errors.ForgeUnavailable),
    "malformed": (30, errors.DocumentInvalid),
}
"""word -> the provisioner's exit code, and the error of `release.verify`"""


@dataclass(frozen=True)
class Attack:
    """One attack. `World.copy` first, then `prepare`, then serve."""

    name: str
    word: Word
    change: Callable[[World], Behaviour | None]
    seen_before: bool = False
    """the client has to accept the untouched publication first"""
    fetches_provisioner: bool = False
    """the provisioner's own client meets it only where it is another one than the channel names"""
    documents: bool = False
    """on a document that only release.verify reads"""

    @property
    def code(self) -> int:
        """The provisioner's exit code."""
        return CODES[self.word][0]

    @property
    def error(self) -> type[ToolchainError]:
        """The error of release.verify."""
        return CODES[self.word][1]

    def prepare(self, world: World) -> Behaviour:
        """Change a world, and say how its server has to behave."""
        return self.change(world) or Behaviour()


@dataclass
class Attacks:
    """Collects the attacks below."""

    found: list[Attack] = field(default_factory=list)

    def __call__(
        self, name: str, word: Word, *, seen_before: bool = False, provisioner: bool = False, documents: bool = False
    ) -> Callable[[Callable[[World], Behaviour | None]], None]:
        """Decorator of a function that changes a world."""

        def keep(change: Callable[[World], Behaviour | None]) -> None:
            self.found.append(
                Attack(
                    name, word, change, seen_before=seen_before, fetches_provisioner=provisioner, documents=documents
                )
            )

        return keep


attack = Attacks()

# -- the archive -----------------------------------------------------------------------------------


@attack("a byte of the archive is changed", "tampered")
def _(world: World) -> None:
    damage(world.archive(), at=0.7)


@attack("the archive of another release", "tampered")
def _(world: World) -> None:
    shutil.copy(world.archive(world.older), world.archive())


@attack("the archive is shorter on the server", "tampered")
def _(world: World) -> None:
    path = world.archive()
    path.write_bytes(path.read_bytes()[:-100])


attack("the archive never ends", "tampered")(lambda _: Behaviour(endless=".tar.gz"))
attack("the archive comes a byte a second", "network")(lambda _: Behaviour(slow=".tar.gz"))


@attack("the archive is cut off at a random byte", "network")
def _(world: World) -> Behaviour:
    return Behaviour(cut=".tar.gz", cut_at=random.randrange(world.archive().stat().st_size))


# -- release.json ----------------------------------------------------------------------------------


@attack("a byte of release.json is changed", "tampered")
def _(world: World) -> None:
    path = world.publication.release_file(world.newer)
    path.write_bytes(path.read_bytes().replace(b'"notarized": false', b'"notarized": true '))


@attack("release.json of another release, with its signature", "tampered")
def _(world: World) -> None:
    for suffix in ("", ".sig"):
        old, new = (world.publication.release_file(one) for one in (world.older, world.newer))
        shutil.copy(f"{old}{suffix}", f"{new}{suffix}")


@attack("release.json is a link to that of another release", "tampered")
def _(world: World) -> None:
    path = world.publication.release_file(world.newer)
    path.unlink()
    path.symlink_to(world.publication.release_file(world.older))


@attack("release.json without a signature", "cannot-verify")
def _(world: World) -> None:
    signature_of(world.publication.release_file(world.newer)).unlink()


@attack("release.json signed as a channel", "wrong-namespace")
def _(world: World) -> None:
    world.describe(world.release(world.newer), namespace=published.CHANNEL_NAMESPACE)


@attack("release.json signed with an unknown key", "unknown-key")
def _(world: World) -> None:
    world.describe(world.release(world.newer), key=world.other_key)


@attack("release.json of another id, signed", "malformed")
def _(world: World) -> None:
    path = world.publication.release_file(world.newer)
    records.write(path, dataclasses.replace(world.release(world.newer), id=world.older))
    signature.sign(path, world.key, published.RELEASE_NAMESPACE)
    world.state(release_sha256=records.sha256_file(path))


attack("release.json never ends", "tampered")(lambda _: Behaviour(endless="release.json"))

# -- the channel -----------------------------------------------------------------------------------


@attack("a byte of the channel is changed", "tampered")
def _(world: World) -> None:
    path = world.publication.channel("stable")
    path.write_bytes(path.read_bytes().replace(b'"minimum_sequence": 1', b'"minimum_sequence": 2'))


@attack("the channel without a signature", "cannot-verify")
def _(world: World) -> None:
    signature_of(world.publication.channel("stable")).unlink()


@attack("the channel's signature is no signature", "cannot-verify")
def _(world: World) -> None:
    signature_of(world.publication.channel("stable")).write_text("<html>404</html>\n")


@attack("the channel with the signature of release.json", "wrong-namespace")
def _(world: World) -> None:
    shutil.copy(
        signature_of(world.publication.release_file(world.newer)), signature_of(world.publication.channel("stable"))
    )


@attack("the channel with the signature of another channel", "tampered")
def _(world: World) -> None:
    shutil.copy(signature_of(world.publication.channel("beta")), signature_of(world.publication.channel("stable")))


@attack("the channel signed as a release", "wrong-namespace")
def _(world: World) -> None:
    world.state(namespace=published.RELEASE_NAMESPACE)


@attack("the channel signed with an unknown key", "unknown-key")
def _(world: World) -> None:
    world.state(key=world.other_key)


@attack("the channel signed with a revoked key", "key-revoked")
def _(world: World) -> None:
    shutil.copy(world.key.with_name(f"{world.key.name}.pub"), world.revoked)


@attack("the key is not valid yet", "key-revoked")
def _(world: World) -> None:
    list_key(world, 'valid-after="20900101"')


@attack("the key is not valid any more", "key-revoked")
def _(world: World) -> None:
    list_key(world, 'valid-before="20200101"')


@attack("the key may only sign releases", "wrong-namespace")
def _(world: World) -> None:
    list_key(world, f'namespaces="{published.RELEASE_NAMESPACE}"')


@attack("an older statement again", "older-sequence", seen_before=True)
def _(world: World) -> None:
    old = world.release(world.older)
    world.state(
        sequence=world.statement().sequence - 1, release=old.id, release_sequence=old.sequence,
        release_sha256=records.sha256_file(world.publication.release_file(old.id)),
    )  # fmt: skip


@attack("the statement has expired", "channel-expired")
def _(world: World) -> None:
    now = datetime.now(UTC)
    world.state(issued=stamp(now - timedelta(days=40)), expires=stamp(now - timedelta(days=10)))


@attack("beta is served as stable", "tampered")
def _(world: World) -> None:
    beta, stable = (world.publication.channel(name) for name in ("beta", "stable"))
    shutil.copy(beta, stable)
    shutil.copy(signature_of(beta), signature_of(stable))


@attack("the release is revoked", "release-revoked")
def _(world: World) -> None:
    world.state(revoked=(world.newer,))


@attack("the release is below the minimum", "below-minimum")
def _(world: World) -> None:
    world.state(minimum_sequence=world.statement().release_sequence + 1)


@attack("the release leads out of the publication", "malformed")
def _(world: World) -> None:
    world.state(release="../../elsewhere")


@attack("the channel states another sequence than its release", "malformed")
def _(world: World) -> None:
    world.state(release_sequence=world.statement().release_sequence + 1)


attack("the channel never ends", "tampered")(lambda _: Behaviour(endless="stable.json"))
attack("the channel comes a byte a second", "network")(lambda _: Behaviour(slow="stable.json"))
attack("the headers come a byte a second", "network")(lambda _: Behaviour(slow_headers="stable.json"))


@attack("the channel is cut off at a random byte", "network")
def _(world: World) -> Behaviour:
    return Behaviour(cut="stable.json", cut_at=random.randrange(world.publication.channel("stable").stat().st_size))


@attack("the channel is gone", "network")
def _(world: World) -> None:
    world.publication.channel("stable").unlink()


@attack("the client's clock is a year ahead", "clock-wrong")
def _(world: World) -> Behaviour:
    world.shift(-365)
    return Behaviour(clock_s=-365 * 86400.0)


@attack("the client's clock is a year behind", "clock-wrong")
def _(world: World) -> Behaviour:
    world.shift(365)
    return Behaviour(clock_s=365 * 86400.0)


# -- members of the archive, signed by a hostile packer ----------------------------------------------


def _append(world: World, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    def change(member: tarfile.TarInfo) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        yield from members if not member.name else ((member, b""),)

    world.repack(change)


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size, made.mode = kind, link, len(content), 0o644
    return made


@attack("a member outside the release", "unsafe-archive")
def _(world: World) -> None:
    _append(world, (_member(f"{world.newer}/../../evil", content=b"x"), b"x"))


@attack("a member with an absolute path", "unsafe-archive")
def _(world: World) -> None:
    _append(world, (_member("/tmp/evil", content=b"x"), b"x"))


@attack("a link out of the release, and a member behind it", "unsafe-archive")
def _(world: World) -> None:
    _append(
        world,
        (_member(f"{world.newer}/lib/out", tarfile.SYMTYPE, "../../.."), b""),
        (_member(f"{world.newer}/lib/out/evil", content=b"x"), b"x"),
    )


@attack("a hard link to a file of the machine", "unsafe-archive")
def _(world: World) -> None:
    _append(world, (_member(f"{world.newer}/lib/passwd", tarfile.LNKTYPE, "/etc/passwd"), b""))


@attack("a device", "unsafe-archive")
def _(world: World) -> None:
    _append(world, (_member(f"{world.newer}/lib/null", tarfile.CHRTYPE), b""))


@attack("a member that the manifest does not list", "unsafe-archive")
def _(world: World) -> None:
    _append(world, (_member(f"{world.newer}/lib/extra", content=b"x"), b"x"))


@attack("a member twice", "unsafe-archive")
def _(world: World) -> None:
    name = next(iter(world.release(world.newer).files))
    _append(world, (_member(f"{world.newer}/{name}", content=b"x"), b"x"))


@attack("a setuid program", "unsafe-archive")
def _(world: World) -> None:
    def change(member: tarfile.TarInfo) -> Iterable[tuple[tarfile.TarInfo, bytes]]:
        if member.isfile() and member.mode & 0o100:
            member.mode |= 0o4000
        return ((member, b""),) if member.name else ()

    world.repack(change)


# -- the rest of a publication -----------------------------------------------------------------------


@attack("a byte of the provisioner is changed", "tampered", provisioner=True)
def _(world: World) -> None:
    damage(world.provisioner())


@attack("the provisioner signed as a release", "wrong-namespace", provisioner=True)
def _(world: World) -> None:
    signature.sign(world.provisioner(), world.key, published.RELEASE_NAMESPACE)


@attack("the provisioner without a signature", "cannot-verify", provisioner=True)
def _(world: World) -> None:
    signature_of(world.provisioner()).unlink()


@attack("a byte of a document is changed", "tampered", documents=True)
def _(world: World) -> None:
    release = world.release(world.newer)
    damage(world.publication.release(release.id) / next(iter(release.documents.values())).name)


ATTACKS: tuple[Attack, ...] = tuple(attack.found)


def refusal(world: World, one: Attack, folder: Path, *, timeout_s: float, tuf: bool = False) -> ToolchainError | None:
    """What `release.verify` says of a world that was attacked; `folder` is for its workspace. None: it accepts it."""
    run = run_in(folder, **{"publish.timeout_s": timeout_s})
    trust = checking.Trust(signers=world.signers, revoked=world.revoked, tuf_root=world.tuf_root if tuf else None)
    with serving(world.publication.folder) as url:
        if one.seen_before:
            checking.verify(run, url, trust)
        url.behave(one.prepare(world))
        try:
            checking.verify(run, url, trust)
        except ToolchainError as error:
            return error
    return None


def main() -> None:
    """Run all attacks, and print what was said."""
    from .tuf_attacks import TUF_ATTACKS

    failed = 0
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        untouched = make(Path(name))
        for number, one in enumerate((*ATTACKS, *TUF_ATTACKS), 1):
            folder = Path(name, str(number))
            folder.mkdir()
            tuf = one in TUF_ATTACKS
            said = refusal(untouched.copy(folder), one, folder, timeout_s=2.0, tuf=tuf)
            good = type(said) is one.error and not list(folder.rglob("llama-server"))
            failed += not good
            verdict, code = "ok" if good else "FAILED", said.exit_code if said else 0
            what = f"TUF: {one.name}" if tuf else one.name
            print(f"{number:>2} {verdict:<6} {what:<58} {type(said).__name__:<16} {code}")  # noqa: T201
    print(f"{len(ATTACKS) + len(TUF_ATTACKS)} attacks, {failed} failed")  # noqa: T201
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
