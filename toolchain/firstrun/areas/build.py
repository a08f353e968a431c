"""The build: that it succeeds here, twice with the same result, and that its files are what a release needs."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ... import pipeline
from ...build import embedded, modes
from ...build.steps import MACOS_TARGET
from ...core.errors import BuildFailed
from ...core.records import sha256_file
from ...stages import Release
from .. import toolkit
from ..assumption import MACOS, Area, Assumption, Finding
from ..bench import Bench, Evidence
from ..findings import MINIATURE, judged, untested

BUG = 1
"""exit code of a task with a traceback"""
TARGETS = ("llama-bench",)
"""programs that later areas use, besides those of a release"""
_SYSTEM = ("/usr/lib/", "/System/Library/")
_INSIDE = ("@rpath/", "@loader_path", "@executable_path")
_WARNING = re.compile(r"^(?P<file>[^\s:]+):\d+(?::\d+)?: warning: (?P<text>.*)$", re.MULTILINE)
_OURS = re.compile(r"turbo|kv-layers|kv-device")
_LINKED = re.compile(r"^\t(?P<path>\S.*?) \(compatibility version", re.MULTILINE)
_COMMAND = re.compile(r"\bcmd (?P<name>LC_\w+)\n(?P<fields>.*?)(?=\nLoad command|\Z)", re.DOTALL)
_PATH = re.compile(r"^\s*path (?P<path>.*?) \(offset \d+\)", re.MULTILINE)
_MINIMUM = re.compile(r"^\s*(?:minos|version) (?P<version>\d+(?:\.\d+)*)", re.MULTILINE)
_DYNAMIC = re.compile(r"\((?P<tag>NEEDED|RPATH|RUNPATH)\).*\[(?P<value>[^\]]*)\]")
_RUNS = {
    "bin/ollama": ("--version",),
    "lib/ollama/llama-server": ("--version",),
    "lib/ollama/turbo-probe": ("1", "turbo4"),
}
"""programs of a release, and words with which they end by themselves"""


def _examine(bench: Bench) -> Iterator[Finding]:
    built = _built(bench)
    yield built
    if bench.release is None:
        for one in AREA.assumptions[1:]:
            yield untested(one.id, f"no release was built ({bench.no_release})")
        return
    folder = pipeline.directory(bench.run, bench.release)
    files = programs(folder)
    yield linkage(bench, files)
    yield _architecture(bench, files)
    yield from _on_a_mac(bench, folder, bench.release, files)
    yield _runs_elsewhere(bench, folder)
    yield _same_again(bench, bench.release)


def programs(folder: Path) -> tuple[Path, ...]:
    """The programs and libraries below a folder, without scripts and links."""
    return tuple(
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and modes.is_loadable(path) and path.read_bytes()[:2] != b"#!"
    )


def _built(bench: Bench) -> Finding:
    targets = [word for target in TARGETS for word in ("--targets", target)]
    answer = toolkit.task(bench, "build", *targets)
    bench.release = answer.read(Release) if answer.ok else None
    if bench.release is None:
        bench.no_release = answer.complaint or "the build printed no manifest"
        if 0 < answer.evidence.code != BuildFailed.exit_code and answer.evidence.code != BUG:
            return untested("build.succeeds", bench.no_release, answer.evidence)  # it did not come to the compiler
        return judged("build.succeeds", False, bench.no_release, answer.evidence)
    logs = bench.run.workspace / "logs"
    text = "".join(path.read_text(errors="replace") for path in sorted(logs.glob("*-compile.log")))
    warnings = [found.group() for found in _WARNING.finditer(text)]
    ours = [line for line in warnings if _OURS.search(line.partition(":")[0])]
    seen = bench.keep(f"warnings in {logs}/*-compile.log", 0, 0.0, "\n".join(warnings))
    told = f"{len(warnings)} warnings, {len(ours)} of them in our files"
    reason = f"{bench.release.id} in {answer.evidence.seconds:.0f} s; {told}"
    return judged("build.succeeds", True, reason, answer.evidence, seen)


def linkage(bench: Bench, files: Sequence[Path]) -> Finding:
    """Whether every library that is named lies in the release or belongs to the system."""
    if bench.on_mac:
        seen = [bench.call(["otool", "-L", *files]), bench.call(["otool", "-l", *files])]
        paths = [found["path"] for found in _LINKED.finditer(seen[0].output)]
        folders = [
            found["path"] for fields in _commands(seen[1].output, "LC_RPATH") for found in _PATH.finditer(fields)
        ]
        wrong = [path for path in paths if not path.startswith((*_SYSTEM, *_INSIDE))]
        wrong += [f"rpath {path}" for path in folders if not path.startswith(_INSIDE)]
    else:
        seen = [bench.call(["readelf", "-d", *files])]
        found_ = [(found["tag"], found["value"]) for found in _DYNAMIC.finditer(seen[0].output)]
        paths = [value for tag, value in found_ if tag == "NEEDED"]
        folders = [one for tag, value in found_ if tag != "NEEDED" for one in value.split(":")]
        wrong = [path for path in paths if "/" in path]
        wrong += [f"rpath {path}" for path in folders if not path.startswith("$ORIGIN")]
    if any(one.code != 0 for one in seen) or not (paths or folders):
        return untested("build.linkage", f"{seen[0].command.split()[0]} ended with {seen[0].code}", *seen)
    others = sorted({path for path in paths if path.startswith(_SYSTEM)})
    told = f"{len(set(paths))} libraries, {len(others)} of them the system's, and {len(set(folders))} folders"
    reason = "; ".join(sorted(set(wrong))) or f"{len(files)} files name {told}"
    return judged("build.linkage", not wrong, reason, *seen)


def _commands(output: str, name: str) -> Iterator[str]:
    """The fields of the load commands of one kind in otool's output."""
    for found in _COMMAND.finditer(output):
        if found["name"] == name:
            yield found["fields"]


