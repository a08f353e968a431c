"""The verify stage: run the built Ollama and prove that it really uses its cache types.

For each cache type a server is started; small random models of two head sizes are imported, generate text, and
are driven past the end of their context. The proof is llama-server's own log and the API's counts.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from hashlib import shake_256
from pathlib import Path

from ..build import apple, content_digest
from ..build.release import llama_server, programs
from ..core import records
from ..core.cachetypes import grammar
from ..core.cachetypes.table import type_table
from ..core.config import Config
from ..core.console import Console
from ..core.errors import (
    ConfigError,
    ModelLoadFailed,
    ReleaseInvalid,
    ServerFailed,
    ToolchainError,
    VerificationFailed,
)
from ..host import machine
from ..models.compatibility import verdict as guard
from ..models.memory import geometry, gguf, kv
from ..models.named import find_model
from ..models.quality.samples import read_text
from ..proofs import GpuProof, GpuStart, TypeProof, Verification
from ..serving import cachelog
from ..serving.ollama import Generation
from ..serving.ollama_server import Server, serve
from ..sources import eras
from ..sources.eras import Engine
from ..sources.eras.era import LLAMA_SERVER
from ..stages import Release
from . import checklist, engines, gpu, planned, probes
from .probes import CONTEXT, ProbeModel
from .verification_page import render_report

MOST_LAYERS = 256
UNKNOWN_TYPE = "turbo9"
_FAILED = {False: "failed", True: "failed or are unknown"}
"""by whether a verdict is unknown"""
_NAME_LENGTH = 200

# One thread: on models this small, several threads mostly wait for each other, especially on a busy
# machine.
_OPTIONS = {"num_ctx": CONTEXT, "num_thread": 1}
_PROMPT_LENGTH = CONTEXT - 8
"""letters, each a token: leaves few cells free, so that generation soon fills the context"""
_SHIFT_TOKENS = 16
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def verify(
    release_dir: Path, config: Config, console: Console, *, workspace: Path, kept: Path | None = None
) -> Verification:
    """Prove that the release in `release_dir` runs every type of `config.verify.types`.

    Writes verification.json, report.md and each server's log to `workspace`/verifications/<release id>/, and the first
    of them to the folder `kept` as well, even when a proof fails. `kept` has the records of the release's build, if it
    was built here. Raises `GpuUnavailable` on a
    Mac whose GPU this process does not get, `RecordError` without a manifest, `ConfigError` for a
    type that the release lacks, `ReleaseInvalid`, `PortInUse` and `ServerFailed` when no server comes up; after
    the report `ModelLoadFailed` when only model loads failed, and `VerificationFailed` for any other failed
    proof. `DiskFull` when the models do not fit the workspace's disk. With `config.verify.model` also the errors of
    `guard.verdict.examine`, and `CacheCollapse` when that model collapses with the service's cache type and
    `config.verify.collapse` is refuse.
    """
    started = time.monotonic()
    stated = release_dir / "manifest.json"
    release = records.read(stated, Release)
    if not _SAFE_ID.fullmatch(release.id):
        raise ReleaseInvalid(f"{stated}: {release.id!r} is not a valid release id", hint="build it again")
    if sys.platform == "darwin" and release.cache_types and gpu.needed(config, release):
        apple.require_metal()
    era = eras.named(release.era)
    types = tuple(each for each in config.verify.types if era.layer_rules or not grammar.parse(each).reach)
    if left := [each for each in config.verify.types if each not in types]:
        console.warn(
            f"not verified, since Ollama has no rules for single layers in the {era.name} era: {', '.join(left)}"
        )
    _check_types(types, release)
    server = llama_server(release_dir) if config.verify.model else None  # before anything is run
    served = find_model(config.verify.model, config, console) if config.verify.model else None
    folder = workspace / "verifications" / release.id
    folder.mkdir(parents=True, exist_ok=True)
    proofs: list[TypeProof] = []
    failures: list[ToolchainError] = []
    with (
        tempfile.TemporaryDirectory(prefix="run-", dir=folder, ignore_cleanup_errors=True) as scratch,
        console.step(f"verify {release.id}") as step,
    ):
        trial = _ReleaseTrial(release_dir, release, config, logs=folder / "logs", scratch=Path(scratch))
        tests = partial(engines.examine, release, kept or folder, config, workspace=workspace)
        asked = [(kv_cache_type, engine) for kv_cache_type in types for engine in era.engines]
        steps = len(asked) + 2
        failures += filter(None, [trial.start()])
        for done, (kv_cache_type, engine) in enumerate(asked):
            step.update(done, steps, f"{kv_cache_type} {engine.name}".rstrip())
            for proof, failure in trial.prove(kv_cache_type, engine):
                proofs.append(proof)
                failures += [failure] if failure else []
        step.update(steps - 2, steps, UNKNOWN_TYPE)
        message, failure = trial.refuse_unknown_type()
        failures += [failure] if failure else []
        step.update(steps - 1, steps, "checklist")
        for engine in era.engines:
            for proof, failure in trial.override(engine):
                proofs.append(proof)
                failures += [failure] if failure else []
        examined = trial.examine(tests)
        verdicts = checklist.judge(examined) if examined else ()
        failures += [
            VerificationFailed(f"{verdict.name}: {verdict.word}: {verdict.evidence}")
            for verdict in verdicts
            if not verdict.ok
        ]
    guarded = None
    if served is not None and server is not None:
        guarded = guard.examine(
            served,
            config.deploy.kv_cache_type,
            added=release.cache_types,
            server=server,
            text=read_text(""),
            config=config,
            console=console,
        )
    refusal = guard.refusal(guarded, config) if guarded else None
    verification = Verification(
        release=release.id,
        content_sha256=content_digest(release),
        version=release.version,
        proofs=tuple(proofs),
        checklist=verdicts,
        gpu=examined.gpu if examined and isinstance(examined.gpu, GpuProof) else None,
        unknown_type_message=message,
        guard=guarded,
        ran_on=machine.in_short(),
        ok=not failures and refusal is None,
        seconds=round(time.monotonic() - started, 3),
    )
    for place in filter(None, (folder, kept)):
        records.write(place / "verification.json", verification)
    records.write_bytes(folder / "report.md", render_report(verification, release, failures).encode())
    if failures:
        unknown = any(verdict.unknown for verdict in verdicts)
        advice = gpu.elsewhere(release, verdicts, proofs)
        only_loads = all(isinstance(failure, ModelLoadFailed) for failure in failures)
        raise (ModelLoadFailed if only_loads else VerificationFailed)(
            f"{release.id}: {len(failures)} of {len(proofs) + len(verdicts) + 1} proofs {_FAILED[unknown]}\n"
            + "\n".join(f"  {failure.message}" for failure in failures),
            hint=f"read {folder / 'report.md'}, and the servers' logs in {folder / 'logs'}{advice}",
        )
    for warning in filter(None, (gpu.slow(verification.gpu), gpu.skipped(config, release))):
        console.warn(warning)
    if guarded:
        guard.warn(guarded, console)
    if refusal:
        raise refusal
    return verification


class _ReleaseTrial:
    """Shared by the proofs of one run: the release, the models, and a home with the model store."""

    def __init__(self, release_dir: Path, release: Release, config: Config, *, logs: Path, scratch: Path) -> None:
        self._release_dir = release_dir
        self._release = release
        self._config = config.verify
        self._gpu_needed = gpu.needed(config, release)
        self._logs = logs
        self._scratch = scratch
        self._home = scratch / "home"
        self._starts: tuple[GpuStart, ...] = ()
        self._probes = probes.write(scratch, max(grammar.parse(each).reach for each in config.verify.types))

    def prove(self, kv_cache_type: str, engine: Engine) -> list[tuple[TypeProof, ToolchainError | None]]:
        """The proofs of this type on each model, on one server, each with its failure if any."""
        with self._serve(kv_cache_type, engine) as server:
            return [self._prove_on(server, probe, kv_cache_type, engine) for probe in self._probes]

    def override(self, engine: Engine) -> list[tuple[TypeProof, ToolchainError | None]]:
        """The proof that a model's own option wins over the service's type, here one that does not exist."""
        option, probe = self._release.model_option, self._probes[0]
        if not option:
            return []
        with self._serve(UNKNOWN_TYPE, engine) as server:
            return [self._prove_on(server, probe, self._release.cache_types[0].name, engine, option)]

    def refuse_unknown_type(self) -> tuple[str, ToolchainError | None]:
        """The API's answer to a type that does not exist, and what is wrong with that answer.

        The answer must name the type and those that the series adds; not checked for a release without added types.
        """
        probe = self._probes[0]
        with self._serve(UNKNOWN_TYPE, eras.named(self._release.era).engines[0]) as server:
            try:
                _import(server, probe)
                server.client.generate(probe.name, "a", 1, _OPTIONS)
            except ModelLoadFailed as error:
                message = error.message.removeprefix(f"{server.client.base_url}/api/generate: ")
            except ServerFailed as error:
                return error.message, server.explain(error)
            else:
                return "", VerificationFailed(f"{UNKNOWN_TYPE}: the server accepted a cache type that does not exist")
        added = [kind.name for kind in self._release.cache_types]
        missing = [name for name in (UNKNOWN_TYPE, *added) if not re.search(rf"\b{re.escape(name)}\b", message)]
        if added and missing:
            return message, VerificationFailed(
                f"{UNKNOWN_TYPE}: the answer to an unknown type does not name {', '.join(missing)}: {message}"
            )
        return message, None

    def examine(self, tests: Callable[[], tuple[engines.EngineTest, ...]]) -> checklist.Examined | None:
        """The checklist's evidence, on the model whose K and V are rotated by transforms of two sizes."""
        probe = self._probes[-1]
        return checklist.examine(
            self._release_dir,
            self._release,
            probe.path,
            probe.geometry.head_size,
            folder=self._scratch,
            timeout_s=self._config.timeout_s,
            gpu_needed=self._gpu_needed,
            starts=self._starts,
            tests=tests,
        )

    def start(self) -> ToolchainError | None:
        """Measure the GPU's first start, which must come before every other use of it; what failed, if anything did."""
        if self._gpu_needed and self._release.cache_types and LLAMA_SERVER in programs(self._release):
            try:
                self._starts = gpu.starts(self._release_dir, self._release.cache_types[0].name)
            except ToolchainError as error:
                return error
        return None

    def _serve(self, kv_cache_type: str, engine: Engine) -> AbstractContextManager[Server]:
        name = f"{kv_cache_type} {engine.name}".rstrip().lower()
        return serve(
            self._release_dir,
            version=self._release.version,
            home=self._home,
            log=self._logs / f"{re.sub(r'[^a-z0-9_]+', '-', name)[:_NAME_LENGTH]}.log",
            environment={"OLLAMA_KV_CACHE_TYPE": kv_cache_type, **engine.environment},
            timeout_s=self._config.timeout_s,
        )

    def _prove_on(
        self, server: Server, probe: ProbeModel, kv_cache_type: str, engine: Engine, option: str = ""
    ) -> tuple[TypeProof, ToolchainError | None]:
        mark = server.mark()
        options = _OPTIONS | ({option: kv_cache_type} if option else {})
        first = shifted = on_gpu = None
        failure: ToolchainError | None = None
        try:
            _import(server, probe)
            first = server.client.generate(probe.name, "hello", self._config.tokens, options)
            shifted = server.client.generate(probe.name, _long_prompt(), _SHIFT_TOKENS, options)
            on_gpu = server.client.on_gpu(probe.name) if self._gpu_needed else None
        except (ModelLoadFailed, ServerFailed) as error:
            failure = server.explain(error)
        must_have_shifted = shifted is not None and shifted.eval_count == _SHIFT_TOKENS
        log = server.said_since(mark, until=cachelog.SHIFT_LINES if must_have_shifted else ())
        found = cachelog.caches(log, probe.geometry, self._release.cache_types)
        shifts = cachelog.context_shifts(log)
        if failure is None:
            assert first is not None
            assert shifted is not None
            reason = (
                ("" if found else cachelog.unstated(log))
                or cachelog.complaint(found, kv_cache_type, probe.geometry, CONTEXT, self._release.cache_types)
                or _engine_failure([cache.proof.line for cache in found], engine)
                or planned.complaint(found, self._planned(probe, kv_cache_type))
                or _count_failure(first, self._config.tokens)
                or _shift_failure(shifted, shifts, log)
                or gpu.off_gpu(on_gpu, log)
            )
            failure = VerificationFailed(reason) if reason else None
        if failure is not None:
            name = f"{kv_cache_type} by the option {option}" if option else kv_cache_type
            name += f" with the {engine.name}" if engine.name else ""
            failure = type(failure)(f"{name} on {probe.name}: {failure.message}", hint=failure.hint)
        proof = TypeProof(
            kv_cache_type=kv_cache_type,
            option=option,
            model=probe.name,
            engine=engine.name,
            head_size=probe.geometry.head_size,
            tokens=first.eval_count if first else 0,
            text=first.text if first else "",
            context_shifts=shifts,
            caches=tuple(cache.proof for cache in found),
            on_gpu=on_gpu,
            ok=failure is None,
            reason=failure.message if failure else "",
        )
        return proof, failure

    def _planned(self, probe: ProbeModel, kv_cache_type: str) -> kv.CacheSizes:
        """The caches that the memory planner computes for a probe from its file."""
        return kv.sizes(
            geometry.read(gguf.load(str(probe.path))),
            grammar.parse(kv_cache_type),
            kv.Setting(context=CONTEXT),
            type_table(self._release.cache_types),
        )


