"""The series: it applies to a proven Ollama and the llama.cpp that it pins, and fits this machine's compiler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...build.tools import compilers
from ...contract.check import Checked
from ...core.errors import ToolchainError
from ...core.records import to_json
from ...stages import Rendered, Scratch
from .. import toolkit
from ..assumption import Area, Assumption, Finding
from ..bench import Bench, Evidence
from ..findings import judged, untested

_HEADERS = ("llama.h", "ggml.h", "ggml-alloc.h", "ggml-backend.h", "ggml-cpu.h", "ggml-metal.h")
_FAILED = ("moved", "broken")
"""status of an edit that does not apply"""
_INCLUDE = ("include", "ggml/include")
_LANGUAGES = {"c": ("c11", 0), "c++": ("c++17", 1)}
_SEEDS = ("1", "2")
"""of Python's hashes, on which the order of a set depends"""


def _examine(bench: Bench) -> Iterator[Finding]:
    yield from _checked(bench)
    yield _same_twice(bench)
    yield _headers(bench)


def _checked(bench: Bench) -> Iterator[Finding]:
    answer = toolkit.task(bench, "series.check")
    found, seen = answer.read(Checked), answer.evidence
    if found is None or not found.edits:
        reason = found.reason if found else ""
        for identifier in ("series.applies", "series.contract", "series.behaviour"):
            yield untested(identifier, reason or answer.complaint or "series.check printed no result", seen)
        return
    failed = [f"{edit.name}: {edit.reason or edit.status}" for edit in found.edits if edit.status in _FAILED]
    trees = f"Ollama {found.ollama} and llama.cpp {found.llama_cpp}"
    applied = sum(edit.status == "applies" for edit in found.edits)
    rest = len(found.edits) - applied
    reason = f"{applied} edits apply to {trees}" + (f", {rest} are not needed there" if rest else "")
    yield judged("series.applies", not failed and not found.reason, "; ".join(failed) or found.reason or reason, seen)
    breaches = "; ".join(map(str, found.contract[:3]))
    if not found.symbols:
        yield untested("series.contract", "no symbol was compared, as an edit does not apply", seen)
    else:
        same = f"{found.symbols} symbols of {trees} are declared as recorded"
        yield judged("series.contract", not found.contract, breaches or same, seen)
    behaviour = found.behaviour
    if behaviour is None or behaviour.skipped:
        why = behaviour.skipped if behaviour else "edits or contract failed"
        yield untested("series.behaviour", why, seen)
    else:
        right = f"the host code handles {behaviour.operations} operations on our types as it must"
        yield judged("series.behaviour", not behaviour.wrong, "; ".join(behaviour.wrong[:3]) or right, seen)


def _same_twice(bench: Bench) -> Finding:
    answers = [toolkit.task(bench, "series.render", env={"PYTHONHASHSEED": seed}) for seed in _SEEDS]
    seen = tuple(answer.evidence for answer in answers)
    for answer in answers:
        if not answer.ok or answer.read(Rendered) is None:
            return untested("series.deterministic", answer.complaint or "series.render printed no result", *seen)
    first, second = (to_json(answer.document) for answer in answers)
    return judged(
        "series.deterministic",
        first == second,
        f"two processes rendered {len(first)} bytes, which are equal" if first == second else "two renderings differ",
        *seen,
    )


def _headers(bench: Bench) -> Finding:
    """Each header alone, so that none needs one that another compiler's includes by chance."""
    made = toolkit.task(bench, "series.branch")
    scratch = made.read(Scratch)
    if scratch is None:
        return untested("series.headers", made.complaint or "series.branch printed no result", made.evidence)
    try:
        drivers = [tool.require() for tool in compilers(bench.run.config.build, bench.run.workspace)[1:]]
    except ToolchainError as error:
        return untested("series.headers", error.message, made.evidence)
    seen: list[Evidence] = []
    tree = Path(scratch.llama_cpp)
    folders = [word for folder in _INCLUDE for word in ("-I", str(tree / folder))]
    names = [name for name in _HEADERS if any((tree / folder / name).is_file() for folder in _INCLUDE)]
    for language, (standard, driver) in _LANGUAGES.items():
        if language == "c" and toolkit.is_miniature(bench.run.config):
            continue  # whose llama.h is C++
        for name in names:
            source = bench.folder / f"alone-{name.removesuffix('.h')}.{'c' if language == 'c' else 'cpp'}"
            source.write_text(f"#include <{name}>\n", encoding="utf-8")
            seen.append(
                bench.call([drivers[driver].path, f"-std={standard}", "-fsyntax-only", "-Wall", *folders, source])
            )
    failed = [one for one in seen if one.code != 0]
    version = drivers[1].version
    if failed:
        errors = [line for line in failed[0].output.splitlines() if "error" in line] or [failed[0].output.strip()]
        return judged("series.headers", False, f"{len(failed)} of {len(seen)} do not compile: {errors[0]}", *seen)
    return judged("series.headers", True, f"{', '.join(names)} compile alone, with compiler {version}", *seen)


AREA = Area(
    name="series",
    assumptions=(
        Assumption(
            id="series.applies",
            statement="Every edit of the series applies to the proven Ollama and to the llama.cpp that it pins.",
            how="The dry run of the series: series.check.",
            portable=True,
        ),
        Assumption(
            id="series.contract",
            statement="llama.cpp declares every symbol that the series' sources use as it was recorded.",
            how="series.check compares the declarations with patches/contract.txt.",
            portable=True,
        ),
        Assumption(
            id="series.behaviour",
            statement="llama.cpp's Metal host code, compiled with this machine's compiler, selects the kernels for our "
            "types that it must.",
            how="series.check compiles that host code against a recorder, and runs it.",
        ),
        Assumption(
            id="series.deterministic",
            statement="The same series and trees are rendered to the same bytes.",
            how="Two processes render it, with different seeds of Python's hashes.",
            portable=True,
        ),
        Assumption(
            id="series.headers",
            statement="The public headers of the patched llama.cpp compile with this machine's compiler and SDK.",
            how="Each header alone is given to the compiler, as C and as C++.",
        ),
    ),
    examine=_examine,
)
