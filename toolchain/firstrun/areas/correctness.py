"""What a release computes: the whole verification, and the GPU's operations against the CPU's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ... import pipeline
from ...core.errors import ConfigError, ToolchainError
from ...core.records import to_json
from ...metal import device
from ...metal.results import MetalRun
from ...proofs import Verification
from ...stages import Release
from ...verify import evidence, on_gpu
from .. import toolkit
from ..assumption import Area, Assumption, Finding
from ..bench import Bench, Evidence
from ..findings import DISCOVERY_S, GPU, judged, require_release, untested

VALIDATION = {
    "MTL_DEBUG_LAYER": "1",
    "MTL_SHADER_VALIDATION": "1",
    "MTL_SHADER_VALIDATION_REPORT_TO_STDERR": "1",
}
"""Metal's own checks of each command and of each access of a kernel"""
_COMPLAINT = re.compile(
    r"^.*(?:Invalid device (?:load|store)|out of bounds|validation (?:failed|error)|failed assertion|-\[MTL).*$",
    re.MULTILINE | re.IGNORECASE,
)
_NAMED = 3


def _examine(bench: Bench) -> Iterator[Finding]:
    release = require_release(bench)
    yield from _verified(bench, release)
    if not bench.on_mac:
        for identifier in ("correctness.gpu-operations", "correctness.backend-ops", "correctness.shader-validation"):
            yield untested(identifier, f"needs {GPU}")
        return
    yield _probed(bench, release)
    yield from _backend_ops(bench)


def _verified(bench: Bench, release: Release) -> Iterator[Finding]:
    config, doubt = bench.run.config, ""
    try:
        model = toolkit.model_of(config)
        config = replace(config, verify=replace(config.verify, model=str(model or "")))
    except (ConfigError, ToolchainError) as error:
        config = replace(config, verify=replace(config.verify, model=""))
        doubt = f"; without the model: {error.message}"
    answer = toolkit.task(bench, "verify", "--release", release.id, config=config)
    done = pipeline.verification_of(bench.run, pipeline.directory(bench.run, release))
    if done is None:
        reason = answer.complaint or "no verification was written"
        yield judged("correctness.verify", False, reason + doubt, answer.evidence)
    else:
        types = ", ".join(dict.fromkeys(proof.kv_cache_type for proof in done.proofs if proof.ok))
        reason = f"{types} and {sum(one.ok for one in done.checklist)} verdicts in {done.seconds:.0f} s"
        holds = answer.ok and done.ok
        yield judged("correctness.verify", holds, (reason if holds else answer.complaint) + doubt, answer.evidence)
    yield from on_the_gpu(done, answer.evidence)


def on_the_gpu(done: Verification | None, *seen: Evidence) -> Iterator[Finding]:
    """What a verification compared on a GPU, if it did."""
    if done is None or done.gpu is None or not (done.gpu.comparisons or done.gpu.starts):
        for identifier in ("correctness.cpu-gpu", "correctness.first-start"):
            yield untested(identifier, f"needs {GPU}: the verification compared none", *seen)
        return
    facts = [fact for one in done.gpu.comparisons for fact in (on_gpu.computes_there(one), on_gpu.agrees_with_cpu(one))]
    wrong = [words for holds, words in facts if not holds]
    reason = "; ".join(wrong or [words for _, words in facts if "against the CPU" in words])
    yield judged("correctness.cpu-gpu", bool(facts) and not wrong, reason or "nothing was compared", *seen)
    late = [one for one in done.gpu.starts if one.first_s >= DISCOVERY_S]
    times = "; ".join(f"{one.program}: {one.first_s:.1f} s, then {one.second_s:.1f} s" for one in done.gpu.starts)
    yield judged("correctness.first-start", bool(done.gpu.starts) and not late, times or "no start", *seen)