def _check_types(asked: tuple[str, ...], release: Release) -> None:
    known = type_table(release.cache_types)
    for kv_cache_type in asked:
        wanted = grammar.parse(kv_cache_type)
        for name in wanted.names():
            if name not in known:
                raise ConfigError(
                    f"verify.types: {kv_cache_type}: {release.id} has no cache type {name}",
                    hint=f"it has {', '.join(known)}",
                )
        if wanted.reach > MOST_LAYERS:
            raise ConfigError(
                f"verify.types: {kv_cache_type} needs a model of {wanted.reach} attention layers",
                hint=f"rules are verified up to {MOST_LAYERS} layers",
            )


def _import(server: Server, probe: ProbeModel) -> None:
    """The servers of a run share one model store, so only the first imports."""
    if f"{probe.name}:latest" not in server.client.names():
        server.client.create_from_gguf(probe.name, probe.path)


def _long_prompt() -> str:
    return shake_256(b"probe").hexdigest(_PROMPT_LENGTH // 2)


def _engine_failure(lines: Sequence[str], engine: Engine) -> str:
    """Why the log's lines on caches are not of the engine that was asked for; empty if they are."""
    strange = [line for line in lines if not line.startswith(engine.cache_line)]
    return f"another engine than the {engine.name} ran the model: {strange[0]}" if strange else ""


def _count_failure(generation: Generation, tokens: int) -> str:
    if generation.eval_count != tokens or not generation.text:
        return f"asked for {tokens} tokens, got {generation.eval_count} ({generation.text!r})"
    return ""


def _shift_failure(generation: Generation, shifts: int, log: str) -> str:
    """Why a generation past the end of the context did not continue after a context shift; empty if it did."""
    used = generation.prompt_eval_count + generation.eval_count
    if generation.eval_count != _SHIFT_TOKENS or used <= CONTEXT:
        return (
            f"asked for {_SHIFT_TOKENS} tokens past the end of a context of {CONTEXT}, got {generation.eval_count} "
            f"after a prompt of {generation.prompt_eval_count}"
        )
    return "" if shifts else f"generated past the end of the context, but {cachelog.unshifted(log)}"
