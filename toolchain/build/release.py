"""Release directories: assembled atomically, named by their content, and checked against their manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import shlex
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from ..core import locks, records
from ..core.errors import DiskFull, EraNotServed, RecordError, ReleaseInvalid, UnknownLayout
from ..core.run import Run
from ..sources import eras
from ..sources.eras.era import LLAMA_SERVER
from ..stages import Release
from . import macho, modes

MANIFEST = "manifest.json"
ADDED_LATER = frozenset({MANIFEST, "environment", "parent", "verification.json", "installed.json"})
"""files that later stages add; no manifest lists them"""
_MAKING = ".making-"
_LOCK_WAIT_S = 600.0
"""time for another run to copy some hundred MB"""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_REBUILD = "build it again, and copy whole directories only"
_MODES = "if you trust it, make its modes safe: chmod -R go-w,u-s,g-s,-t"


def release_dir(workspace: Path, release: Release) -> Path:
    """The directory of a built release."""
    return workspace / "releases" / release.id


def programs(release: Release) -> tuple[str, ...]:
    """The programs that a release must have, as paths in it. Raises `ReleaseInvalid` for an unknown era."""
    try:
        return eras.named(release.era).native.programs
    except UnknownLayout as error:
        raise ReleaseInvalid(f"{release.id}: {error.message}", hint=_REBUILD) from error


def is_go_alone(release: Release) -> bool:
    """Whether Go alone compiled it, as on macOS in the vendored era: such a release has no program of the series."""
    return release.flags.get("preset") == ""


def llama_server(folder: Path) -> Path:
    """The llama-server of a release directory. Raises `EraNotServed` for a release of an era that has none."""
    release = load(folder)
    if LLAMA_SERVER not in programs(release):
        raise EraNotServed(
            f"{release.id}: Ollama of the {release.era} era has no llama-server",
            hint="take a release of Ollama v0.30.0 or newer, or name another llama-server where the task takes one",
        )
    return folder / LLAMA_SERVER


def file_digests(folder: Path) -> dict[str, str]:
    """Digest of every file below `folder` by its relative path, sorted, without those of `ADDED_LATER`.

    A symbolic link is not followed: its digest is that of its target's text. Raises `ReleaseInvalid` for a
    link that leaves the folder or for anything that is neither file nor link. Files that macOS leaves are skipped.
    """
    found = {}
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if name in ADDED_LATER or modes.is_finders(path):
            continue
        if path.is_symlink():
            target = os.readlink(path)
            landing = Path(os.path.realpath(path.parent / target))
            if PurePosixPath(target).is_absolute() or not landing.is_relative_to(os.path.realpath(folder)):
                raise ReleaseInvalid(f"{path}: the link leads out of the release, to {target}", hint=_REBUILD)
            found[name] = records.sha256_bytes(b"symlink\0" + os.fsencode(target))
        elif stat.S_ISREG(path.lstat().st_mode):
            found[name] = records.sha256_file(path)
        else:
            raise ReleaseInvalid(f"{path}: not a file or a link", hint=_REBUILD)
    return dict(sorted(found.items()))


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        for name in (*files, *(name for name in folders if (Path(root) / name).is_symlink())):
            yield Path(root) / name


def release_id(release: Release) -> str:
    """The id of a release: its version, and 12 digits of a digest over its sources and files."""
    identity = (release.platform, release.ollama_commit, release.llama_cpp_commit, release.series_sha256)
    content = records.to_json([*identity, dict(sorted(release.files.items()))])
    return f"{release.version}-{records.sha256_bytes(content.encode())[:12]}"


def content_digest(release: Release) -> str:
    """Digest over everything that a verification depends on: all files and the manifest."""
    origin = (release.ollama_commit, release.llama_cpp_commit, str(release.llama_cpp_build), release.series_sha256)
    types = [(kind.name, kind.block, kind.bytes) for kind in release.cache_types]
    stated = [release.id, release.version, release.platform, *origin, types, dict(sorted(release.files.items()))]
    return records.sha256_bytes(records.to_json(stated).encode())


def assemble(workspace: Path, draft: Release, fill: Callable[[Path], None]) -> Release:
    """Make a release directory in workspace/releases and return its manifest.

    `fill` puts the files into an empty directory; `draft` is the manifest without `id` and `files`. The directory
    gets its name by one rename. An intact one with the same id is kept, with its own manifest; a damaged
    one is replaced. Raises `ReleaseInvalid`, `DiskFull`, `LockHeld`.
    """
    parent = workspace / "releases"
    busy, hint = f"{parent}: another run is making a release", "wait until it ends"
    with locks.held(parent / ".lock", busy, hint=hint, timeout_s=_LOCK_WAIT_S):
        _clear(parent)
        temporary = Path(tempfile.mkdtemp(prefix=_MAKING, dir=parent))
        try:
            fill(temporary)
            files = file_digests(temporary)
            if special := modes.special(temporary):
                raise ReleaseInvalid(f"{special[0]} is setuid, setgid or sticky", hint="find out what the build did")
            executable = modes.executable(temporary)
            modes.set_all(temporary, executable)
            unsigned = _unsigned(temporary, files) if draft.platform.startswith("macos") else {}
            release = dataclasses.replace(draft, files=files, executable=executable, unsigned=unsigned)
            release = dataclasses.replace(release, id=release_id(release))
            final = parent / release.id
            with contextlib.suppress(ReleaseInvalid):
                return check(final)
            records.write(temporary / MANIFEST, release)
            check(temporary)
            if final.exists():
                os.replace(final, temporary.with_name(f"{temporary.name}-damaged"))
            os.replace(temporary, final)
            records.flush_directory(parent)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(
                    f"{parent}: no space left for the release", hint="free some space, then try again"
                ) from error
            raise
        finally:
            _clear(parent)
    return release


def _clear(parent: Path) -> None:
    """Remove leftovers of an assembly, finished or killed."""
    for left in parent.glob(f"{_MAKING}*"):
        shutil.rmtree(left, ignore_errors=True)


def load(folder: Path) -> Release:
    """The manifest of a release directory, unchecked. Raises `ReleaseInvalid`."""
    try:
        release = records.read(folder / MANIFEST, Release)
    except RecordError as error:
        raise ReleaseInvalid(f"{folder}: not a release: {error.message}", hint=_REBUILD) from error
    if not _ID.fullmatch(release.id):
        raise ReleaseInvalid(f"{folder}: {release.id!r} is not a valid release id", hint=_REBUILD)
    return release


def check(folder: Path) -> Release:
    """Check every file of a release directory and its mode against its manifest, and the id against both.

    The result says which files are executable, also for a manifest that does not. Raises `ReleaseInvalid` naming
    the files that are missing, changed, not in the manifest, or that others can write.
    """
    release, signed = examine(folder)
    if signed:
        raise ReleaseInvalid(
            f"{folder}: signed after the build: {_first(list(signed))}",
            hint=f"./inv build.seal --release {shlex.quote(str(folder))} makes a release of it",
        )
    return release


def examine(folder: Path) -> tuple[Release, tuple[str, ...]]:
    """As `check`, but files may have been signed since: their names, in the manifest's order."""
    release = load(folder)
    for name in release.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or name != str(path) or name in ADDED_LATER:
            raise ReleaseInvalid(f"{folder}: the manifest lists {name!r}, not a path inside the release", hint=_REBUILD)
    found = file_digests(folder)
    differences = [f"{name} is missing" for name in release.files if name not in found]
    differences += [f"{name} is not in the manifest" for name in found if name not in release.files]
    changed = [name for name in found if release.files.get(name, found[name]) != found[name]]
    signed = [name for name in changed if _differs_by_signature(folder / name, (release.unsigned or {}).get(name))]
    differences += [f"{name} was changed" for name in changed if name not in signed]
    required = programs(release)
    differences += [f"{name} is not in the release" for name in required if name not in found]
    differences += [
        f"{name} is not executable" for name in required if name in found and not os.access(folder / name, os.X_OK)
    ]
    if not differences and release.id != release_id(release):
        differences = [f"the id {release.id} does not match the content"]
    if differences:
        raise ReleaseInvalid(f"{folder}: {_first(differences)}", hint=_REBUILD)
    if unsafe := modes.problems(folder, release.executable):
        raise ReleaseInvalid(f"{folder}: {_first(unsafe)}", hint=f"{_MODES} {shlex.quote(str(folder))}")
    if release.executable is None:
        release = dataclasses.replace(release, executable=modes.presumed_executable(folder))
    return release, tuple(signed)


