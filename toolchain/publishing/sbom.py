"""The bill of materials: CycloneDX, with both upstream commits and every patch between them and the release.

It is version 1.6 of the format: ECMA-424 standardises it, more programs read it than 1.7, and all that is stated here
has a place in it. The same records give the same bytes: the serial number is derived from the release's id, and the
time is that of the build.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..core.delivery_errors import DocumentInvalid
from ..stages import RenderedTarget
from . import components, gomodules
from .gomodules import GoModule, GoProgram
from .materials import Materials, Upstream, ollamas_patches, upstreams

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, Patch, Pedigree
    from cyclonedx.model.license import DisjunctiveLicense

NAME = "turboquant-ollama"
_PROGRAM = "bin/ollama"
_SPACE = uuid.UUID("6f2f0a55-6c0e-5c1e-9a3c-2c3d4d0b7f11")
"""of the serial numbers; any constant would do"""
_MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy"


def serial_number(identifier: str) -> uuid.UUID:
    """The serial number of a release's bill."""
    return uuid.uuid5(_SPACE, identifier)


def make(materials: Materials) -> tuple[bytes, GoProgram | None]:
    """The bill of a packed release as JSON, and the Go modules of its Ollama.

    Raises `DocumentInvalid` when it does not fit its schema, and the errors of `gomodules.read` and of
    `materials.ollamas_patches`.
    """
    from cyclonedx.output.json import JsonV1Dot6

    go = gomodules.read(materials.directory / _PROGRAM)
    data = JsonV1Dot6(_Bill(materials, go).bill()).output_as_string(indent=2).encode() + b"\n"
    validate(data, materials.release.id)
    return data, go