def _probed(bench: Bench, release: Release) -> Finding:
    names = [kind.name for kind in release.cache_types]
    folder = pipeline.directory(bench.run, release)
    command = f"{folder / evidence.PROBE_PATH} {evidence.SEED} {' '.join(names)}"
    try:
        found = evidence.probe(folder, names)
    except ToolchainError as error:
        seen = bench.keep(command, error.exit_code, 0.0, str(error))
        return judged("correctness.gpu-operations", False, error.message, seen)
    seen = bench.keep(command, 0, 0.0, to_json(found.devices))
    devices = [one for one in found.devices if not one.cpu]
    if not devices:
        return judged("correctness.gpu-operations", False, "the release's libraries find no GPU", seen)
    lacking = [text for one in devices for name in names if (text := on_gpu.lacks(one, name))]
    reason = f"{', '.join(one.name for one in devices)}: all that a cache of {', '.join(names)} needs"
    return judged("correctness.gpu-operations", not lacking, "; ".join(lacking[:_NAMED]) or reason, seen)


def _backend_ops(bench: Bench) -> Iterator[Finding]:
    """`metal.run` builds the program; with validation it is run by itself, for what the driver says."""
    answer = toolkit.task(bench, "metal.run")
    found = answer.read(MetalRun)
    if found is None or not found.cases:
        reason = answer.complaint or "no case ran"
        yield judged("correctness.backend-ops", False, reason, answer.evidence)
    else:
        wrong = [text for case in found.cases for text in case.wrong]
        reason = f"{found.passed} cases on the GPU are as on the CPU"
        yield judged("correctness.backend-ops", not found.failed, "; ".join(wrong[:_NAMED]) or reason, answer.evidence)
    program = _built(bench.run.workspace)
    if program is None:
        yield untested("correctness.shader-validation", f"{device.PROGRAM} was not built", answer.evidence)
        return
    types = tuple(kind.name for kind in require_release(bench).cache_types)
    seen = bench.call(device.arguments(program, types), env=VALIDATION, timeout=device.MAX_SECONDS)
    yield validated(seen)


def validated(seen: Evidence) -> Finding:
    """The finding on a run of test-backend-ops with Metal's validation."""
    cases = device.read(seen.output)
    wrong = [text for case in cases for text in case.wrong]
    wrong += [found.group().strip() for found in _COMPLAINT.finditer(seen.output)]
    if not cases:
        said = seen.output.strip().splitlines()[-1:] or ["nothing was printed"]
        return judged("correctness.shader-validation", False, f"no case ran: {said[0]}", seen)
    reason = f"{len(cases)} cases without a complaint"
    return judged("correctness.shader-validation", not wrong, "; ".join(wrong[:_NAMED]) or reason, seen)


def _built(workspace: Path) -> Path | None:
    found = sorted((workspace / "metal").glob(f"backend-ops-*/bin/{device.PROGRAM}"))
    return found[-1] if found else None


AREA = Area(
    name="correctness",
    assumptions=(
        Assumption(
            id="correctness.verify",
            statement="A release built on this machine passes the whole verification.",
            how="verify: every cache type generates with caches of its size, and each verdict of the checklist holds.",
        ),
        Assumption(
            id="correctness.cpu-gpu",
            statement="llama-server on the GPU predicts what it does on the CPU, with the cache and every layer there.",
            needs=GPU,
            how="verify compares greedy tokens and the divergence of predictions for each cache type.",
        ),
        Assumption(
            id="correctness.first-start",
            statement=f"The first use of the GPU takes less than the {DISCOVERY_S:g} s of Ollama's discovery.",
            needs=GPU,
            how="verify measures the first and the second start of programs of the release.",
        ),
        Assumption(
            id="correctness.gpu-operations",
            statement="The release's libraries find the GPU, and it does itself every operation that a cache needs.",
            needs=GPU,
            how="turbo-probe on every device.",
        ),
        Assumption(
            id="correctness.backend-ops",
            statement="llama.cpp's own test of operations passes on the GPU for every case with our types.",
            needs=GPU,
            how="metal.run builds test-backend-ops and runs it on MTL0.",
        ),
        Assumption(
            id="correctness.shader-validation",
            statement="So it does under Metal's validation, which finds accesses out of bounds.",
            needs=GPU,
            how=f"The same program with {' '.join(f'{name}={value}' for name, value in VALIDATION.items())}.",
        ),
    ),
    examine=_examine,
)
