"""`metal.audit`: which cache types of a tree have which Metal kernels, and what the host code claims without one.

The kernels are those of the source as the harness compiles it, and the claims and names those that the tree's own host
code gives when it is asked for an operation. A search for names is `fork.metal`.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..core.config import Config
from ..core.console import Console
from ..core.errors import BuildFailed, KernelInvalid, MetalLayoutUnknown, NotModelled, UnknownRevision
from ..core.records import record
from ..core.run import Run
from ..sources import Repository, open_origin
from ..sources.branches import branches
from .backend import Backend, check_kernels
from .cases import SIZES
from .host import Host, Kind, Operation, Tensor, build_host
from .libraries import Libraries

_OURS = re.compile(r"turbo|polar|tbq", re.IGNORECASE)
_UNDER = ("ggml/include", "ggml/src")
_TAKEN = re.compile(
    r"ggml/(include|src|src/ggml-metal|src/ggml-metal/kernels|src/ggml-cpu)/[^/]+\.(h|c|cpp|m|metal)$"
    r"|ggml/src/ggml-metal/CMakeLists\.txt$"
)

Verdict = Literal["complete", "partial", "none", "unknown"]
Kernels = frozenset[tuple[str, str]]
"""library and name of each"""
Answer = Literal["kernel", "claimed, no kernel", "not claimed", "no block fits", "host gives up"]


@record
class AuditedType:
    """One type: what the host answers for each operation, and what a cache of it would miss."""

    type: str
    block: int
    bytes: int
    answers: dict[str, Answer]
    absent: dict[str, str]
    """kernels that are asked for and not there, and the operation that asks"""
    verdict: Verdict
    missing: tuple[str, ...]


@record
class TreeAudit:
    """One tree. Branches with the same Metal sources are one."""

    branches: tuple[str, ...]
    commit: str
    kernels: int
    types: tuple[AuditedType, ...]
    verdict: Verdict
    why: str = ""
    """what kept the audit from an answer"""


class TreeAudits(tuple[TreeAudit, ...]):
    """One for each tree, or for branches that are the same."""


def choose(run: Run, names: Sequence[str], tree: Path | None) -> TreeAudits:
    """The tree, or the branches `names` of the configured fork (all, if none is named)."""
    if tree:
        return TreeAudits([audit_tree(tree, run.config, run.workspace)])
    return audit_fork(run.config, run.console, run.workspace, names)


def audit_fork(config: Config, console: Console, workspace: Path, names: Sequence[str] = ()) -> TreeAudits:
    """Audit the branches of the configured fork (llama.cpp's own repository where there is none), or those named.

    Raises `UnknownRevision` for a branch that is not there.
    """
    origin = config.fork.origin or config.sources.llama_cpp
    with open_origin("llama.cpp", origin, config, console) as repository:
        tips = branches(repository)
        for name in names:
            if name not in tips:
                raise UnknownRevision(f"{origin}: no branch {name}", hint=f"it has {', '.join(list(tips)[:8])}")
        groups: dict[str, list[str]] = {}
        for name in names or tips:
            groups.setdefault(_digest(repository, tips[name]), []).append(name)
        done = []
        for group in groups.values():
            commit = tips[group[0]]
            with console.step(f"audit {group[0]}"), tempfile.TemporaryDirectory(prefix="audit-") as folder:
                _extract(repository, commit, Path(folder))
                done.append(audit_tree(Path(folder), config, workspace, branches=tuple(group), commit=commit))
    return TreeAudits(done)


def audit_tree(
    tree: Path, config: Config, workspace: Path, *, branches: tuple[str, ...] = (), commit: str = ""
) -> TreeAudit:
    """Audit the sources at `tree`. What does not compile is an answer, too."""
    names = branches or (str(tree),)
    try:
        backend = Backend(tree, workspace / "metal" / "kernels")
        check_kernels(tree, {"GGML_METAL_HAS_BF16": "1"})
        host = build_host(tree, config, workspace)
        kinds = host.types()
        asked = [
            operation
            for kind in kinds.values()
            if _OURS.search(kind.name)
            for operation in _operations(kinds, kind).values()
            if operation
        ]
        kernels = Libraries(backend, host.sources(asked), host.program.parent).known()
    except (KernelInvalid, NotModelled, MetalLayoutUnknown, BuildFailed) as error:
        return TreeAudit(branches=names, commit=commit, kernels=0, types=(), verdict="unknown", why=error.message)
    found = tuple(_audit_type(host, kernels, kinds, kind) for kind in kinds.values() if _OURS.search(kind.name))
    verdicts = {kind.verdict for kind in found}
    verdict: Verdict = "none" if verdicts <= {"none"} else "complete" if verdicts == {"complete"} else "partial"
    return TreeAudit(branches=names, commit=commit, kernels=len(kernels), types=found, verdict=verdict)


def _audit_type(host: Host, kernels: Kernels, kinds: dict[str, Kind], kind: Kind) -> AuditedType:
    answers: dict[str, Answer] = {}
    absent: dict[str, str] = {}
    for what, operation in _operations(kinds, kind).items():
        if operation is None:
            answers[what] = "no block fits"
            continue
        try:
            recorded = host.record([operation])[0]
        except KernelInvalid:
            answers[what] = "host gives up"
            continue
        asked = [
            dispatch.kernel for dispatch in recorded.dispatches if (dispatch.library, dispatch.kernel) not in kernels
        ]
        absent |= dict.fromkeys(asked, what)
        answers[what] = "not claimed" if not recorded.claimed else "claimed, no kernel" if asked else "kernel"
    missing = tuple(
        f"{what} ({answer})" for what, answer in answers.items() if answer != "kernel" and answer != "no block fits"
    )
    has = any(answer == "kernel" for answer in answers.values())
    verdict: Verdict = "complete" if not missing else "partial" if has else "none"
    return AuditedType(type=kind.name, block=kind.block, bytes=kind.bytes, answers=answers, absent=absent,
                       verdict=verdict, missing=missing)  # fmt: skip


def _operations(kinds: dict[str, Kind], kind: Kind) -> dict[str, Operation | None]:
    """What a cache of the type asks of a backend; None for a head size that the type has no whole block for."""
    width = max(kind.block, 128)
    rows, floats = _tensor(kind, width, 2), _tensor(kinds["f32"], width, 2)
    result: dict[str, Operation | None] = {
        "set_rows": Operation(name="SET_ROWS", result=rows, operands=(floats, _tensor(kinds["i64"], 2))),
        "get_rows": Operation(name="GET_ROWS", result=floats, operands=(rows, _tensor(kinds["i32"], 2))),
        "copy from f32": Operation(name="CPY", result=rows, operands=(floats,)),
        "copy to f32": Operation(name="CPY", result=floats, operands=(rows,)),
    }
    for dk, dv in SIZES:
        for queries, kernel in ((1, "one token"), (33, "prompts")):
            for k in (kind, kinds["q8_0"]):
                fits = dk % kind.block == 0 and dv % kind.block == 0
                name = f"attention {k.name}/{kind.name} {dk}/{dv}, {kernel}"
                result[name] = _attention(kinds, k, kind, (dk, dv), queries) if fits else None
    return result


def _attention(kinds: dict[str, Kind], k: Kind, v: Kind, size: tuple[int, int], queries: int) -> Operation:
    f32, (dk, dv) = kinds["f32"], size
    mask = _tensor(kinds["f16"], 64, 64)
    return Operation(
        name="FLASH_ATTN_EXT",
        result=_tensor(f32, dv, 1, queries),
        operands=(_tensor(f32, dk, queries, 1), _tensor(k, dk, 64, 1), _tensor(v, dv, 64, 1), mask, None),
        parameters=(0x3F800000, 0, 0),
    )


def _tensor(kind: Kind, *ne: int) -> Tensor:
    nb = [kind.bytes, ne[0] // kind.block * kind.bytes]
    for n in ne[1:]:
        nb.append(nb[-1] * n)
    return Tensor(type=kind.name, ne=ne, nb=tuple(nb[: len(ne)]))


def _digest(repository: Repository, commit: str) -> str:
    listed = repository.git("ls-tree", "-r", "--full-tree", commit, "--", *_UNDER)
    wanted = [line for line in listed.splitlines() if _TAKEN.search(line)]
    return hashlib.sha256("\n".join(wanted).encode()).hexdigest()


def _extract(repository: Repository, commit: str, folder: Path) -> None:
    for under in _UNDER:
        for path in filter(_TAKEN.match, repository.paths(commit, under)):
            content = repository.read_blob(commit, path)
            if content is not None:
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
