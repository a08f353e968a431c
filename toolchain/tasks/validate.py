"""`./inv validate`: whether a cache type is as good as f16, with one model on this machine."""

from __future__ import annotations

import os
import random
import sys

from ..core.errors import ConfigError
from ..core.run import Run
from ..models.memory.planning import tokens
from ..service import account
from ..validation import comparison, gate, judging, pages, validation
from ..validation.matrix import TESTS
from ..validation.tuning import tuning
from .command import Group
from .flags import CacheSettings, Names

group = Group("validate", default="run")


@group.task(
    "workspace",
    name="run",
    model="GGUF file, a model in Ollama's store, or smollm2 or gemma3-270m, which are fetched",
    candidate="cache type to validate, or K:V, with rules; empty: that of the service",
    baseline="cache type to compare with",
    tests="tests to run (repeatable, or with commas); empty: all",
    contexts="contexts in tokens, as in 8K,32K (repeatable, or with commas); empty: 8K, 32K, 128K as the model allows",
    against="the program that serves: llama-server or ollama",
    release="id or directory of a release; empty: the newest one built",
    baseline_url="a running server to ask for the baseline, instead of starting one",
    candidate_url="a running server to ask for the candidate",
    baseline_log="log of the server at --baseline-url, which proves its cache type",
    candidate_log="log of the server at --candidate-url; empty: that of the service, where the URL is its own",
    seed="seed of the prompts' variable parts",
    text="file that the model reads, or wikitext2, which is fetched; empty: a frozen one of this toolkit's own",
    perplexity_bytes="how much of the text the perplexity is measured on, at most",
    accept_void="kinds of disturbance that do not void the run: battery, thermal, load, cache, proof",
    again="measure anew what an earlier run of the same validation kept",
)
def validate(
    run: Run,
    model: str = "",
    candidate: str = "",
    baseline: str = "f16",
    tests: Names = Names(),
    contexts: Names = Names(),
    against: str = "llama-server",
    release: str = "",
    baseline_url: str = "",
    candidate_url: str = "",
    baseline_log: str = "",
    candidate_log: str = "",
    seed: int = 1,
    text: str = "",
    perplexity_bytes: int = validation.PERPLEXITY_BYTES,
    accept_void: Names = Names(),
    again: bool = False,
) -> None:
    """Whether a cache type is as good as f16."""
    plan = validation.make_plan(
        run,
        model=model,
        candidate=candidate or run.config.deploy.kv_cache_type,
        baseline=baseline,
        tests=tests,
        contexts=[tokens(one, "--contexts") for one in contexts],
        backend=against,
        release=release,
        baseline_url=baseline_url,
        candidate_url=candidate_url,
        baseline_log=baseline_log,
        candidate_log=candidate_log,
        seed=seed,
        text=text,
        perplexity_bytes=perplexity_bytes,
    )
    run.console.note(f"validation: {validation.folder_of(run, plan.id)}")
    found = validation.validate(run, plan, again=again, accept_void=accept_void)
    run.finish(found, gate.failure(found.decision))


@group.task(
    "workspace",
    name="report",
    run_="id or folder of a validation, or its result.json; empty: the newest one",
    out="folder of report.html and report.md; empty: the validation's own",
)
def report(run: Run, run_: str = "", out: str = "") -> None:
    """Write a validation's report anew."""
    file = validation.located(run, run_)
    found = validation.find(run, str(file))
    page = pages.render(found, run.output(out, str(file.parent)), tuple(TESTS))
    run.console.note(f"report: {page}")
    run.finish(found)


@group.task(
    "workspace",
    name="compare",
    first="id or folder of a validation, or its result.json",
    second="another one, of the same model, text and contexts",
    out="folder of comparison.html and comparison.json; empty: in the workspace",
)
def compare(run: Run, first: str, second: str, out: str = "") -> None:
    """What differs between two validations."""
    reports = [validation.find(run, name) for name in (first, second)]
    found = comparison.compare(*reports)
    page = comparison.save(found, run.output(out, f"comparisons/{comparison.folder_name(*reports)}"))
    run.console.note(f"comparison: {page}")
    run.finish(found)


