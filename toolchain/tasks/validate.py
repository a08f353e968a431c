"""`./inv validate`: whether a cache type is as good as f16, with one model on this machine."""

from __future__ import annotations

from ..core.run import Run
from ..models.memory.planning import tokens
from ..validation import gate, validation
from .command import Group
from .flags import Names

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
    seed: int = 1,
    text: str = "",
    accept_void: Names = Names(),
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
    found = validation.validate(run, plan, again=again, accept_void=accept_void)
    run.finish(found, gate.failure(found.decision))
