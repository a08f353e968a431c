"""Releases and runs for the tests of publishing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.build.test_release import DRAFT
from tests.publishing import machos
from tests.publishing.signing_program import __file__ as double
from toolchain.build import assemble, content_digest, release_dir
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.run import Run
from toolchain.proofs import Verification
from toolchain.stages import Release

PROGRAMS = ("bin/ollama", "lib/ollama/llama-server")


def run_in(workspace: Path, **settings: str) -> Run:
    """A run whose workspace is this folder; publish_KEY are settings."""
    flags = {name.replace("_", ".", 1): value for name, value in settings.items()}
    return Run(config=load(environ={}, flags={"workspace": str(workspace), **flags}), console=Console())


def linux(workspace: Path) -> Path:
    """A release directory for Linux."""

    def fill(folder: Path) -> None:
        (folder / "licenses").mkdir()
        (folder / "licenses/ollama.txt").write_text("MIT")
        (folder / "lib/ollama").mkdir(parents=True)
        (folder / "bin").mkdir()
        for name in PROGRAMS:
            (folder / name).write_bytes(b"\x7fELF " + name.encode() * 100)
            (folder / name).chmod(0o755)
        (folder / "lib/ollama/libx.so.1.2").write_bytes(b"\x7fELF library")
        (folder / "lib/ollama/libx.so.1").symlink_to("libx.so.1.2")
        (folder / "lib/ollama/empty").touch()

    return _made(workspace, "linux-x86_64", fill)


def official(workspace: Path) -> Path:
    """A release directory for a Mac, signed with a Developer ID."""

    def fill(folder: Path) -> None:
        for name in (*PROGRAMS, "lib/ollama/libx.dylib"):
            data = machos.make(machos.EXECUTABLE if name in PROGRAMS else machos.DYLIB, content=name.encode())
            cms = machos.DEVELOPER_ID + machos.TIMESTAMP
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(machos.sign(data, name, flags=machos.RUNTIME, cms=cms, team="TEAM123456"))
            (folder / name).chmod(0o755 if name in PROGRAMS else 0o644)

    return _made(workspace, "macos-arm64", fill)


def macos(workspace: Path, content: bytes = b"code") -> Path:
    """A release directory for a Mac: programs that the linker signed, a library, and one without a signature."""

    def fill(folder: Path) -> None:
        (folder / "lib/ollama").mkdir(parents=True)
        (folder / "bin").mkdir()
        (folder / "licenses").mkdir()
        (folder / "licenses/ollama.txt").write_text("MIT")
        linker = machos.ADHOC | machos.LINKER_SIGNED
        for name in PROGRAMS:
            program = machos.make(content=content + name.encode(), minimum=(14, 2))
            (folder / name).write_bytes(machos.sign(program, Path(name).name, flags=linker))
            (folder / name).chmod(0o755)
        library = machos.make(machos.DYLIB, content=content)
        (folder / "lib/ollama/libx.0.dylib").write_bytes(machos.sign(library, "libx", flags=linker))
        (folder / "lib/ollama/libx.dylib").symlink_to("libx.0.dylib")
        both = machos.universal(machos.make(machos.DYLIB), machos.make(machos.DYLIB, processor=machos.X86_64))
        (folder / "lib/ollama/liby.dylib").write_bytes(both)

    return _made(workspace, "macos-arm64", fill)


def _made(workspace: Path, platform: str, fill: Callable[[Path], None]) -> Path:
    return release_dir(workspace, assemble(workspace, replace(DRAFT, platform=platform), fill))


def verification_of(release: Release, *, ok: bool = True) -> Verification:
    """A verification of exactly this release."""
    return Verification(
        release=release.id,
        content_sha256=content_digest(release),
        version=release.version,
        proofs=(),
        unknown_type_message="",
        ok=ok,
        seconds=1.0,
    )


def install_double(folder: Path, *names: str) -> Path:
    """Put the double of the signing programs into a folder for PATH, under these names."""
    root = Path(double).parents[2]
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(
            f"#!/bin/sh\nSIGNING_DOUBLE='{folder}' PYTHONPATH='{root}' exec '{sys.executable}' -P "
            f'-m tests.publishing.signing_program {name} "$@"\n'
        )
        (folder / name).chmod(0o755)
    return folder