@group.task(
    "workspace",
    name="judge",
    run_="id or folder of a validation, or its result.json; empty: the newest one",
    verdicts="verdicts on the candidate's answers, as in 1=same,2=worse,3=better; empty: asked for on a terminal",
    again="ask for those pairs, too, that have a verdict",
)
def judge(run: Run, run_: str = "", verdicts: Names = Names(), again: bool = False) -> None:
    """Enter a human's verdicts on the prompts."""
    file = validation.located(run, run_)
    found = validation.find(run, str(file))
    pairs, who = judging.pairs(found), account.name_of(os.getuid())
    if verdicts:
        found = judging.enter(file, judging.parse(verdicts, pairs), who)
    elif not sys.stdin.isatty():
        raise ConfigError("there is no terminal to ask for verdicts", hint="--verdicts 1=same,2=worse,3=better")
    else:
        open_pairs = [one for one in pairs if one.baseline != one.candidate and (again or not one.verdict)]
        asked = judging.interview(open_pairs, show=run.console.note, answer=_answer, rng=random.SystemRandom())
        for key, verdict in asked:
            found = judging.enter(file, {key: verdict}, who)
    run.finish(found, gate.failure(found.decision))


def _answer(question: str) -> str:
    """A line from the terminal; the question goes to stderr. Raises `EOFError` at the end of the input."""
    sys.stderr.write(question)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


@group.task(
    "workspace",
    model="GGUF file, or a model in Ollama's store",
    context="tokens that the cache is to hold, such as 65536 or 64K",
    ram="GiB of a Mac to choose for; 0: this machine",
    bits="bits per value that the cache may take, instead of a machine's memory",
    like="a cache setting whose memory the cache may take, instead of a machine's",
    types="types to choose from (repeatable, or with blanks); empty: all that the machine's kernels run",
    beside="further settings to compare with (repeatable, or with blanks)",
    text="file that the model reads; empty: a frozen one of this toolkit's own",
    shares="what each layer is measured on: tokens of a context x contexts",
    final="what the settings are compared on, another part of the text: tokens of a context x contexts",
    together="adjacent layers that one run measures: a number, or two for K and V as in 1:2",
    program="a llama-perplexity; empty: the newest that ./inv build --targets llama-perplexity made",
)
def tune(
    run: Run,
    model: str = "",
    context: str = "8K",
    ram: float = 0.0,
    bits: float = 0.0,
    like: str = "",
    types: CacheSettings = CacheSettings(),
    beside: CacheSettings = CacheSettings(),
    text: str = "",
    shares: str = "512x4",
    final: str = "1024x12",
    together: str = "1",
    program: str = "",
) -> None:
    """The best cache types within a memory."""
    measuring = tuning.plan_measuring(
        run,
        model=model,
        text=text,
        program=program,
        share=_pair(shares, "shares", "x"),
        final=_pair(final, "final", "x"),
    )
    wanted = tuning.Wanted(
        context=tokens(context),
        ram=ram,
        bits=bits,
        like=like,
        types=types,
        together=_pair(f"{together}:{together}" if together.isdigit() else together, "together", ":"),
        beside=beside,
    )
    run.finish(tuning.tune(run, measuring, wanted))


def _pair(text: str, flag: str, divider: str) -> tuple[int, int]:
    """Two positive numbers."""
    first, _, second = text.partition(divider)
    if not all(one.isascii() and one.isdigit() and 0 < int(one) < 1 << 20 for one in (first, second)):
        raise ConfigError(f"--{flag} {text!r}: expected two numbers, as in {2 if divider == ':' else 512}{divider}4")
    return int(first), int(second)
