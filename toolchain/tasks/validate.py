"""`./inv validate`: whether a cache type is as good as f16, with one model on this machine."""

from __future__ import annotations

from ..core.errors import ConfigError
from ..core.run import Run
from ..models.memory.planning import tokens
from ..validation import gate, validation
from ..validation.tuning import tuning
from .command import Group
from .flags import CacheSettings, Names

group = Group("validate", default="run")


@group.task(
    "workspace",
    name="run",
    model="GGUF file, or a model in Ollama's store",
    candidate="cache type to validate, or K:V, with rules; empty: that of the service",
    baseline="cache type to compare with",
    tests="tests to run (repeatable, or with commas); empty: all",
    contexts="contexts in tokens, as in 8K,32K (repeatable, or with commas); empty: 8K, 32K, 128K as the model allows",
    against="the program that serves: llama-server or ollama",
    release="id or directory of a release; empty: the newest one built",
    baseline_url="a running server to ask for the baseline, instead of starting one",
    candidate_url="a running server to ask for the candidate",
    seed="seed of the prompts' variable parts",
    text="file that the model reads; empty: a frozen one of this toolkit's own",
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
    seed: int = 1,
    text: str = "",
    again: bool = False,
) -> None:
    """Whether a cache type is as good as f16, with this model."""
    plan = validation.make_plan(
        run,
        model=model,
        candidate=candidate or run.config.deploy.kv_cache_type,
        baseline=baseline,
        tests=tests,
        contexts=[tokens(one) for one in contexts],
        backend=against,
        release=release,
        baseline_url=baseline_url,
        candidate_url=candidate_url,
        seed=seed,
        text=text,
    )
    run.console.note(f"validation: {validation.folder_of(run, plan.id)}")
    found = validation.validate(run, plan, again=again)
    run.finish(found, gate.failure(found.decision))


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
    """Which setting of all layers loses least within the memory."""
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
