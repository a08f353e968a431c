"""One validation: from the flags to a plan, through the tests of the matrix, to a report and the gate's decision."""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from ..build import content_digest, find_release
from ..build.release import llama_server
from ..core import records
from ..core.cachetypes import grammar
from ..core.cachetypes.table import type_table
from ..core.errors import ConfigError, RecordError, TextTooShort, ToolchainError
from ..core.records import sha256_bytes, sha256_file
from ..core.run import Run
from ..host import machine
from ..models.memory import gguf
from ..models.named import find_model
from ..models.quality.samples import TEXT, read_text
from ..series.manifest import load_series
from ..serving.launcher import require_program
from ..stages import Release
from . import fixed, gate, given, leftovers, voids
from .matrix import TESTS
from .pages import render
from .plan import Backend, Plan
from .result import Decision, Report, TestResult
from .sides import Sides
from .store import Store
from .texts import find_text
from .trial import Trial
from .trials import starts

FOLDER = "validations"
PERPLEXITY_BYTES = 120_000
_CONTEXTS = (8192, 32768, 131072)
_SEEDS = 2**32
"""llama-server draws by chance for the seed -1, and takes 32 bits of others"""
_FEWEST_CHARACTERS = 1024
_PROGRAM = "bin/ollama"


def make_plan(
    run: Run,
    *,
    model: str,
    candidate: str,
    baseline: str,
    tests: Sequence[str],
    contexts: Sequence[int],
    backend: str,
    release: str,
    baseline_url: str = "",
    candidate_url: str = "",
    baseline_log: str = "",
    candidate_log: str = "",
    seed: int = 1,
    text: str = "",
    perplexity_bytes: int = PERPLEXITY_BYTES,
) -> Plan:
    """The plan of a validation. Raises `ConfigError` for a wrong flag, `ModelInvalid`, `ReleaseInvalid`.

    And `FetchFailed` and `ChecksumMismatch` for a text that is fetched.
    """
    if backend not in get_args(Backend):
        raise ConfigError(f"--against {backend!r} is unknown", hint=" or ".join(get_args(Backend)))
    if unknown := [name for name in tests if name not in TESTS]:
        raise ConfigError(f"--tests {unknown[0]!r} is unknown", hint=", ".join(TESTS))
    if not 0 <= seed < _SEEDS:
        raise ConfigError(f"--seed {seed}: expected 0 to {_SEEDS - 1}")
    if perplexity_bytes < 1:
        raise ConfigError(f"--perplexity-bytes {perplexity_bytes} is not positive", hint=f"{PERPLEXITY_BYTES}")
    urls = given.named(run.config, baseline_url, candidate_url, baseline_log, candidate_log)
    directory, stated = None, None
    if not urls.baseline_url:  # before a model is fetched
        directory = find_release(run, release)
        stated = records.read(directory / "manifest.json", Release)
        program = llama_server(directory) if backend == "llama-server" else directory / _PROGRAM
        require_program(program, "./inv build makes a complete release; --release names one")
    path = find_model(model, run.config, run.console).absolute()
    header = gguf.load(str(path))
    architecture = header.metadata.get("general.architecture")
    trained = int(header.metadata.get(f"{architecture}.context_length", 0) or 0)
    if not trained:
        raise ConfigError(f"{path}: states no context length, so it is no language model")
    if too_long := [one for one in contexts if one > trained]:
        raise ConfigError(
            f"--contexts {too_long[0]}: {path.name} was trained on {trained} tokens", hint=f"--contexts {trained}"
        )
    types = type_table(stated.cache_types if stated else load_series(run).types)
    layers = int(header.metadata.get(f"{architecture}.block_count", 0) or 0)
    for setting in (baseline, candidate):
        parsed = grammar.parse(setting)
        for name in parsed.names():
            if name not in types:
                where = f" of {stated.id}" if stated else ""
                raise ConfigError(f"{name!r} in {setting!r} is no cache type{where}", hint=", ".join(types))
        for one in (parsed.k, parsed.v):
            one.each(layers)
    words = find_text(text, run.workspace)
    reading = read_text(str(words or ""))
    if len(reading) < _FEWEST_CHARACTERS:
        raise TextTooShort(f"--text {text}: {len(reading)} characters, {_FEWEST_CHARACTERS} are needed")
    return Plan(
        model=path,
        model_name=model if not Path(model).expanduser().is_file() else path.stem,
        model_sha256=sha256_file(path),
        trained_context=trained,
        release=stated.id if stated else "",
        release_dir=directory,
        content_sha256=content_digest(stated) if stated else "",
        backend=cast(Backend, backend),
        baseline=str(grammar.parse(baseline)),
        candidate=str(grammar.parse(candidate)),
        baseline_url=urls.baseline_url,
        candidate_url=urls.candidate_url,
        baseline_log=urls.baseline_log,
        candidate_log=urls.candidate_log,
        contexts=tuple(sorted(set(contexts))) or _usual(trained),
        tests=tuple(name for name in TESTS if not tests or name in tests),
        seed=seed,
        text=words or TEXT,
        text_sha256=sha256_bytes(reading.encode()),
        text_bytes=len(reading.encode()),
        perplexity_bytes=perplexity_bytes,
        prompts_sha256=sha256_bytes(f"{fixed.digest()} {starts.sha256()}".encode()),
        environment=run.config.deploy.server_environment,
    )


