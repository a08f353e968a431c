"""What no signature shows: which kernels the host code of a patched tree selects for our types, and which numbers
upstream's operations pass.

The tree's own Metal host code is compiled and run (`metal.host`), without Metal and without a work tree. The result
depends on a few files only, so it is cached by their contents.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..build.tools import compilers
from ..core import temporary
from ..core.cachetypes.table import BESIDE
from ..core.config import Config
from ..core.errors import BuildFailed, KernelInvalid, RecordError
from ..core.records import read as read_record
from ..core.records import record, sha256_bytes, sha256_file, write
from ..metal import host as metal_host
from ..metal.host import Dispatch, Host, Kind, RecordedOperation, Tensor, build_host
from ..series.manifest import Series
from ..series.patched import Patched, included, reader, write_out
from ..series.tree import Tree
from . import meaning
from .operations import NAMES, Posed, operations, retyped

_COPIES = frozenset(("kernel_flash_attn_ext_pad",))
"""upstream's kernels that move bytes of any type"""
_HERE = Path(__file__).parent
_JUDGING = [
    *(_HERE / f"{name}.py" for name in ("behaviour", "meaning", "operations")),
    _HERE / "meaning.c",
    Path(metal_host.__file__),
    *sorted((Path(metal_host.__file__).parent / "recorder").iterdir()),
]
_TOP = re.compile(r"ggml/(?:include|src)/[^/]+\.(?:h|c|cpp)$")
_METAL = "ggml/src/ggml-metal/"
_CPU = re.compile(r"ggml/src/ggml-cpu/[^/]+\.(?:h|c|cpp)$")
_WHOLE = "ggml/src/ggml-threading.cpp"


@record
class Behaviour:
    """What the host code does with our types; `skipped` says why it was not run."""

    skipped: str = ""
    operations: int = 0
    wrong: tuple[str, ...] = ()
    seconds: float = 0.0
    """0 when the result was cached"""


def behave(series: Series, tree: Tree, patched: Patched, config: Config, workspace: Path) -> Behaviour:
    """Run the host code of a tree with the series applied. A failure to compile it is a finding as well."""
    started = time.monotonic()
    paths = host_files(tree, patched)
    if not any(path.startswith(_METAL) for path in paths):
        return Behaviour(skipped="the tree has no Metal backend")
    kept = workspace / "contract" / f"behaviour-{_key(series, tree, patched, paths)}.json"
    try:
        return read_record(kept, Behaviour)
    except RecordError:
        pass  # not cached yet
    kind, cc, cxx = compilers(config.build, workspace)
    if not (cc.ok and cxx.ok):
        return Behaviour(skipped=f"no C++ compiler ({kind}): {cxx.hint or cc.hint}")
    with temporary.folder("behaviour") as made:
        root = made.resolve()
        read = reader(tree, patched)
        write_out(included(read, frozenset(paths), paths), root)
        found = _run_host(root, [one.name for one in series.types], config, workspace)
    write(kept, found)
    return Behaviour(**{**vars(found), "seconds": round(time.monotonic() - started, 1)})


def _run_host(root: Path, own: Sequence[str], config: Config, workspace: Path) -> Behaviour:
    wrong = list(meaning.changed(root, config, workspace))
    try:
        host = build_host(root, config, workspace)
        kinds = host.types()
        posed = list(operations(kinds, own))
        recorded = host.record([one.operation for one in posed])
        wrong += _grouped(_findings(host, kinds, own, posed, recorded))
    except msgspec.ValidationError:
        return Behaviour(wrong=(*wrong, "the Metal host code aborts on an operation that it claims to support"))
    except (BuildFailed, KernelInvalid) as error:
        return Behaviour(wrong=(*wrong, error.message.replace(f"{root}/", "")))
    return Behaviour(operations=len(posed), wrong=tuple(wrong))


@record
class _Finding:
    posed: Posed
    text: str


def _findings(
    host: Host,
    kinds: dict[str, Kind],
    own: Sequence[str],
    posed: Sequence[Posed],
    recorded: Sequence[RecordedOperation],
) -> Iterator[_Finding]:
    stem = re.sub(r"\d+$", "", own[0])
    ours, others = list[tuple[Posed, int, tuple[Any, ...]]](), list[Posed]()
    for one, answer in zip(posed, recorded, strict=True):
        if not answer.claimed:
            if one.types == f"{own[0]}:{own[0]}" and one.size == "128":
                yield _Finding(posed=one, text="the host code does not claim to support it")
            continue
        yield from memory_findings(one, answer)
        for number, tensor in enumerate(one.tensors):
            if tensor is None or tensor.type not in own:
                continue
            bound = _binding(answer, number)
            if not bound:
                yield _Finding(posed=one, text=f"no kernel gets {_called(one, number)}")
            foreign = [dispatch for dispatch in bound if not _is_ours(dispatch, stem)]
            for kernel in dict.fromkeys(dispatch.kernel for dispatch in foreign):
                by = _chosen_by(host, kinds, one, number, kernel)
                text = f"upstream's {kernel} gets {_called(one, number)}, which it cannot decode{by}"
                yield _Finding(posed=one, text=text)
            other = kinds[next(name for name in own if name != tensor.type)] if len(own) > 1 else None
            again = retyped(one, number, other) if other and bound and not foreign else None
            if again:
                ours.append((one, number, _choice(answer, number)))
                others.append(again)
    for (one, number, choice), answer in zip(ours, host.record([two.operation for two in others]), strict=True):
        if answer.claimed and _choice(answer, number) == choice:
            text = f"{choice[0][1]} and its constants are chosen regardless of the type of {_called(one, number)}"
            yield _Finding(posed=one, text=text)