def validate(data: bytes, name: str) -> None:
    """Raise `DocumentInvalid` for a document that is no CycloneDX 1.6. Needs no network."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    try:
        text = data.decode()
        json.loads(text)
    except ValueError as error:
        raise DocumentInvalid(f"{name}: the bill of materials is not JSON: {error}") from error
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if found is not None:
        said = str(found.data).splitlines()[0][:500]
        raise DocumentInvalid(
            f"{name}: the bill of materials is not CycloneDX 1.6: {said}", hint="./inv release.attest"
        )


class _Bill:
    """What one bill is made of."""

    def __init__(self, materials: Materials, go: GoProgram | None) -> None:
        self._directory = materials.directory
        self._release, self._packed = materials.release, materials.packed
        self._rendered: dict[str, RenderedTarget] = {one.target: one for one in materials.records.rendered.targets}
        self._go = go
        self._upstreams = upstreams(materials.records.sources)
        self._theirs = ollamas_patches(materials.records)

    def bill(self) -> Bom:
        """The library's document."""
        from cyclonedx.model import bom, component, lifecycle, tool

        release = self._release
        main = self._main()
        ollama, llama_cpp = (self._patched(one) for one in self._upstreams)
        series, parts, modules = self._series(), [*self._parts()], [*self._modules()]
        tools = {"turboquant-toolchain": __version__, **release.tools}
        made = bom.Bom(
            serial_number=serial_number(release.id),
            components=[ollama, llama_cpp, series, *parts, *modules],
            metadata=bom.BomMetaData(
                timestamp=datetime.datetime.fromisoformat(release.created),
                component=main,
                lifecycles=[lifecycle.PredefinedLifecycle(phase=lifecycle.LifecyclePhase.BUILD)],
                tools=tool.ToolRepository(
                    components=[
                        component.Component(
                            type=component.ComponentType.APPLICATION, name=name, version=version, bom_ref=f"tool:{name}"
                        )
                        for name, version in tools.items()
                    ]
                ),
                properties=components.properties({f"flag:{name}": value for name, value in release.flags.items()}),
            ),
            properties=components.properties({"go-modules": self._go_modules()}),
        )
        made.register_dependency(main, [ollama, llama_cpp])
        made.register_dependency(ollama, [series, *modules])
        made.register_dependency(llama_cpp, [series, *parts])
        return made

    def _go_modules(self) -> str:
        if self._go is None:
            return f"unknown: {_PROGRAM} holds no build information of Go"
        return f"{len(self._go.modules)}, as {_PROGRAM} states them"

    def _main(self) -> Component:
        """The release, with its files inside."""
        from cyclonedx import model
        from cyclonedx.model import component

        release, archive = self._release, self._packed.archive
        types = [f"{one.name} ({one.bytes} bytes for {one.block} values)" for one in release.cache_types]
        return component.Component(
            type=component.ComponentType.APPLICATION,
            name=NAME,
            version=release.id,
            bom_ref=f"release:{release.id}",
            description=f"Ollama {release.version} for {release.platform}, with KV cache types of TurboQuant",
            licenses=self._licences("turboquant"),
            pedigree=component.Pedigree(
                ancestors=[self._pristine(one, "release-of") for one in self._upstreams],
                commits=[components.commit(one) for one in self._upstreams],
                notes="The patches are in the pedigrees of the components ollama and llama.cpp.",
            ),
            external_references=[
                model.ExternalReference(
                    type=model.ExternalReferenceType.DISTRIBUTION,
                    url=model.XsUri(archive.name),
                    hashes=components.sha256(archive.sha256),
                )
            ],
            components=[self._file(name, digest) for name, digest in release.files.items()],
            properties=components.properties(
                {
                    "platform": release.platform,
                    "version": release.version,
                    "series_sha256": release.series_sha256,
                    "manifest_sha256": self._packed.manifest_sha256,
                    "tar_sha256": archive.tar_sha256,
                    "cache_types": ", ".join(types) or "none",
                }
            ),
        )

    def _file(self, name: str, digest: str) -> Component:
        """A file; the digest of a symbolic link is that of no content, so that its target is stated instead."""
        from cyclonedx.model import component

        path = self._directory / name
        return component.Component(
            type=component.ComponentType.FILE,
            name=name,
            bom_ref=f"file:{name}",
            hashes=[] if path.is_symlink() else components.sha256(digest),
            properties=components.properties({"link_to": str(path.readlink())}) if path.is_symlink() else [],
        )

    def _pristine(self, upstream: Upstream, of: str) -> Component:
        """What upstream published, as an ancestor of another component."""
        from cyclonedx.model import component

        return component.Component(
            type=components.kind(upstream),
            name=upstream.name,
            version=upstream.describe,
            bom_ref=f"{of}:{upstream.name}",
            purl=components.purl(upstream),
            properties=components.properties({"commit": upstream.commit}),
        )

    def _patched(self, upstream: Upstream) -> Component:
        """Ollama or llama.cpp as it was built."""
        from cyclonedx import model
        from cyclonedx.model import component

        release, target = self._release, self._rendered.get(upstream.name)
        stated = {"commit": upstream.commit, "series_sha256": release.series_sha256}
        if upstream.name == "ollama":
            stated["patched_commit"] = release.ollama_commit
        else:
            stated |= {"patched_commit": release.llama_cpp_commit, "build": str(release.llama_cpp_build)}
            stated |= {f"patch_sha256:{path}": digest for path, digest in self._theirs.items()}
        if target:
            stated["patch_sha256:series"] = target.sha256
        if upstream.local:
            stated["source"] = "a local repository; the URL is upstream's usual one"
        return component.Component(
            type=components.kind(upstream),
            name=upstream.name,
            version=upstream.describe,
            bom_ref=upstream.name,
            purl=components.purl(upstream),
            licenses=self._licences(upstream.name),
            external_references=[
                model.ExternalReference(type=model.ExternalReferenceType.VCS, url=model.XsUri(upstream.url))
            ],
            pedigree=self._pedigree(upstream),
            properties=components.properties(stated),
        )

    def _pedigree(self, upstream: Upstream) -> Pedigree:
        """Ollama's own patches to llama.cpp by their place and digest, ours with their text."""
        from cyclonedx import model
        from cyclonedx.model import component

        notes = [f"Upstream's commit {upstream.commit} with these patches, in this order:"]
        patches: list[Patch] = []
        if upstream.name == "llama.cpp":
            ollama = self._upstreams[0]
            for path, digest in self._theirs.items():
                notes.append(f"{path} of Ollama's commit {ollama.commit}, sha256 {digest}, by Ollama;")
                patches.append(components.patch(component.Diff(url=model.XsUri(ollama.file_url(path)))))
        target = self._rendered.get(upstream.name)
        if target and target.diff:
            notes.append(f"the TurboQuant series with the seal {self._release.series_sha256}, sha256 {target.sha256}.")
            text = model.AttachedText(content=target.diff, content_type="text/x-diff; charset=utf-8")
            patches.append(components.patch(component.Diff(text=text)))
        return component.Pedigree(
            ancestors=[self._pristine(upstream, "upstream-of")],
            commits=[components.commit(upstream)],
            patches=patches,
            notes="\n".join(notes if patches else [f"Upstream's commit {upstream.commit} as it is."]),
        )

    def _series(self) -> Component:
        from cyclonedx.model import component

        return component.Component(
            type=component.ComponentType.LIBRARY,
            name="turboquant-series",
            version=self._release.series_sha256[:12],
            bom_ref="series",
            description="The patch series; its digest is that of its seal, which lists the digest of each of its files",
            hashes=components.sha256(self._release.series_sha256),
            licenses=self._licences("turboquant"),
        )

    def _parts(self) -> Iterator[Component]:
        """What llama.cpp's licences folder names: sources of others that are compiled in."""
        from cyclonedx.model import component

        for name in self._release.files:
            if name.startswith("licenses/llama.cpp/"):
                part = Path(name).name.removeprefix("LICENSE-")
                yield component.Component(
                    type=component.ComponentType.LIBRARY,
                    name=part,
                    bom_ref=f"part:{part}",
                    description="Part of llama.cpp's tree; its version is that of the tree",
                    licenses=self._licences(f"llama.cpp/{Path(name).name}", ""),
                )

    def _modules(self) -> Iterator[Component]:
        """Go's standard library, and each module."""
        if self._go:
            yield components.go_component(GoModule(path="std", version=self._go.go, sum=""))
            yield from map(components.go_component, self._go.modules)

    def _licences(self, name: str, ending: str = ".txt") -> list[DisjunctiveLicense]:
        """The licence of that name in the release; empty if there is none."""
        from cyclonedx import model
        from cyclonedx.model.license import DisjunctiveLicense

        path = self._directory / "licenses" / f"{name}{ending}"
        if not path.is_file():
            return []
        text = path.read_text(encoding="utf-8", errors="replace")
        attached = model.AttachedText(content=text)
        if _MIT in " ".join(text.split()):
            return [DisjunctiveLicense(id="MIT", text=attached)]
        return [DisjunctiveLicense(name=f"as in licenses/{name}{ending}", text=attached)]
