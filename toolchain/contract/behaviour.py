"""What only behaviour tells: which kernels the host code of a patched tree sends our types to, and what upstream's
operations hand it.

The tree's own Metal host code is compiled and asked (`metal.host`), without Metal and without a work tree. What it
answers depends on a few files alone, so that the answer is kept by their contents.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from ..build.tools import compilers
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
"""kernels of upstream's that move bytes whatever they mean"""
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
    """What the host code does with our types; `skipped` says why it was not asked."""

    skipped: str = ""
    operations: int = 0
    wrong: tuple[str, ...] = ()
    seconds: float = 0.0
    """0 where the answer was known"""


def behave(series: Series, tree: Tree, patched: Patched, config: Config, workspace: Path) -> Behaviour:
    """Ask the host code of a tree with the series in it. What keeps it from being compiled is a finding, too."""
    started = time.monotonic()
    paths = host_files(tree, patched)
    if not any(path.startswith(_METAL) for path in paths):
        return Behaviour(skipped="the tree has no Metal backend")
    kept = workspace / "contract" / f"behaviour-{_key(series, tree, patched, paths)}.json"
    try:
        return read_record(kept, Behaviour)
    except RecordError:
        pass  # never asked
    kind, cc, cxx = compilers(config.build, workspace)
    if not (cc.ok and cxx.ok):
        return Behaviour(skipped=f"no C++ compiler ({kind}): {cxx.hint or cc.hint}")
    with TemporaryDirectory(prefix="turboquant-behaviour-") as made:
        root = Path(made).resolve()
        read = reader(tree, patched)
        write_out(included(read, frozenset(paths), paths), root)
        found = _asked(root, [one.name for one in series.types], config, workspace)
    write(kept, found)
    return Behaviour(**{**vars(found), "seconds": round(time.monotonic() - started, 1)})


def _asked(root: Path, own: Sequence[str], config: Config, workspace: Path) -> Behaviour:
    wrong = list(meaning.changed(root, config, workspace))
    try:
        host = build_host(root, config, workspace)
        kinds = host.types()
        posed = list(operations(kinds, own))
        recorded = host.record([one.operation for one in posed])
        wrong += _grouped(_findings(host, kinds, own, posed, recorded))
    except msgspec.ValidationError:
        return Behaviour(wrong=(*wrong, "the host code of the Metal backend gives up on an operation that it claims"))
    except (BuildFailed, KernelInvalid) as error:
        return Behaviour(wrong=(*wrong, error.message.replace(f"{root}/", "")))
    return Behaviour(operations=len(posed), wrong=tuple(wrong))


@record
class _Objection:
    posed: Posed
    says: str


def _findings(
    host: Host,
    kinds: dict[str, Kind],
    own: Sequence[str],
    posed: Sequence[Posed],
    recorded: Sequence[RecordedOperation],
) -> Iterator[_Objection]:
    stem = re.sub(r"\d+$", "", own[0])
    ours, others = list[tuple[Posed, int, tuple[Any, ...]]](), list[Posed]()
    for one, answer in zip(posed, recorded, strict=True):
        if not answer.claimed:
            if one.types == f"{own[0]}:{own[0]}" and one.size == "128":
                yield _Objection(posed=one, says="the host code does not claim it")
            continue
        yield from memory_findings(one, answer)
        for number, tensor in enumerate(one.tensors):
            if tensor is None or tensor.type not in own:
                continue
            bound = _binding(answer, number)
            if not bound:
                yield _Objection(posed=one, says=f"no kernel is given {_called(one, number)}")
            foreign = [dispatch for dispatch in bound if not _is_ours(dispatch, stem)]
            for kernel in dict.fromkeys(dispatch.kernel for dispatch in foreign):
                by = _chosen_by(host, kinds, one, number, kernel)
                says = f"{kernel} of upstream's is given {_called(one, number)}, which it cannot decode{by}"
                yield _Objection(posed=one, says=says)
            other = kinds[next(name for name in own if name != tensor.type)] if len(own) > 1 else None
            again = retyped(one, number, other) if other and bound and not foreign else None
            if again:
                ours.append((one, number, _choice(answer, number)))
                others.append(again)
    for (one, number, choice), answer in zip(ours, host.record([two.operation for two in others]), strict=True):
        if answer.claimed and _choice(answer, number) == choice:
            says = f"{choice[0][1]} is chosen, with its constants, without regard to the type of {_called(one, number)}"
            yield _Objection(posed=one, says=says)


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
    # a library of ours has a name; a kernel of ours in upstream's library is named after the types
    return bool(getattr(dispatch, "library", "")) or stem in dispatch.kernel