def _architecture(bench: Bench, files: Sequence[Path]) -> Finding:
    if bench.on_mac:
        seen = bench.call(["file", *files])
        other = [line for line in seen.output.splitlines() if "Mach-O" in line and not line.rstrip().endswith("arm64")]
        count, wanted = seen.output.count("Mach-O"), "arm64"
    else:
        seen = bench.call(["readelf", "-h", *files])
        machines = re.findall(r"^\s*Machine:\s*(.+)$", seen.output, re.MULTILINE)
        wanted = {"x86_64": "X86-64", "aarch64": "AArch64"}.get(platform.machine(), platform.machine())
        other = [one for one in machines if wanted not in one]
        count = len(machines)
    if seen.code != 0 or not count:
        return untested("build.architecture", f"{seen.command.split()[0]} ended with {seen.code}", seen)
    return judged("build.architecture", not other, "; ".join(other) or f"{count} files, all for {wanted}", seen)


def _on_a_mac(bench: Bench, folder: Path, release: Release, files: Sequence[Path]) -> Iterator[Finding]:
    if not bench.on_mac:
        for identifier in ("build.signed", "build.minimum", "build.metal-text"):
            yield untested(identifier, "needs macOS")
        return
    seen = bench.call(["codesign", "--verify", "--strict", "--verbose=2", *files])
    failed = [line for line in seen.output.splitlines() if "valid on disk" not in line and "satisfies" not in line]
    reason = "; ".join(failed[:3]) or f"all {len(files)} signatures hold"
    yield judged("build.signed", seen.code == 0, reason, seen)
    yield _minimum(bench, files)
    yield _metal_text(bench, folder, release)


def _minimum(bench: Bench, files: Sequence[Path]) -> Finding:
    seen = bench.call(["otool", "-l", *files])
    fields = [*_commands(seen.output, "LC_BUILD_VERSION"), *_commands(seen.output, "LC_VERSION_MIN_MACOSX")]
    versions = [found["version"] for one in fields if (found := _MINIMUM.search(one))]
    if seen.code != 0 or not versions:
        return untested("build.minimum", f"otool ended with {seen.code}", seen)
    later = sorted({one for one in versions if _numbers(one) > _numbers(MACOS_TARGET)})
    reason = f"{len(versions)} files run from macOS {', '.join(sorted(set(versions)))} on"
    return judged("build.minimum", not later, reason, seen)


def _metal_text(bench: Bench, folder: Path, release: Release) -> Finding:
    """A GPU's driver compiles the text that is in a library."""
    if toolkit.is_miniature(bench.run.config):
        return untested("build.metal-text", MINIATURE)
    tree = toolkit.scratch_of(bench, release).llama_cpp
    what = f"the text of {tree / embedded.SOURCE} in {folder}"
    try:
        embedded.require(folder, tree)
    except BuildFailed as error:
        return judged("build.metal-text", False, error.message, bench.keep(what, error.exit_code, 0.0, str(error)))
    return judged("build.metal-text", True, "a library holds it byte for byte", bench.keep(what, 0, 0.0, ""))