def _called(posed: Posed, number: int) -> str:
    tensor = posed.tensors[number]
    return f"{NAMES[posed.operation.name][number]} ({tensor.type if tensor else 'none'})"


def _binding(answer: RecordedOperation, number: int) -> list[Dispatch]:
    return [
        dispatch
        for dispatch in answer.dispatches
        if any(tensor == number for tensor, _ in dispatch.buffers.values()) and dispatch.kernel not in _COPIES
    ]


def _is_ours(dispatch: Dispatch, stem: str) -> bool:
    # our library is named; our kernels in upstream's library are named after the types
    return bool(getattr(dispatch, "library", "")) or stem in dispatch.kernel


def _choice(answer: RecordedOperation, number: int) -> tuple[Any, ...]:
    return tuple(
        (getattr(dispatch, "library", ""), dispatch.kernel, tuple(sorted(dispatch.constants.items())))
        for dispatch in _binding(answer, number)
    )


def _chosen_by(host: Host, kinds: dict[str, Kind], posed: Posed, number: int, kernel: str) -> str:
    """Which operand's type determines upstream's choice of a kernel."""
    deciding = []
    for other, tensor in enumerate(posed.tensors):
        name = NAMES[posed.operation.name][other]
        if tensor is None or tensor.type in ("f32", "i32", "i64") or name in ("mask", "sinks", "rows"):
            continue
        if _decides(host, kinds, posed, other, tensor, number, kernel):
            deciding.append(name)
    return f": the choice depends on the type of {' and '.join(deciding)} only" if deciding else ""


def _decides(
    host: Host, kinds: dict[str, Kind], posed: Posed, other: int, tensor: Tensor, number: int, kernel: str
) -> bool:
    for name in (*BESIDE, *kinds):
        again = retyped(posed, other, kinds[name]) if name in kinds and name != tensor.type else None
        if again is None:
            continue
        try:
            answer = host.record([again.operation])[0]
        except (KernelInvalid, msgspec.ValidationError):
            continue  # upstream aborts on operations that no cache needs
        if answer.claimed:
            return kernel not in [dispatch.kernel for dispatch in _binding(answer, number)]
    return False


def memory_findings(posed: Posed, answer: RecordedOperation) -> Iterator[_Finding]:
    """Work memory after the result must be allocated."""
    result = posed.operation.result
    size = result.nb[-1] * result.ne[-1]
    for dispatch in answer.dispatches:
        for tensor, offset in dispatch.buffers.values():
            if tensor == 0 and offset > 0 and offset >= size + answer.extra:
                text = (
                    f"{dispatch.kernel} works at byte {offset} of the result, for which {size + answer.extra} bytes are"
                    " reserved"
                )
                yield _Finding(posed=posed, text=text)


def _grouped(findings: Iterator[_Finding]) -> list[str]:
    """One line for findings that repeat for several numbers of queries and head sizes."""
    groups: dict[tuple[str, str, str], list[Posed]] = {}
    for one in findings:
        said = re.sub(r"\b\d{3,}\b", "N", one.text) if "byte" in one.text else re.sub(r"_dk\d+_dv\d+", "", one.text)
        groups.setdefault((one.posed.operation.name, one.posed.types, said), []).append(one.posed)
    lines = []
    for (name, types, says), at in groups.items():
        where = f"{name} {types}"
        if name == "FLASH_ATTN_EXT":
            queries = ", ".join(map(str, sorted({one.queries for one in at})))
            sizes = ", ".join(dict.fromkeys(one.size for one in at))
            where += f" of {queries} queries, head size {sizes}"
        lines.append(f"{where}: {says}")
    return lines


def host_files(tree: Tree, patched: Patched) -> list[str]:
    """The source files of the host code."""
    there = {path for under in ("ggml/include", "ggml/src") for path in tree.paths(under)}
    there |= {path for path in patched.files if path.startswith("ggml/")}
    small = _WHOLE not in there
    return sorted(
        path
        for path in there
        if _TOP.match(path) or path.startswith(_METAL) or (_CPU.match(path) and (small or path.endswith(".h")))
    )


def _key(series: Series, tree: Tree, patched: Patched, paths: Sequence[str]) -> str:
    wanted = set(paths)
    listed = tree.contents("ggml/include", "ggml/src")
    lines = [f"{content}\t{path}" for path, content in listed.items() if path in wanted]
    ours = [sha256_bytes(patched.files[path]) for path in sorted(wanted & patched.files.keys())]
    judges = [sha256_file(path) for path in _JUDGING if path.is_file()]
    types = [one.name for one in series.types]
    return sha256_bytes("\n".join([*lines, *ours, *judges, *types]).encode())[:24]
