"""What others published: a release's manifests, odd statements that are signed, reports of a first run.

Whoever has the key, or took it, may sign anything: so the readers behind the check of a signature get the cases.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.build.test_release import DRAFT
from toolchain.build import MANIFEST
from toolchain.build import release as built
from toolchain.core import records
from toolchain.core.config import load
from toolchain.core.console import Console
from toolchain.core.errors import ToolchainError
from toolchain.core.run import Run
from toolchain.publishing import channel, checking, statements, testresult, unpacking
from toolchain.publishing.published import Archive, Channel, PublishedRelease
from toolchain.stages import CacheType
from toolchain.text import as_text

from .subject import Subject, as_json, damaged, odd

_ID, _ZERO = "0.33.0-turbo1-99a763be0cdf", "0" * 64
_RELEASE = PublishedRelease(
    id=_ID, sequence=3, version="0.33.0-turbo1", platform="linux-x86_64", created="2026-08-01T00:00:00+00:00",
    ollama_commit="a" * 40, llama_cpp_commit="b" * 40, llama_cpp_build=10488, series_sha256=_ZERO, signing="none",
    archive=Archive(name=f"{_ID}.tar.gz", size=100, sha256=_ZERO, tar_size=10240, tar_sha256=_ZERO),
    files={"bin/ollama": _ZERO}, manifest_sha256=_ZERO, unsigned={}, documents={},
)  # fmt: skip
_CHANNEL = Channel(
    channel="stable", sequence=7, issued="2026-11-26T18:00:00Z", expires="2036-11-26T18:00:00Z", release=_ID,
    release_sequence=3, release_sha256=_ZERO, tq_sha256=_ZERO, revoked=("other",),
)  # fmt: skip
_MANIFEST = replace(
    DRAFT, id=_ID, files={"bin/ollama": _ZERO, "lib/ollama/libx.so": "link:libx.so.1"},
    cache_types=(CacheType(name="turbo4", block=64, bytes=34),),
)  # fmt: skip
_WORDS = ("../../outside/canary", "/etc/passwd", _ID, "stable", _ZERO, "turbo4", "link:../../..", 1 << 53)


def _predicate() -> dict[str, Any]:
    return {
        "result": "PASSED",
        "configuration": [
            {"name": "verification", "annotations": {"same_files": True}},
            {"name": "machine", "annotations": {"platform": "macos-arm64", "system": "macOS 26"}},
        ],
        "passedTests": ["a"],
    }


def _made(dice: random.Random) -> bytes:
    statement = records.to_builtins(_RELEASE) if dice.random() < 0.3 else None
    if statement is None:
        statement = dice.choice((records.to_builtins(_CHANNEL), records.to_builtins(_MANIFEST)))
    if dice.random() < 0.25:
        statement = records.to_builtins(_in_toto())
    data = as_json(odd(statement, dice, _WORDS, deepest=250))
    return data if dice.random() < 0.6 else damaged(data, dice, (b'"a":1,', b"null", b"[[[["))


def _in_toto() -> Any:
    import msgspec

    return msgspec.json.decode(statements.make(_RELEASE, "verification", _predicate()))


def _read(path: Path) -> None:
    """As each of them; what one reader refuses, the next may take."""
    run = Run(load(environ={}, flags={"workspace": str(path.parent / "ws")}), Console(json=True))
    data = path.read_bytes()
    for name, reader in (
        (MANIFEST, _as_manifest), ("release.json", _as_release), ("channel.json", _as_channel), ("x", _as_statement),
    ):  # fmt: skip
        folder = path.parent / reader.__name__
        folder.mkdir()
        (folder / name).write_bytes(data)
        with contextlib.suppress(ToolchainError):
            reader(run, folder / name)


def _as_manifest(run: Run, path: Path) -> None:
    (path.parent / "bin").mkdir()
    (path.parent / "bin/ollama").write_bytes(b"x")
    as_text(built.load(path.parent))
    built.check(path.parent)


def _as_release(run: Run, path: Path) -> None:
    """As a packed folder, with an archive that is none."""
    with contextlib.suppress(ToolchainError):
        (path.parent / _RELEASE.archive.name).write_bytes(b"x" * 100)
        checking.verify(run, str(path.parent), checking.Trust(signers=None), unsigned=True)
    release = records.read(path, PublishedRelease)
    statements.about(path, release, "verification")
    unpacking.unpack(path.parent / _RELEASE.archive.name, release, path.parent / "into", run.console)


def _as_channel(run: Run, path: Path) -> None:
    found = records.read(path, Channel)
    for text in (found.issued, found.expires):
        channel.stamp(channel.moment(text, str(path)))


def _as_statement(run: Run, path: Path) -> None:
    statement = statements._decoded(path.read_bytes(), path, "verification")
    statements.check_subjects(statement, _RELEASE, path)
    testresult.SignedProof.read(statement.predicate, "verification", "key", path)


# -- the archive of a first run --------------------------------------------------------------------


def _report(dice: random.Random) -> bytes:
    seed = {"run": "r", "platform": "macos", "ok": True, "assumptions": [{"id": "a", "ok": True}]}
    summary = as_json(odd(seed, dice, deepest=250))
    raw = io.BytesIO()
    if dice.random() < 0.5:
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.writestr(zipfile.ZipInfo("summary.json"), summary)
        data = raw.getvalue()
    else:
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            member = tarfile.TarInfo("summary.json")
            member.size = len(summary)
            if dice.random() < 0.2:
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "summary.json", 0
            archive.addfile(member, io.BytesIO(summary))
        data = gzip.compress(damaged(raw.getvalue(), dice) if dice.random() < 0.5 else raw.getvalue(), mtime=0)
    return data if dice.random() < 0.3 else damaged(data, dice)


def _read_report(path: Path) -> None:
    for name in ("first.zip", "first.tar.gz"):
        copy = path.with_name(name)
        copy.write_bytes(path.read_bytes())
        with contextlib.suppress(ToolchainError):
            testresult.of_first_run(copy, _MANIFEST)


STATEMENTS = Subject(make=_made, read=_read, name="statement.json")
FIRST_RUNS = Subject(make=_report, read=_read_report, name="report")