def _unsigned(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """Digests of the Mach-O files without their signatures."""
    found = {}
    for name in files:
        with contextlib.suppress(ReleaseInvalid):  # of another kind: then only whole files are compared
            if not (path := folder / name).is_symlink() and macho.is_macho(path):
                found[name] = macho.unsigned_digest(path)
    return found


def _differs_by_signature(path: Path, unsigned: str | None) -> bool:
    """Whether the file is what was built, with another signature."""
    with contextlib.suppress(ReleaseInvalid):
        return unsigned is not None and not path.is_symlink() and macho.unsigned_digest(path) == unsigned
    return False


def _first(problems: list[str]) -> str:
    return "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")


def find_release(run: Run, name: str) -> Path:
    """Directory of a built release by its id or path; the newest one built for an empty name.

    Raises `ReleaseInvalid` when there is none.
    """
    built = run.workspace / "releases"
    if name:
        found = Path(name).expanduser() if "/" in name else built / name
        if not (found / MANIFEST).is_file():
            raise ReleaseInvalid(f"{found}: not a release directory", hint=f"an id in {built}, or a path")
        return found.absolute()
    manifests = sorted(built.glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime)
    if not manifests:
        raise ReleaseInvalid(f"{built}: no release was built yet", hint="./inv build")
    return manifests[-1].parent
