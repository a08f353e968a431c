"""A workspace with a small release and its records.

bin/ollama is a real program of Go's; the sources are real repositories, and the diffs have the digests that they state.
"""

from __future__ import annotations

import gzip
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.sources.gitrepo import commit, new
from toolchain.build import assemble, content_digest, tools
from toolchain.core import config, process, records
from toolchain.core.console import Console
from toolchain.core.run import Run
from toolchain.proofs import GpuProof, RanOn, TypeProof, Verdict, Verification
from toolchain.publishing import packing
from toolchain.publishing.published import RELEASE_FILE, PublishedRelease
from toolchain.sources import create, scratch_root
from toolchain.stages import (
    CacheType,
    Checkout,
    EditResult,
    FileChecksum,
    Pin,
    Release,
    Rendered,
    RenderedTarget,
    Sources,
    Target,
)

MIT = "MIT License\n\nPermission is hereby granted, free of charge, to any person\nobtaining a copy of it.\n"
HOOKS, OURS, LATE = (f"llama/compat/{name}.patch" for name in ("001-hooks", "900-series", "models/950-late"))
THEIRS = "diff --git a/hooks.h b/hooks.h\n--- a/hooks.h\n+++ b/hooks.h\n@@ -1 +1,2 @@\n int a;\n+int hook;\n"
TURBO4 = CacheType(name="turbo4", block=64, bytes=34, db=23.7)
LINUX = RanOn(platform="linux-x86_64", system="Linux 6.1, x86_64")
MAC = RanOn(platform="macos-arm64", system="macOS 15.6 (24G84), arm64")


