"""Metal: every pipeline for a cache of our types, compiled by this GPU's own driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...core.errors import ToolchainError
from ...metal.library import MAX_MEMORY, MAX_THREADS
from .. import pipelines, toolkit
from ..assumption import Area, Assumption, Finding
from ..bench import FRAMEWORKS, Bench, Evidence
from ..findings import DISCOVERY_S, GPU, judged, require_release, untested
from ..pipelines import Made, MadePipeline, Pipeline, Wanted

WIDTH = 32
"""threads of a SIMD group, which kernels and harness take for granted"""
_ALIGNED = 64
"""a driver aligns each variable in threadgroup memory"""
_SECONDS = 3600.0
_NAMED = 4


def _examine(bench: Bench) -> Iterator[Finding]:
    if not bench.on_mac:
        yield from (untested(one.id, f"needs {GPU}") for one in AREA.assumptions)
        return
    release = require_release(bench)
    tree = Path(toolkit.scratch_of(bench, release).llama_cpp)
    asked, doubt = _asked(bench, tree)
    program, compiled = _program(bench)
    if compiled.code != 0:
        yield from (untested(one.id, "the program that asks the GPU does not compile", compiled) for one in _ALL)
        return
    folder = bench.folder / "kernels"
    folder.mkdir(exist_ok=True)
    seen = bench.call([program, pipelines.request(asked, folder)], timeout=_SECONDS)
    yield from judge(asked, pipelines.read(seen.output), doubt, compiled, seen)


def _asked(bench: Bench, tree: Path) -> tuple[Wanted, str]:
    """The pipelines, and why the harness did not count their memory."""
    with bench.run.console.step("the pipelines that the host code asks for"):
        asked = pipelines.wanted(bench.run, tree)
    try:
        with bench.run.console.step("their threadgroup memory, by the harness"):
            return pipelines.counted(bench.run, tree, asked), ""
    except ToolchainError as error:
        return asked, error.message


def _program(bench: Bench) -> tuple[Path, Evidence]:
    program = bench.folder / "compile_kernels"
    words = ["-O1", "-fobjc-arc", "-Wall", *FRAMEWORKS]
    return program, bench.call(["clang", *words, pipelines.PROGRAM, "-o", program])


def judge(asked: Wanted, made: Made, doubt: str, *seen: Evidence) -> Iterator[Finding]:
    """The findings on what a GPU answered to `asked`; `doubt` says why the harness counted nothing."""
    if made.gpu is None:
        said = seen[-1].output.strip().splitlines()[-1:] if seen else []
        reason = f"the GPU did not answer: {said[0] if said else 'nothing was printed'}"
        yield from (untested(one.id, reason, *seen) for one in _ALL)
        return
    gpu = made.gpu
    told = f"{gpu.device}: {gpu.threads} threads and {gpu.memory} bytes for a threadgroup"
    enough = gpu.threads >= MAX_THREADS and gpu.memory >= MAX_MEMORY and gpu.apple7
    yield judged("metal.device", enough, told + ("" if gpu.apple7 else ", older than Apple7"), *seen)
    failed = [f"{one.library}: {one.error.splitlines()[0]}" for one in made.libraries if one.error]
    absent = [name for name in asked.sources if name not in {one.library for one in made.libraries}]
    failed += [f"{name}: no answer" for name in absent]
    times = ", ".join(f"{one.library} {one.seconds:.1f} s" for one in made.libraries if not one.error)
    yield judged("metal.libraries", not failed, "; ".join(failed) or times, *seen)
    pairs = [(asked.pipelines[one.pipeline], one) for one in made.pipelines if one.pipeline < len(asked.pipelines)]
    yield _all_made(asked, pairs, *seen)
    good = [(want, got) for want, got in pairs if not got.error]
    if not good:
        for one in _AFTER:
            yield untested(one, "no pipeline could be made", *seen)
        return
    yield _fast(made, *seen)
    yield _threads(good, *seen)
    yield _memory(good, gpu.memory, doubt, *seen)


def _all_made(asked: Wanted, pairs: Sequence[tuple[Pipeline, MadePipeline]], *seen: Evidence) -> Finding:
    failed = [f"{want.kernel} {want.constants}: {got.error}" for want, got in pairs if got.error]
    lacking = len(asked.pipelines) - len(pairs)
    if failed or lacking:
        unanswered = f"; {lacking} without an answer" if lacking else ""
        reason = f"{len(failed)} of {len(asked.pipelines)} cannot be made: {_some(failed)}"
        return judged("metal.pipelines", False, reason + unanswered, *seen)
    return judged("metal.pipelines", True, f"all {len(pairs)} can be made", *seen)


def _fast(made: Made, *seen: Evidence) -> Finding:
    """All at once is more than any model needs."""
    libraries = sum(one.seconds for one in made.libraries)
    each = sorted((one.seconds, one.kernel) for one in made.pipelines if not one.error)
    total = libraries + sum(seconds for seconds, _ in each)
    slowest = ", ".join(f"{kernel} {seconds:.2f} s" for seconds, kernel in reversed(each[-3:]))
    reason = (
        f"{libraries:.1f} s for libraries, {total - libraries:.1f} s for {len(each)} pipelines; the slowest: {slowest}"
    )
    return judged("metal.time", libraries + each[-1][0] < DISCOVERY_S, reason, *seen)


def _threads(good: Sequence[tuple[Pipeline, MadePipeline]], *seen: Evidence) -> Finding:
    few = [f"{want.kernel} {want.constants}: {got.threads} of {want.threads} threads" for want, got in good
           if got.threads < want.threads]  # fmt: skip
    few += [f"{want.kernel}: {got.width} threads in a SIMD group" for want, got in good if got.width != WIDTH]
    least = min(good, key=lambda pair: pair[1].threads - pair[0].threads)
    reason = f"the closest: {least[0].kernel}, which needs {least[0].threads} and may have {least[1].threads}"
    return judged("metal.threads", not few, _some(few) or reason, *seen)


def _memory(good: Sequence[tuple[Pipeline, MadePipeline]], limit: int, doubt: str, *seen: Evidence) -> Finding:
    much = [f"{want.kernel} {want.constants}: {got.memory + want.memory} bytes" for want, got in good
            if got.memory + want.memory > limit]  # fmt: skip
    compared = [(want, got) for want, got in good if want.static is not None]
    other = [f"{want.kernel} {want.constants}: {got.memory} bytes, the harness counts {want.static}"
             for want, got in compared if abs(got.memory - (want.static or 0)) >= _ALIGNED]  # fmt: skip
    if not compared and not much:
        return untested("metal.memory", f"the harness counted nothing: {doubt or 'no kernel of ours'}", *seen)
    most = max(got.memory + want.memory for want, got in good)
    reason = f"at most {most} of {limit} bytes; {len(compared)} as the harness counts"
    return judged("metal.memory", not much and not other, _some([*much, *other]) or reason, *seen)


def _some(lines: Sequence[str]) -> str:
    more = f"; and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
    return "; ".join(lines[:_NAMED]) + more


_HOW = "A small program compiles what llama.cpp embeds, and makes each pipeline that its host code asks for."

AREA = Area(
    name="metal",
    assumptions=(
        Assumption(
            id="metal.device",
            statement=f"The GPU gives a threadgroup {MAX_THREADS} threads and {MAX_MEMORY} bytes, and has the "
            "SIMD-group matrices of Apple7.",
            needs=GPU,
            how="The limits that Metal states.",
        ),
        Assumption(
            id="metal.libraries",
            statement="Every Metal source, upstream's and ours, compiles on this GPU.",
            needs=GPU,
            how=_HOW,
        ),
        Assumption(
            id="metal.pipelines",
            statement="Every pipeline that the host code asks for with our types can be made, with its constants.",
            needs=GPU,
            how=_HOW,
        ),
        Assumption(
            id="metal.time",
            statement=f"The sources and any one pipeline compile within the {DISCOVERY_S:g} s after which Ollama gives "
            "up on a GPU.",
            needs=GPU,
            how=_HOW,
        ),
        Assumption(
            id="metal.threads",
            statement="Every pipeline may have the threads that the host code dispatches, in SIMD groups of 32.",
            needs=GPU,
            how="maxTotalThreadsPerThreadgroup and threadExecutionWidth of each pipeline.",
        ),
        Assumption(
            id="metal.memory",
            statement="Every pipeline has the threadgroup memory that the harness counts, within the GPU's limit.",
            needs=GPU,
            how="staticThreadgroupMemoryLength of each pipeline, and what the host code adds.",
        ),
    ),
    examine=_examine,
)
_ALL = AREA.assumptions
_AFTER = ("metal.time", "metal.threads", "metal.memory")