def validate(run: Run, plan: Plan, *, again: bool = False, accept_void: Sequence[str] = ()) -> Report:
    """Measure what the kept answers do not hold yet, and judge. Writes result.json after each test.

    What an earlier run found with other tests counts, too, so that one may be added after the other.

    `accept_void` are kinds of voids that do not count (`voids.KINDS`). Raises `ConfigError` for an unknown one,
    `LockHeld` when the same validation runs, and the errors of the servers; what was measured is kept.
    """
    if unknown := [kind for kind in accept_void if kind not in voids.KINDS]:
        raise ConfigError(f"--accept-void {unknown[0]!r} is unknown", hint=", ".join(voids.KINDS))
    folder = folder_of(run, plan.id)
    if again and folder.is_dir():
        with leftovers.locked(folder):
            leftovers.remove(folder)
            store_of(run, plan).clear()
    records.make_folder(folder)
    leftovers.remove_all(folder.parent)
    with leftovers.locked(folder):
        store = store_of(run, plan)
        store.tidy()
        results = {one.test: one for one in _earlier(folder) if one.test not in plan.tests}
        asked, plan = plan.tests, replace(plan, tests=tuple(one for one in TESTS if one in {*plan.tests, *results}))
        records.write(folder / "plan.json", plan)
        release = records.read(plan.release_dir / "manifest.json", Release) if plan.release_dir else None
        started = _now()
        described = machine.described(run.config)
        report = _report(plan, described, started, results)
        try:
            with Sides(plan, release, store, run.config) as sides:
                trial = Trial(
                    plan=plan,
                    store=store,
                    sides=sides,
                    config=run.config,
                    console=run.console,
                    workspace=run.workspace,
                    added=release.cache_types if release else load_series(run).types,
                    observer=voids.observer(plan),
                    accepted=frozenset(accept_void),
                )
                for name in asked:
                    results[name] = _measured(name, trial)
                    report = _report(plan, described, started, results)
                    records.write(folder / "result.json", report)
                    render(report, folder, tuple(TESTS))
        finally:
            shutil.rmtree(folder / leftovers.HOME, ignore_errors=True)
        run.console.note(f"report: {folder / 'report.html'}")
        return report


def folder_of(run: Run, name: str) -> Path:
    """The folder of a validation, by its id."""
    return run.workspace / FOLDER / name


def find(run: Run, name: str) -> Report:
    """The report of a validation, named as for `located`. Raises `ConfigError`, and `RecordError` for a damaged one."""
    return records.read(located(run, name), Report)


def store_of(run: Run, plan: Plan) -> Store:
    """The kept cells of a validation, with those of its baseline."""
    return Store(folder_of(run, plan.id), folder_of(run, "baselines") / plan.baseline_id)


def located(run: Run, name: str) -> Path:
    """The file of a validation's report: by its id, its folder or its result.json; empty: the newest one.

    Raises `ConfigError` for an unknown one.
    """
    given = Path(name).expanduser().absolute() if name else None
    if given and given.suffix == ".json" and given.is_file():
        return given
    if given and (given / "result.json").is_file():
        return given / "result.json"
    made = sorted((run.workspace / FOLDER).glob("*/result.json"), key=lambda path: path.stat().st_mtime)
    chosen = [path for path in made if not name or path.parent.name == name]
    if not chosen:
        known = ", ".join(path.parent.name for path in made[-3:]) or "there is none yet: ./inv validate --model M"
        raise ConfigError(f"no validation {name or 'was run'}", hint=known)
    return chosen[-1]


def _measured(name: str, trial: Trial) -> TestResult:
    began = time.monotonic()
    try:
        found = TESTS[name](trial)
    except ToolchainError as error:
        kept = f"what was measured is kept in {trial.store.folder}; the same command goes on from there"
        more = trial.sides.explained(error)
        raise type(error)(f"{name}: {more.message}", hint=f"{more.hint}; {kept}" if more.hint else kept) from error
    seconds = round(time.monotonic() - began, 1)
    unproven = tuple(f"proof: {why}" for why in trial.sides.unproven)
    return voids.accepted(replace(found, seconds=seconds, voids=(*found.voids, *unproven)), trial.accepted)


def _earlier(folder: Path) -> tuple[TestResult, ...]:
    """What earlier runs of the same validation found, with other tests."""
    try:
        return records.read(folder / "result.json", Report).results
    except RecordError:
        return ()


def _report(plan: Plan, described: str, started: str, results: Mapping[str, TestResult]) -> Report:
    done = tuple(results[name] for name in plan.tests if name in results)
    complete = len(done) == len(plan.tests)
    decision = (
        gate.decide(done, plan) if complete else Decision(answer="not decided", reasons=("interrupted",), next="again")
    )
    return Report(
        id=plan.id,
        plan=plan,
        ran_on=machine.in_short(),
        machine=described,
        started=started,
        results=done,
        decision=decision,
        complete=complete,
    )


def _usual(trained: int) -> tuple[int, ...]:
    return tuple(one for one in _CONTEXTS if one <= trained) or (trained,)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
