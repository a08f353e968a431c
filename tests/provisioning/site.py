"""A signed publication with a tq, the adapters rendered from it, and a Mac's folders, for tests."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.core import records
from toolchain.provisioning.adapters import rendering
from toolchain.provisioning.adapters.inputs import Inputs
from toolchain.publishing import adapting, keyfiles, keys, published, signature
from toolchain.publishing.published import Archive, Channel, Publication, PublishedRelease

SCRIPTED = Path(__file__).with_name("scripted_tq.sh")
NEW, OLD = "0.33.0-turbo1-new", "0.32.0-turbo1-old"


@dataclass(frozen=True)
class Site:
    """Everything is in one folder."""

    folder: Path

    @property
    def publication(self) -> Publication:
        return Publication(self.folder / "publication")

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @property
    def signers(self) -> Path:
        return self.folder / "allowed_signers"

    @property
    def mac(self) -> Path:
        """The scripted tq's prefix."""
        return self.folder / "mac"

    @property
    def place(self) -> Path:
        """Of the desired state on the Mac."""
        return self.folder / "Application Support"

    @property
    def kept(self) -> Path:
        return self.place / "provisioner"

    @functools.cached_property
    def scripts(self) -> Mapping[str, bytes]:
        """The files of all adapters by their paths."""
        return {path: data for files in rendering.render(self.inputs()).values() for path, data in files.items()}

    def inputs(self, **changed: Any) -> Inputs:
        """Read out of the publication."""
        found = adapting.inputs(self.publication, "stable", self.folder / "desired", self.signers)
        return dataclasses.replace(found, **{"folder": str(self.place), **changed})

    def state(self, **files: str | int) -> None:
        """Make the scripted Mac what these files say, and nothing else. Where something is installed, tq is kept."""
        for file in self.mac.iterdir():
            file.unlink()
        for name, text in {"mac": "installed", "release": NEW, "channel": NEW, **files}.items():
            (self.mac / name).write_text(f"{text}\n")
        if files.get("mac") != "absent":
            self.kept.mkdir(parents=True, exist_ok=True)
            for name in ("tq", "tq.sig"):
                (self.kept / name).write_bytes((self.publication.folder / name).read_bytes())

    def restore(self) -> None:
        """The publication as it was made, and nothing of the adapters on the Mac."""
        for made in (self.place, self.publication.folder):
            shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(self.folder / "pristine", self.publication.folder)

    @property
    def calls(self) -> list[str]:
        """The verbs that tq was asked."""
        file = self.mac / "calls"
        return file.read_text().split() if file.exists() else []

    def sign(self, path: Path, namespace: str) -> None:
        signature.sign(path, self.key, namespace)


def make(folder: Path, tq: bytes | None = None, wanted: Mapping[str, str] | None = None) -> Site:
    """Keys, a publication of one release, and a desired state."""
    site = Site(folder)
    for path in (site.mac, site.publication.channel("x").parent, site.publication.release(NEW)):
        path.mkdir(parents=True)
    keyfiles.generate(site.key)
    site.signers.write_text(keys.signer_line(keys.public_half(site.key)))
    values = {"channel_url": f"file://{site.publication.folder}", "prefix": str(site.mac), **(wanted or {})}
    (folder / "desired").write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    publish(site, tq or SCRIPTED.read_bytes())
    shutil.copytree(site.publication.folder, folder / "pristine")
    _ = site.scripts  # before the publication is damaged
    return site


def publish(site: Site, tq: bytes) -> None:
    """Write and sign a release, a channel that names it, and a tq."""
    place = site.publication
    none = "0" * 64
    release = PublishedRelease(
        id=NEW, sequence=7, version="0.33.0", platform="macos-arm64", min_macos="14.0", created="2026-11-26T18:00:00Z",
        ollama_commit="a" * 40, llama_cpp_commit="b" * 40, llama_cpp_build=1, series_sha256=none, signing="adhoc",
        archive=Archive(name=f"{NEW}.tar.gz", size=1, sha256=none, tar_size=1, tar_sha256=none),
        files={}, manifest_sha256=none, unsigned={}, documents={},
    )  # fmt: skip
    records.write(place.release_file(NEW), release)
    named = place.provisioner_of(records.sha256_bytes(tq))
    named.parent.mkdir(exist_ok=True)
    for path in (place.provisioner, named):
        path.write_bytes(tq)
        site.sign(path, published.PROVISIONER_NAMESPACE)
    statement = Channel(
        channel="stable", sequence=12, issued="2026-11-26T18:00:00Z", expires="2026-12-26T18:00:00Z", release=NEW,
        release_sequence=7, release_sha256=records.sha256_file(place.release_file(NEW)),
        tq_sha256=records.sha256_bytes(tq),
    )  # fmt: skip
    records.write(place.channel("stable"), statement)
    site.sign(place.release_file(NEW), published.RELEASE_NAMESPACE)
    site.sign(place.channel("stable"), published.CHANNEL_NAMESPACE)