class World:
    """The workspace and its key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        if not self.workspace.exists():
            self.workspace.mkdir(parents=True)
            theirs = {HOOKS: THEIRS, LATE: THEIRS.replace("hooks", "late"), "llama/compat/README.md": "read\n"}
            commit(new(folder / "ollama"), {"LLAMA_CPP_VERSION": "b7\n", **theirs})
            commit(new(folder / "llama.cpp"), {"ggml.h": "int types;\n", "hooks.h": "int a;\n", "late.h": "int a;\n"})
        self.key = folder / "key"
        self.signers = folder / "signers"

    def run(self, **flags: Any) -> Run:
        """A run in this workspace."""
        own = {"workspace": str(self.workspace), "publish.key": str(self.key), "publish.signers": str(self.signers)}
        given = {name.replace("__", "."): value for name, value in flags.items()}
        return Run(config=config.load(environ={}, flags=own | given), console=Console(json=True))

    def release(self, mark: str = "one", edits: tuple[str, ...] = ("types/ids", "types/count")) -> Release:
        """A release directory with its records; another `mark` makes another one."""
        sources, rendered = self._sources(), self._rendered(mark, edits)
        scratch = create(sources, rendered, scratch_root(self.run().config, sources), Console())
        draft = Release(
            id="", version="0.33.0-turbo1", created="2026-11-26T15:21:08+00:00", platform="linux-x86_64",
            ollama_commit=scratch.ollama_commit, llama_cpp_commit=scratch.llama_cpp_commit, llama_cpp_build=7,
            series_sha256=rendered.series_sha256, cache_types=(TURBO4,),
            tools={"cmake": "4.4", "c++": "12.2"}, flags={"preset": "cpu", "LTO": "ON"},
            files={},
        )  # fmt: skip
        release = assemble(self.workspace, draft, lambda folder: _fill(folder, mark))
        folder = self.records_of(release.id)
        for name, made in (("sources", sources), ("rendered", rendered), ("scratch", scratch), ("release", release)):
            records.write(folder / f"{name}.json", made)
        return release

    def records_of(self, identifier: str) -> Path:
        """The folder of its records."""
        return self.run().records_of(identifier)

    def directory(self, identifier: str) -> Path:
        """The release directory."""
        return self.workspace / "releases" / identifier

    def verify(
        self, release: Release, *, ran_on: RanOn | None = LINUX, ok: bool = True, gpu: bool = True
    ) -> Verification:
        """The record of a verification."""
        proof = TypeProof(
            kv_cache_type="turbo4",
            model="probe-64",
            head_size=64,
            tokens=7,
            text="x",
            context_shifts=1,
            caches=(),
            ok=ok,
        )
        made = Verification(
            release=release.id,
            content_sha256=content_digest(release),
            version=release.version,
            proofs=(proof,),
            checklist=(Verdict(number=1, name="the rotation", ok=True, evidence="seen"),),
            unknown_type_message="",
            gpu=GpuProof(starts=(), comparisons=()) if gpu else None,
            ran_on=ran_on,
            ok=ok,
            seconds=1.0,
        )
        records.write(self.records_of(release.id) / "verification.json", made)
        return made

    def pack(self, release: Release) -> Path:
        """WORKSPACE/packed/ID as `release.pack` makes it."""
        return packing.pack(self.run(), self.directory(release.id), None, unverified=True).folder

    def compress_otherwise(self, identifier: str) -> PublishedRelease:
        """The same tar in another .tar.gz, as another zlib makes it."""
        packed = self.packed(identifier)
        file = packing.staged(self.run()) / identifier / packed.archive.name
        data = gzip.compress(gzip.decompress(file.read_bytes()), mtime=0, compresslevel=1)
        file.write_bytes(data)
        archive = replace(packed.archive, size=len(data), sha256=records.sha256_bytes(data))
        records.write(file.with_name(RELEASE_FILE), replace(packed, archive=archive))
        return replace(packed, archive=archive)

    def packed(self, identifier: str) -> PublishedRelease:
        """Its release.json."""
        return records.read(packing.staged(self.run()) / identifier / RELEASE_FILE, PublishedRelease)

    def _sources(self) -> Sources:
        def checkout(target: Target, describe: str) -> Checkout:
            folder = self.folder / target
            head = process.capture(("git", "rev-parse", "HEAD"), cwd=folder).text.strip()
            return Checkout(target=target, origin=str(folder), git_dir=folder / ".git", commit=head, describe=describe)

        ollama, llama_cpp = checkout("ollama", "v0.33.0"), checkout("llama.cpp", "b7")
        pin = Pin(name="b7", commit=llama_cpp.commit, build=7, exact=True)
        return Sources(ollama=ollama, llama_cpp=llama_cpp, era="pinned", pin=pin)

    def _rendered(self, mark: str, edits: tuple[str, ...]) -> Rendered:
        sources = self._sources()

        def target(checkout: Checkout, path: str, diff: str, rendered: str, added: int) -> RenderedTarget:
            file = FileChecksum(path=path, pristine="", rendered=rendered, inserted=added, deleted=0)
            return RenderedTarget(
                target=checkout.target,
                commit=checkout.commit,
                diff=diff,
                sha256=records.sha256_bytes(diff.encode()),
                files=(file,),
            )

        line = f"int {mark}; // \u00e9 \t"
        diff = f"diff --git a/ggml.h b/ggml.h\n--- a/ggml.h\n+++ b/ggml.h\n@@ -1 +1,2 @@\n int types;\n+{line}\n"
        rows = diff.splitlines()
        added = f"diff --git a/{OURS} b/{OURS}\nnew file mode 100644\n--- /dev/null\n+++ b/{OURS}\n"
        added += f"@@ -0,0 +1,{len(rows)} @@\n" + "".join(f"+{row}\n" for row in rows)
        digest = records.sha256_bytes(diff.encode())
        return Rendered(
            series_sha256=records.sha256_bytes(mark.encode()),
            targets=(
                target(sources.llama_cpp, "ggml.h", diff, mark, 1),
                target(sources.ollama, OURS, added, digest, len(rows)),
            ),
            edits=tuple(EditResult(name=name, target="llama.cpp", file="ggml.h", status="applies") for name in edits),
            facts={},
            cache_types=(TURBO4,),
        )


def go_program() -> Path:
    """A program that Go made: its own formatter."""
    root = process.capture((tools.go().path, "env", "GOROOT")).text.strip()
    return Path(root) / "bin" / "gofmt"


def _fill(folder: Path, mark: str) -> None:
    for name in ("bin", "lib/ollama", "licenses/llama.cpp"):
        (folder / name).mkdir(parents=True)
    shutil.copy(go_program(), folder / "bin/ollama")
    (folder / "lib/ollama/llama-server").write_text(f"#!/bin/sh\necho {mark}\n")
    (folder / "lib/ollama/llama-server").chmod(0o755)
    (folder / "lib/ollama/libggml.so.0").write_text("ggml")
    (folder / "lib/ollama/libggml.so").symlink_to("libggml.so.0")
    for name in ("ollama.txt", "llama.cpp.txt", "turboquant.txt", "llama.cpp/LICENSE-jsonhpp"):
        (folder / "licenses" / name).write_text(MIT)
    (folder / "licenses/llama.cpp/LICENSE-other").write_text("Do what you want.\n")
