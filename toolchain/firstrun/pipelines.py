"""Every pipeline that a tree's Metal host code asks for in a cache of our types, and what a GPU says of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from ..core import records
from ..core.errors import KernelInvalid, NotModelled
from ..core.records import record
from ..core.run import Run
from ..metal import cases
from ..metal.attention import Attention, pose
from ..metal.formats import formats
from ..metal.host import Dispatch, build_host
from ..metal.layout import KernelSource, kernel_sources
from ..metal.libraries import Libraries
from ..metal.runs import compile_tree
from ..series.manifest import load_series

PROGRAM = Path(__file__).with_name("compile_kernels.m")
MACROS = {"GGML_METAL_HAS_BF16": "1"}
"""what the host code defines for every Apple GPU since the M1"""
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)".*$', re.MULTILINE)
_DEEPEST = 8


@record
class Pipeline:
    """A kernel with its function constants, and the most that any dispatch asks of it.

    `threads` of a threadgroup; `memory`: bytes that the host gives it as a threadgroup argument. `static` are the bytes
    of its own threadgroup variables as the harness counts them, None if it did not.
    """

    library: str
    kernel: str
    constants: dict[str, bool | int]
    threads: int
    memory: int
    static: int | None = None


@record
class Wanted:
    """What a GPU has to compile: the source of each library by name, and pipelines."""

    sources: dict[str, str]
    macros: dict[str, dict[str, str]]
    pipelines: tuple[Pipeline, ...]


@record
class Gpu:
    """What the device says of itself; times and sizes in seconds and bytes."""

    device: str
    threads: int = 0
    memory: int = 0
    apple7: bool = False
    metal3: bool = False


@record
class MadeLibrary:
    """A source that was compiled, or why not."""

    library: str
    seconds: float = 0.0
    functions: int = 0
    error: str = ""


@record
class MadePipeline:
    """A pipeline by its number in the request, or why there is none."""

    pipeline: int
    kernel: str = ""
    seconds: float = 0.0
    threads: int = 0
    width: int = 0
    memory: int = 0
    error: str = ""


@record
class Made:
    """All that the program printed. `gpu` is None if it printed no device."""

    gpu: Gpu | None
    libraries: tuple[MadeLibrary, ...]
    pipelines: tuple[MadePipeline, ...]


def wanted(run: Run, tree: Path, *, full: bool = True) -> Wanted:
    """What the host code of a patched tree asks for, in every case of `metal.run`. Raises as `build_host`."""
    host = build_host(tree, run.config, run.workspace)
    series = load_series(run)
    known = formats(series, run.config, run.workspace)
    own = [kind.name for kind in series.types]
    operations = [case.operation for name in own for case in cases.conversions(known[name])]
    operations += [pose(case, known).operation for case in (*cases.attentions(own, full), *_foreign())]
    found: dict[tuple[str, str, str], Pipeline] = {}
    for recorded in host.record(operations):
        for dispatch in recorded.dispatches:
            _add(found, dispatch)
    sources = host.sources(operations)
    macros: dict[str, dict[str, str]] = {name: {} for name in sources}
    for part in kernel_sources(tree):
        sources[part.path.name] = inlined(part)
        macros[part.path.name] = {**MACROS, **part.defines}
    return Wanted(sources=sources, macros=macros, pipelines=tuple(found.values()))


def counted(run: Run, tree: Path, asked: Wanted) -> Wanted:
    """The same with the static threadgroup memory of our own kernels, from the harness. Raises as `compile_tree`."""
    host = build_host(tree, run.config, run.workspace)
    series = load_series(run)
    known = formats(series, run.config, run.workspace)
    name = series.types[0].name
    tiny = [pose(Attention(k=name, v=name, dk=64, dv=64), known).operation]
    libraries = compile_tree(tree, host, run.workspace, tiny, kernels=())
    with ThreadPoolExecutor() as pool:
        pipelines = tuple(pool.map(lambda one: _counted(libraries, one), asked.pipelines))
    return replace(asked, pipelines=pipelines)


def inlined(part: KernelSource) -> str:
    """The text that a device compiles for a library: it has no include files of the tree's."""
    if part.text:
        return part.text
    folders = (part.path.parent, *part.include)
    return _expanded(part.path.read_text(encoding="utf-8"), folders, set(), 0)


def request(asked: Wanted, folder: Path) -> Path:
    """Write the sources and the program's request into a folder; the path of the latter."""
    libraries = []
    for number, (name, text) in enumerate(asked.sources.items()):
        path = folder / f"library-{number}.metal"
        records.write_bytes(path, text.encode())
        libraries.append({"name": name, "path": str(path), "macros": asked.macros.get(name, {})})
    pipelines = [{"library": one.library, "kernel": one.kernel, "constants": one.constants} for one in asked.pipelines]
    file = folder / "request.json"
    records.write(file, {"libraries": libraries, "pipelines": pipelines})
    return file


def read(output: str) -> Made:
    """What the program printed; lines of other programs, and those that are damaged, are passed over."""
    gpu, libraries, pipelines = None, [], []
    for line in _lines(output):
        if found := _as(line, "device", Gpu):
            gpu = found
        elif made := _as(line, "library", MadeLibrary):
            libraries.append(made)
        elif one := _as(line, "pipeline", MadePipeline):
            pipelines.append(one)
    return Made(gpu=gpu, libraries=tuple(libraries), pipelines=tuple(pipelines))


def _lines(output: str) -> Iterator[Any]:
    for line in output.splitlines():
        if line.startswith("{"):
            try:
                yield msgspec.json.decode(line)
            except msgspec.DecodeError:
                continue


def _as(line: Any, key: str, kind: type[Any]) -> Any:
    if not isinstance(line, Mapping) or key not in line:
        return None
    try:
        return msgspec.convert(line, kind, strict=False)
    except msgspec.ValidationError:
        return None


def _foreign() -> Iterator[Attention]:
    """A cache of ours beside one of upstream's is in the cases already; these are upstream's alone."""
    yield from cases.foreign()


def _add(found: dict[tuple[str, str, str], Pipeline], dispatch: Dispatch) -> None:
    x, y, z = dispatch.threads
    constants = dict(sorted(dispatch.constants.items()))
    key = dispatch.library, dispatch.kernel, repr(constants)
    before = found.get(key)
    found[key] = Pipeline(
        library=dispatch.library,
        kernel=dispatch.kernel,
        constants=constants,
        threads=max(x * y * z, before.threads if before else 0),
        memory=max(dispatch.memory, before.memory if before else 0),
    )


def _counted(libraries: Libraries, one: Pipeline) -> Pipeline:
    if not one.library:
        return one
    dispatch = Dispatch(
        kernel=one.kernel, library=one.library, constants=one.constants, bytes={}, buffers={}, memory=one.memory,
        groups=(1, 1, 1), threads=(one.threads, 1, 1),
    )  # fmt: skip
    try:
        return replace(one, static=libraries.of(dispatch).threadgroup_bytes(one.kernel))
    except (KernelInvalid, NotModelled):
        return one


def _expanded(text: str, folders: Sequence[Path], seen: set[Path], depth: int) -> str:
    """The text with its include files, each once, as all of ours and ggml's have a guard."""

    def inserted(found: re.Match[str]) -> str:
        path = next((folder / found[1] for folder in folders if (folder / found[1]).is_file()), None)
        if path is None or depth >= _DEEPEST:
            return found[0]  # the compiler says what is missing
        if path in seen:
            return ""
        seen.add(path)
        return _expanded(path.read_text(encoding="utf-8"), (path.parent, *folders), seen, depth + 1)

    return _INCLUDE.sub(inserted, text)
