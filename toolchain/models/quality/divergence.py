"""The quality cost of a cache type: perplexity, and the KL divergence of a model's predictions from those with f16.

llama-perplexity of a build does the work. Its first run stores the logits with an f16 cache (or another base). Each
further run is compared with them token by token, so that differences are paired and their standard errors are small.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...core.cachetypes import grammar
from ...core.cachetypes.table import UPSTREAM, bits_per_value, standard, type_table
from ...core.console import Console
from ...core.errors import CommandFailed, ConfigError, TextTooShort, VerificationFailed
from ...core.process import run
from ...core.records import record, sha256_bytes
from ...serving.cachelog import mismatch, stated
from ...serving.llama_server import INFORMATIVE
from ...stages import CacheType
from .dump import read_heads
from .measure import Estimate

PLAIN = "/plain"
"""after a cache type: with upstream's rotation turned off"""
BYTES = 120_000
CONTEXT = 1024

_ATTEMPTS = 3
"""llama.cpp exits without waiting for its log thread, so the last lines can be lost on a busy machine"""

_FLOATS = tuple(kind.name for kind in UPSTREAM if not kind.quantized)
_CHUNKS = re.compile(r"computing over (\d+) chunks")
_TOO_SHORT = re.compile(r"tokenizes to only (\d+) tokens")
_NUMBER = r"(-?\d+(?:\.\d+)?)"
# If nothing differs, rounding can make the variance slightly negative, and the program prints its root.
_ERROR = r"(-?nan|\d+(?:\.\d+)?)"
_FIGURES = {
    "ppl": rf"^Mean PPL\(Q\) *: *{_NUMBER} ± *{_ERROR}",
    "delta": rf"^Mean PPL\(Q\)-PPL\(base\) *: *{_NUMBER} ± *{_ERROR}",
    "kl": rf"^Mean +KLD: *{_NUMBER} ± *{_ERROR}",
    "same_top": rf"^Same top p: *{_NUMBER} ± *{_ERROR}",
}
_CHUNK = re.compile(
    rf"^ *(\d+) +{_NUMBER} ± *\S+ +{_NUMBER} ± *\S+ +{_NUMBER} ± *\S+ +\S+ ± *\S+ +% +{_NUMBER} ±", re.MULTILINE
)
"""number, perplexity, log of its ratio to the base's, KL, percentage of equal tops: of all chunks up to this one"""


@record
class Chunk:
    """The means over the scored tokens of one chunk. Logarithms are natural ones."""

    nll: float
    """negative logarithm of the probability that the cache gives the true token"""
    nll_base: float
    kl: float
    same_top: float
    """percentage"""


@record
class Divergence:
    """One cache against the base on the same text. KL is in nats per token."""

    cache: str
    bits_per_value: float
    """mean of K and V, and of all layers"""
    ppl: Estimate
    delta: Estimate
    """of perplexity, paired"""
    kl: Estimate
    same_top: Estimate
    """percentage of positions where both caches predict the same top token"""
    each: tuple[Chunk, ...] = ()
    """chunk by chunk, for errors that do not take neighbouring tokens for independent ones"""


@record
class Divergences:
    """The table of one model and text."""

    model: str
    text_bytes: int
    text_sha256: str
    context: int
    chunks: int
    rows: tuple[Divergence, ...]


def usual_caches(added: Sequence[CacheType]) -> tuple[str, ...]:
    """The caches that are compared with f16 by default, with the types that the series `added`."""
    first = standard(added)
    beside = [f"q8_0:{first}", f"{first}:f16", f"f16:{first}"] if added else []
    return ("f16", "q8_0", "q4_0", f"q4_0{PLAIN}", *(kind.name for kind in added), *beside)