def _choice(answer: RecordedOperation, number: int) -> tuple[Any, ...]:
    return tuple(
        (getattr(dispatch, "library", ""), dispatch.kernel, tuple(sorted(dispatch.constants.items())))
        for dispatch in _binding(answer, number)
    )


def _chosen_by(host: Host, kinds: dict[str, Kind], posed: Posed, number: int, kernel: str) -> str:
    """Which operand's type it is that upstream chose a kernel by."""
    deciding = []
    for other, tensor in enumerate(posed.tensors):
        name = NAMES[posed.operation.name][other]
        if tensor is None or tensor.type in ("f32", "i32", "i64") or name in ("mask", "sinks", "rows"):
            continue
        if _decides(host, kinds, posed, other, tensor, number, kernel):
            deciding.append(name)
    return f": it is chosen by the type of {' and '.join(deciding)} alone" if deciding else ""


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
            continue  # upstream gives up on what no cache asks for
        if answer.claimed:
            return kernel not in [dispatch.kernel for dispatch in _binding(answer, number)]
    return False


def memory_findings(posed: Posed, answer: RecordedOperation) -> Iterator[_Objection]:
    """Work memory behind the result has to be there."""
    result = posed.operation.result
    size = result.nb[-1] * result.ne[-1]
    for dispatch in answer.dispatches:
        for tensor, offset in dispatch.buffers.values():
            if tensor == 0 and offset > 0 and offset >= size + answer.extra:
                says = (
                    f"{dispatch.kernel} works at byte {offset} of the result, for which {size + answer.extra} bytes are"
                    " reserved"
                )
                yield _Objection(posed=posed, says=says)


def _grouped(findings: Iterator[_Objection]) -> list[str]:
    """One line for what is the same at several numbers of queries and head sizes."""
    groups: dict[tuple[str, str, str], list[Posed]] = {}
    for one in findings:
        said = re.sub(r"\b\d{3,}\b", "N", one.says) if "byte" in one.says else re.sub(r"_dk\d+_dv\d+", "", one.says)
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
    """The files that the host code is made of."""
    there = {path for under in ("ggml/include", "ggml/src") for path in tree.repository.paths(tree.commit, under)}
    there |= {path for path in patched.files if path.startswith("ggml/")}
    small = _WHOLE not in there
    return sorted(
        path
        for path in there
        if _TOP.match(path) or path.startswith(_METAL) or (_CPU.match(path) and (small or path.endswith(".h")))
    )


def _key(series: Series, tree: Tree, patched: Patched, paths: Sequence[str]) -> str:
    listed = tree.repository.git(
        "ls-tree", "-r", "--full-tree", tree.commit, "--", "ggml/include", "ggml/src/ggml-cpu", _METAL, "ggml/src"
    )
    wanted = set(paths)
    lines = [line for line in listed.splitlines() if line.partition("\t")[2] in wanted]
    ours = [sha256_bytes(patched.files[path]) for path in sorted(wanted & patched.files.keys())]
    judges = [sha256_file(path) for path in _JUDGING if path.is_file()]
    types = [one.name for one in series.types]
    return sha256_bytes("\n".join([*lines, *ours, *judges, *types]).encode())[:24]
