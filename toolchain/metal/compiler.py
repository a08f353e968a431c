"""Compiling a .metal file into a program that runs its kernels: clang or the ziglang wheel, in five steps.

`clang -E`, rewriting to C++ (translation.py), clang's optimiser, counters and checks (instrument.py), and the linker
with the executor. Results are cached by the digest of all inputs.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec
import platformdirs

from ..core.errors import KernelInvalid, NotModelled
from ..core.process import Completed, run
from .drivers import drivers, machine_flags
from .entries import entries, storage
from .instrument import Profile, instrument
from .library import Library
from .translation import HEADERS, UNKNOWN_WORDS, Kernel, Translation, read

RUNTIME = Path(__file__).parent / "runtime"
MAX_SECONDS = 600.0
KEPT = 1000
IN_USE_SECONDS = 7200.0
_LANGUAGE = [
    "-x", "c++", "-std=c++17", "-fno-exceptions", "-fno-rtti", "-ffreestanding", "-fno-math-errno", "-ffp-contract=off",
    "-fno-finite-loops", "-w", "-Xclang", "-ffloat16-excess-precision=none",
]  # fmt: skip
# Each load of the source stays one load: no vectorising, no speculative loads.
_OPTIMISE = [
    "-O2", "-gline-tables-only", "-fno-vectorize", "-fno-slp-vectorize", "-fno-unroll-loops",
    "-fsanitize=thread", "-mllvm", "-tsan-instrument-memory-accesses=0", "-mllvm", "-tsan-instrument-func-entry-exit=0",
    "-mllvm", "-tsan-instrument-atomics=0", "-mllvm", "-tsan-instrument-memintrinsics=0",
]  # fmt: skip
# It is optimised already; machine code of the fast kind is made in half the time, and cases are small.
_COUNTED = ["-O0", "-Xclang", "-disable-llvm-passes"]
_EXECUTOR = [
    "-x", "c++", "-std=c++17", "-O2", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-nostdinc++", "-fPIC",
]  # fmt: skip
_MACROS = {"__METAL__": "1", "__METAL_VERSION__": "320", "__HAVE_BFLOAT__": "1"}
_APPLE_HEADERS = re.compile(r"'((metal_tensor|MetalPerformancePrimitives/|simd/|metal_)[^']*)' file not found")
_MESSAGE = re.compile(
    r"^(?P<file>[^\n:]+):(?P<line>\d+):(?:\d+:)? (?P<kind>fatal error|error|note): (?P<text>.*)$", re.MULTILINE
)
_MARKER = re.compile(r'^# (?P<line>\d+) "(?P<file>(?:[^"\\\n]|\\.)*)"', re.MULTILINE)
_UNKNOWN = re.compile(r"'(\w+)'")


def preprocess(
    path: Path, include: Sequence[Path] = (), defines: Mapping[str, str] | None = None, *, text: str = ""
) -> str:
    """`clang -E` of a Metal source. `text`, if given, replaces the file's content.

    Raises `KernelInvalid` or `NotModelled`, with the user's file and line.
    """
    if not path.is_file():
        raise KernelInvalid(f"{path}: no such file")
    macros = [f"-D{name}={value}" for name, value in {**_MACROS, **(defines or {})}.items()]
    folders = [word for folder in (*[path.parent][: not text], *include) for word in ("-I", str(folder))]
    # drop comments and indentation: only lines matter
    argv = [
        *drivers().front,
        *_LANGUAGE,
        *machine_flags(),
        "-nostdinc",
        "-isystem",
        str(HEADERS),
        # Apple's compiler knows scalar and vector types without <metal_stdlib>
        "-include",
        str(HEADERS / "msl_vector.h"),
        *folders,
        *macros,
        "-E",
    ]
    with tempfile.TemporaryDirectory(prefix="metal-") as folder:
        out, given = Path(folder) / "preprocessed", Path(folder) / path.name if text else path
        if text:
            given.write_text(text, encoding="utf-8")
        done = run([*argv, given, "-o", out], check=False, timeout=MAX_SECONDS)
        if done.returncode:
            raise _explain(done, path)
        return out.read_text(encoding="utf-8").replace(str(given), str(path))


def compile(
    path: Path,
    *,
    include: Sequence[Path] = (),
    defines: Mapping[str, str] | None = None,
    kernels: Sequence[str] | None = None,
    constants: Mapping[int | str, bool | int | float] | None = None,
    cache: Path | None = None,
    text: str = "",
) -> Library:
    """Compile the kernels of a Metal source whose host names match one of `kernels` (shell patterns; None: all).

    `text`, if given, replaces the file's content. `constants` fixes function constants, by number
    or name, as the making of a pipeline does on a GPU: what they rule out is not compiled and counts for nothing. Those
    that it leaves out are given with each dispatch. `cache` is a folder that keeps what was compiled (default: the
    user's cache). Raises `KernelInvalid` for a source that does not
    compile or a pattern that matches nothing, `NotModelled` for MSL that the harness lacks.
    """
    found = read(preprocess(path, include, defines, text=text), constants)
    chosen = _choose(path, found.kernels, kernels)
    code, places = _without_places(found.text + "\n" + entries(found, chosen))
    key = hashlib.sha256(code.encode() + _own_digest().encode()).hexdigest()[:32]
    store = cache or platformdirs.user_cache_path("turboquant") / "metal"
    program = store / f"{key}.program"
    if program.is_file():
        os.utime(program)
    else:
        store.mkdir(parents=True, exist_ok=True)
        _build(path, code, storage(found), found.constants, places, store, key)
        _prune(store)
    profile = msgspec.json.decode((store / f"{key}.json").read_bytes(), type=Profile)
    return Library(path, program, profile.placed(places), tuple(found.kernels))


def check(
    path: Path, *, include: Sequence[Path] = (), defines: Mapping[str, str] | None = None, text: str = ""
) -> Translation:
    """Compile all kernels of a Metal source as far as the types go, and return what it holds. Raises as `compile`."""
    found = read(preprocess(path, include, defines, text=text))
    with tempfile.TemporaryDirectory(prefix="metal-") as folder:
        code = Path(folder) / "kernels.cpp"
        code.write_text(found.text + "\n" + entries(found, tuple(found.kernels)), encoding="utf-8")
        argv = [*drivers().front, *_LANGUAGE, *machine_flags(), "-nostdinc", "-fsyntax-only", str(code)]
        done = run(argv, check=False, timeout=MAX_SECONDS)
        if done.returncode:
            raise _explain(done, path)
    return found


def _without_places(code: str) -> tuple[str, dict[str, str]]:
    """The code with short names for the user's files, so that the cache works for every tree of the same content; and
    the files by these names."""
    names: dict[str, str] = {}

    def shorten(marker: re.Match[str]) -> str:
        file = re.sub(r"\\(.)", r"\1", marker.group("file"))
        if file.startswith("<") or Path(file).is_relative_to(HEADERS):
            return marker.group()
        return f'# {marker.group("line")} "{names.setdefault(file, f"/@{len(names)}")}"'

    return _MARKER.sub(shorten, code), {name: file for file, name in names.items()}


def _choose(path: Path, known: Mapping[str, Kernel], patterns: Sequence[str] | None) -> tuple[str, ...]:
    if patterns is None:
        return tuple(known)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        matches = fnmatch.filter(known, pattern)
        if not matches:
            raise KernelInvalid(f"{path}: no kernel matches {pattern}", hint=f"it has {len(known)}: {_some(known)}")
        chosen.update(dict.fromkeys(matches))
    return tuple(chosen)


def _some(names: Mapping[str, object]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "") or "none"


@functools.cache
def _own_digest() -> str:
    """Digest of the compiler and of all inputs that are not in the text."""
    digest = hashlib.sha256(repr((drivers(), _LANGUAGE, _OPTIMISE, _COUNTED, _EXECUTOR)).encode())
    for path in (*sorted(RUNTIME.iterdir()), HEADERS / "msl_interface.h", Path(__file__).with_name("instrument.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _build(
    path: Path,
    code: str,
    values: str,
    constants: Collection[str],
    places: Mapping[str, str],
    store: Path,
    key: str,
) -> None:
    def step(argv: Sequence[str | Path]) -> None:
        done = run(argv, check=False, timeout=MAX_SECONDS)
        if done.returncode:
            raise _explain(done, path, places)

    executor = _executor(store)
    with tempfile.TemporaryDirectory(prefix="metal-", dir=store) as folder:
        work = Path(folder)
        (work / "kernels.cpp").write_text(code, encoding="utf-8")
        flags = [*_LANGUAGE, *_OPTIMISE, *machine_flags(), "-nostdinc", "-fPIC", "-S", "-emit-llvm"]
        step([*drivers().front, *flags, work / "kernels.cpp", "-o", work / "kernels.ll"])
        text, profile = instrument((work / "kernels.ll").read_text(encoding="utf-8"), HEADERS, constants)
        (work / "counted.ll").write_text(text, encoding="utf-8")
        (work / "constants.c").write_text(values, encoding="utf-8")
        objects = [work / "counted.o", work / "constants.o"]
        step([*drivers().front, "-w", *_COUNTED, "-fPIC", "-c", work / "counted.ll", "-o", objects[0]])
        step([*drivers().front, "-w", "-fPIC", "-x", "c", "-c", work / "constants.c", "-o", objects[1]])
        step([*drivers().link, *objects, executor, "-o", work / "program", "-lm"])
        (work / "profile.json").write_bytes(msgspec.json.encode(profile))
        # the program last: if it exists, so does the rest
        os.replace(work / "profile.json", store / f"{key}.json")
        os.replace(work / "program", store / f"{key}.program")


def _prune(store: Path) -> None:
    """Delete the least recently used beyond `KEPT` programs, except those that a run may still use."""
    kept = sorted(store.glob("*.program"), key=lambda program: program.stat().st_mtime_ns)
    for program in kept[: max(len(kept) - KEPT, 0)]:
        if time.time() - program.stat().st_mtime > IN_USE_SECONDS:
            program.unlink(missing_ok=True)
            program.with_suffix(".json").unlink(missing_ok=True)


def _executor(store: Path) -> Path:
    """The executor's object file, compiled once for each cache."""
    out = store / f"executor-{_own_digest()[:16]}.o"
    if not out.is_file():
        part = out.with_suffix(f".{os.getpid()}-{threading.get_ident()}.o")
        run([*drivers().native, *_EXECUTOR, *machine_flags(), "-c", RUNTIME / "executor.cpp", "-o", part],
            failure=KernelInvalid, what="compiling the executor", timeout=MAX_SECONDS)  # fmt: skip
        os.replace(part, out)
    return out


def _explain(done: Completed, path: Path, places: Mapping[str, str] | None = None) -> KernelInvalid | NotModelled:
    """The compiler's error as one message with a line of the user's file."""
    errors: list[list[re.Match[str]]] = []
    output = done.output
    for name, file in (places or {}).items():
        output = output.replace(f"{name}:", f"{file}:")
    for message in _MESSAGE.finditer(output):
        if message.group("kind") != "note":
            errors.append([])
        if errors:
            errors[-1].append(message)
    if not errors:
        return KernelInvalid(f"{path}: the compiler failed:\n{output[-3000:].rstrip()}")
    lines = []
    for chain in errors[:10]:
        text = chain[0].group("text")
        # errors inside the harness's headers are reported at the line that used them
        inside = [message for message in chain if not message.group("file").startswith((str(HEADERS), "<"))]
        at = inside[0] if inside else chain[0]
        place = f"{at.group('file')}:{at.group('line')}"
        lines.append(f"{place}: {text}")
        if header := _APPLE_HEADERS.search(text):
            return NotModelled(f"{place}: the header {header.group(1)}")
        unknown = _UNKNOWN.search(text)
        if unknown and UNKNOWN_WORDS.fullmatch(unknown.group(1)):
            return NotModelled(f"{place}: {unknown.group(1)}")
    more = f"\n  and {len(errors) - 10} more" if len(errors) > 10 else ""
    return KernelInvalid("\n  ".join(lines) + more)