def _runs_elsewhere(bench: Bench, folder: Path) -> Finding:
    """A copy in a folder whose name has a blank, while the original is out of the way."""
    copy, hidden = bench.folder / "a copy" / folder.name, folder.with_name(f"{folder.name}.away")
    shutil.copytree(folder, copy, symlinks=True)
    seen: list[Evidence] = []
    folder.rename(hidden)
    try:
        for name, words in _RUNS.items():
            if (copy / name).is_file():
                seen.append(bench.call([copy / name, *words], timeout=300, cwd=copy))
    finally:
        hidden.rename(folder)
        shutil.rmtree(copy.parent, ignore_errors=True)
    failed = [f"{one.command}: ended with {one.code}: {one.output.strip()[-300:]}" for one in seen if one.code != 0]
    reason = f"{len(seen)} programs of a copy ran while the original was away"
    return judged("build.relocatable", bool(seen) and not failed, "; ".join(failed) or reason, *seen)


def _same_again(bench: Bench, first: Release) -> Finding:
    """A second build in the same place, from nothing."""
    if toolkit.is_miniature(bench.run.config):
        return untested("build.reproducible", MINIATURE)
    kept = bench.folder / "first build"
    shutil.copytree(pipeline.directory(bench.run, first), kept, symlinks=True)
    shutil.rmtree(bench.run.workspace / "build")
    targets = [word for target in TARGETS for word in ("--targets", target)]
    answer = toolkit.task(bench, "build", *targets)
    second = answer.read(Release) if answer.ok else None
    if second is None:
        return untested("build.reproducible", f"the second build failed: {answer.complaint}", answer.evidence)
    bench.release = second
    differ = differing(bench, kept, pipeline.directory(bench.run, second), first, second)
    shutil.rmtree(kept, ignore_errors=True)
    reason = f"{len(differ)} of {len(second.files)} files differ: {', '.join(differ[:8])}"
    same = f"all {len(second.files)} files are equal, after {answer.evidence.seconds:.0f} s"
    return judged("build.reproducible", not differ, reason if differ else same, answer.evidence)


def differing(bench: Bench, old: Path, new: Path, first: Release, second: Release) -> list[str]:
    """The files of two releases that differ, apart from signatures."""
    names = [name for name in {**first.files, **second.files} if first.files.get(name) != second.files.get(name)]
    return [name for name in names if not bench.on_mac or _unsigned(bench, old / name) != _unsigned(bench, new / name)]


def _unsigned(bench: Bench, path: Path) -> str:
    """Digest of a file without its signature; empty if there is none."""
    if not path.is_file():
        return ""
    copy = bench.folder / "unsigned"
    shutil.copyfile(path, copy)
    bench.call(["codesign", "--remove-signature", copy])
    return sha256_file(copy)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


AREA = Area(
    name="build",
    assumptions=(
        Assumption(
            id="build.succeeds",
            statement="Ollama's own build of the patched trees succeeds with this machine's tools.",
            how="build, with its time and the warnings of the compiler.",
        ),
        Assumption(
            id="build.linkage",
            statement="No file of a release names a library or a folder outside of the release and the system.",
            how="otool -L and the rpaths of otool -l for each file; elsewhere readelf -d.",
        ),
        Assumption(
            id="build.architecture",
            statement="Every program and library of a release is for this machine's processor alone: arm64 on a Mac.",
            how="file for each; elsewhere readelf -h.",
        ),
        Assumption(
            id="build.signed",
            statement="Every program and library of a release has a valid signature.",
            needs=MACOS,
            how="codesign --verify --strict for each file.",
        ),
        Assumption(
            id="build.minimum",
            statement=f"Every program and library runs from macOS {MACOS_TARGET} on.",
            needs=MACOS,
            how="minos in otool -l of each file.",
        ),
        Assumption(
            id="build.metal-text",
            statement="The Metal text in the libraries holds every kernel of ours.",
            needs=MACOS,
            how="The text that the series renders is searched in each library, byte for byte.",
        ),
        Assumption(
            id="build.relocatable",
            statement="A release runs from any folder after a copy.",
            how="Programs of a copy are run while the original is renamed.",
        ),
        Assumption(
            id="build.reproducible",
            statement="A second build of the same sources gives the same files, apart from signatures.",
            how="The build folder is deleted, the release built again, and their files compared by digest.",
        ),
    ),
    examine=_examine,
)
