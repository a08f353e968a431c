"""`./inv quality`: how good the cache types are, on data and on a model."""

from __future__ import annotations

from ..core.run import Run
from ..models.compatibility import examination, verdict
from ..models.quality import benchmark, calibration, choices, divergence
from .command import Group
from .flags import CacheSettings, Names, Numbers

group = Group("quality", default="lab")

_TEXT = "file that the model reads; empty: a frozen one of this toolkit's own"
_RELEASE = "id or directory of a release that runs the model; empty: the newest one built"
_SERVER = "a llama-server to run instead"


@group.task(
    "workspace",
    type="a cache type (repeatable, or with commas); empty: all",
    data="a data set, or dump (repeatable, or with commas); empty: all",
    seed="seed of the data (repeatable, or with commas)",
    rotated="only after the Hadamard transform",
    no_rotated="only without the Hadamard transform",
    tokens="vectors of a data set, or tokens of a dump",
    head_size="values in a vector of a drawn data set",
    model="GGUF model whose keys and values to dump",
    text=_TEXT,
    release=_RELEASE,
    server=_SERVER,
    out="folder of report.html, snr.png and quality.json; empty: in the workspace",
)
def lab(
    run: Run,
    type: Names = Names(),
    data: Names = Names(),
    seed: Numbers = Numbers(),
    rotated: bool = False,
    no_rotated: bool = False,
    tokens: int = benchmark.TOKENS,
    head_size: int = benchmark.HEAD_SIZE,
    model: str = "",
    text: str = "",
    release: str = "",
    server: str = "",
    out: str = "",
) -> None:
    """Signal to noise per bit of every cache type."""
    chosen = choices.selection(type, data, seed, rotated, no_rotated, tokens, head_size)
    run.finish(choices.measure(run, chosen, choices.source(run, model, text, release, server), out))


@group.task(
    "workspace",
    model="GGUF model to run",
    text="file to read; empty: a frozen one of this toolkit's own",
    cache="a cache type or K:V, with /plain for no rotation (repeatable, or with commas); empty: a table of ten",
    sweep="each cache also with K and V alone, or one layer at a time, beside f16: alone, layers (or both)",
    bytes="length of the text to use",
    context="tokens of one context",
    program="a llama-perplexity; empty: the newest that ./inv build --targets llama-perplexity made",
)
def kl(
    run: Run,
    model: str = "",
    text: str = "",
    cache: CacheSettings = CacheSettings(),
    sweep: Names = Names(),
    bytes: int = divergence.BYTES,
    context: int = divergence.CONTEXT,
    program: str = "",
) -> None:
    """Perplexity and KL of a model by cache type."""
    run.finish(choices.compare(run, model, text, cache, sweep, bytes, context, program))


@group.task(
    "workspace",
    "kv_cache_type",
    model="GGUF file, or a model in Ollama's store; empty: the setting verify.model",
    text=_TEXT,
    release=_RELEASE,
    server=_SERVER,
    weights_only="read only the weights; run nothing",
    cheapest="find the cheapest cache type that is fine, whatever the service's is",
)
def guard(
    run: Run,
    model: str = "",
    text: str = "",
    release: str = "",
    server: str = "",
    weights_only: bool = False,
    cheapest: bool = False,
) -> None:
    """Whether a model works with the cache type."""
    found = examination.examine(run, model, text, release, server, weights_only, cheapest)
    if cheapest and verdict.fine(found):
        run.finish(found)
        return
    verdict.warn(found, run.console)
    run.finish(found, verdict.refusal(found, run.config))


@group.task(
    "workspace",
    model="GGUF file, or a model in Ollama's store",
    text=_TEXT,
    context="tokens of the longest conversations that it is for",
    release=_RELEASE,
    out="folder of the file; empty: in the workspace",
)
def calibrate(
    run: Run, model: str = "", text: str = "", context: int = calibration.CONTEXT, release: str = "", out: str = ""
) -> None:
    """Fit how a model's keys are best stored."""
    run.finish(calibration.calibrate(run, model, text, context, release, out))