def measure(
    program: Path,
    model: Path,
    text: bytes,
    *,
    caches: Sequence[str],
    context: int = CONTEXT,
    added: Iterable[CacheType],
    log: Path,
    console: Console,
    base: str = "f16",
    environment: Mapping[str, str] | None = None,
) -> Divergences:
    """Run `model` over `text` once for each cache: a setting for `grammar.parse`, optionally with the suffix `/plain`.

    `base` is the cache that all are compared with; `environment` is added to the program's. Every run's log must state
    the requested types and rotation. Raises `ConfigError` for a
    unknown cache, `ModelLoadFailed` for a file that is not a model, `TextTooShort`, `CommandFailed` when the program
    fails, and `VerificationFailed` when a run used another cache.
    """
    types = type_table(added)
    for cache in (base, *caches):
        for name in grammar.parse(cache.removesuffix(PLAIN)).names():
            if name not in types:
                raise ConfigError(f"unknown cache type {name!r} in {cache!r}", hint=", ".join(types))
    read_heads(model)
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=".kl-", dir=_made(log.parent)) as folder:
        words, logits = Path(folder) / "text", Path(folder) / "logits"
        words.write_bytes(text)
        argv = [str(program), "--model", str(model), "--file", str(words), "--ctx-size", str(context)]
        argv += ["--log-verbosity", INFORMATIVE, "--kl-divergence-base", str(logits)]
        further = dict(environment or {})
        with console.step(f"logits with {base}"):
            _run(argv, base, log, further)
        rows, chunks = [], 0
        for cache in caches:
            with console.step(cache):
                layers, figures, each = _compare([*argv, "--kl-divergence"], cache, log, further)
            asked = grammar.parse(cache.removesuffix(PLAIN))
            bits = [bits_per_value(types[name]) for name in (*asked.k.each(layers), *asked.v.each(layers))]
            rows.append(Divergence(cache=cache, bits_per_value=sum(bits) / len(bits), each=each, **figures))
            chunks = len(each)
    return Divergences(
        model=model.name,
        text_bytes=len(text),
        text_sha256=sha256_bytes(text),
        context=context,
        chunks=chunks,
        rows=tuple(rows),
    )


def _run(argv: list[str], cache: str, log: Path, environment: Mapping[str, str]) -> tuple[str, int]:
    """The program's output, and the number of attention layers."""
    plain = cache.endswith(PLAIN)
    asked = grammar.parse(cache.removesuffix(PLAIN))
    done = run(
        [*argv, "--cache-type-k", str(asked.k), "--cache-type-v", str(asked.v)],
        env={**environment, "LLAMA_ATTN_ROT_DISABLE": str(int(plain))},
        log=log,
        what=f"llama-perplexity with {cache}",
    )
    short = _TOO_SHORT.search(done.output)
    if short:
        raise TextTooShort(
            f"the text has {short.group(1)} tokens, two contexts are needed",
            hint="a longer text, or a smaller --context",
        )
    found = stated(done.output)
    layers = sum(one.proof.layers for one in found)
    complaint = mismatch([one.proof for one in found], str(asked), layers) if found else "the log states no KV cache"
    for one in found:
        for side, names, rotated in (
            ("K", one.proof.type_k, one.rotated_k),
            ("V", one.proof.type_v, one.rotated_v),
        ):
            if rotated != (not plain and any(name not in _FLOATS for name in names.split("+"))):
                complaint = complaint or f"{side} ({names}) is {'' if rotated else 'not '}rotated"
    if complaint:
        raise VerificationFailed(
            f"asked for {cache}: {complaint}\n  log: {log}", hint="is this program built with the series?"
        )
    return done.output, layers


def _compare(
    argv: list[str], cache: str, log: Path, environment: Mapping[str, str]
) -> tuple[int, dict[str, Estimate], tuple[Chunk, ...]]:
    """Attention layers, figures and chunks of one run."""
    for _ in range(_ATTEMPTS):
        said, layers = _run(argv, cache, log, environment)
        found = {name: re.search(pattern, said, re.MULTILINE) for name, pattern in _FIGURES.items()}
        counted, each = _CHUNKS.search(said), _chunks(said)
        if counted and all(found.values()) and len(each) == int(counted.group(1)):
            figures = {
                name: Estimate(mean=float(match.group(1)), error=_error(match.group(2)))
                for name, match in found.items()
                if match
            }
            return layers, figures, each
    missing = ", ".join(name for name, match in found.items() if not match) or "chunks"
    raise CommandFailed(f"llama-perplexity with {cache} printed no {missing}\n  log: {log}")


def _chunks(said: str) -> tuple[Chunk, ...]:
    """The program prints means of all chunks so far: the differences of their sums are the single chunks.

    The rounding of the printed means makes an error in chunk n of about 4e-6 n, which cancels in their sum.
    """
    sums, found = (0.0, 0.0, 0.0, 0.0), []
    for number, match in enumerate(_CHUNK.finditer(said), 1):
        ppl, ratio, kl, same = (float(one) for one in match.groups()[1:])
        means = (math.log(ppl), math.log(ppl) - ratio, kl, same)
        now = (means[0] * number, means[1] * number, means[2] * number, means[3] * number)
        nll, base, divergence, top = (new - old for new, old in zip(now, sums, strict=True))
        found.append(Chunk(nll=nll, nll_base=base, kl=divergence, same_top=top))
        sums = now
    return tuple(found)


def _error(stated: str) -> float:
    return 0.0 if "nan" in stated else float(stated)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
