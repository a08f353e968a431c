"""The quality cost of a cache type: perplexity, and the KL divergence of a model's predictions from those with f16.

llama-perplexity of a build does the work. Its first run stores the logits with an f16 cache (or another base). Each
further run is compared with them token by token, so that differences are paired and their standard errors are small.
"""

from __future__ import annotations

import math
import re
import struct
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from ...core.cachetypes import grammar
from ...core.cachetypes.table import UPSTREAM, bits_per_value, finer_keys, standard, type_table
from ...core.console import Console
from ...core.errors import CommandFailed, ConfigError, DiskFull, TextTooShort, VerificationFailed
from ...core.process import run
from ...core.records import record, sha256_bytes
from ...serving.cachelog import Cache, mismatch, stated, uncalibrated, unstated
from ...serving.launcher import hint_on
from ...serving.llama_server import INFORMATIVE
from ...stages import CacheType
from .dump import read_heads
from .measure import Estimate

PLAIN = "/plain"
"""after a cache type: with upstream's rotation turned off"""
BYTES = 120_000
CONTEXT = 1024

_ATTEMPTS = 6
"""llama.cpp exits without waiting for its log thread, so the last lines can be lost on a busy machine: with two other
programs on each processor in two of three runs"""

_BATCH = 2048
"""the program's default: of a shorter context it reads several at once"""
_HEADER = struct.Struct("=8sIii")
"""of a file of logits: magic, context, vocabulary, chunks"""

_FLOATS = tuple(kind.name for kind in UPSTREAM if not kind.quantized)
_CHUNKS = re.compile(r"computing over (\d{1,9}) chunks")
_TOO_SHORT = re.compile(r"tokenizes to only (\d+) tokens")
_NUMBER = r"(-?\d{1,15}(?:\.\d{1,15})?)"
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
    beside = [*finer_keys(added), f"{first}:f16", f"f16:{first}"] if added else []
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
    the requested types and rotation. Raises `ConfigError` for an unknown cache, `ModelLoadFailed` for a file that is
    not a model, `TextTooShort`, `CommandFailed` when the program fails, and `VerificationFailed` when a run used
    another cache.
    """
    types = type_table(added)
    for cache in (base, *caches):
        for name in grammar.parse(cache.removesuffix(PLAIN)).names():
            if name not in types:
                raise ConfigError(f"unknown cache type {name!r} in {cache!r}", hint=", ".join(types))
    read_heads(model)
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=".kl-", dir=_made(log.parent)) as folder:
        program_run = Program(path=program, model=model, log=log, environment=environment or {})
        reference = Reference(program_run, text, Path(folder), context=context, base=base)
        with console.step(f"logits with {base}"):
            reference.make()
        rows, chunks = [], 0
        for cache in caches:
            with console.step(cache):
                found = reference.compare(cache)
            chunks, asked = len(found.each), grammar.parse(cache.removesuffix(PLAIN))
            bits = [bits_per_value(types[name]) for side in (asked.k, asked.v) for name in side.each(found.layers)]
            rows.append(
                Divergence(
                    cache=cache,
                    bits_per_value=sum(bits) / len(bits),
                    ppl=found.ppl,
                    delta=found.delta,
                    kl=found.kl,
                    same_top=found.same_top,
                    each=found.each,
                )
            )
    return Divergences(
        model=model.name,
        text_bytes=len(text),
        text_sha256=sha256_bytes(text),
        context=context,
        chunks=chunks,
        rows=tuple(rows),
    )


@record
class Program:
    """A llama-perplexity with a model. Its output is added to `log`; `environment` adds variables."""

    path: Path
    model: Path
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, flags: Sequence[str], cache: str) -> str:
        """What it prints. Raises `CommandFailed`."""
        asked = grammar.parse(cache.removesuffix(PLAIN))
        argv = [str(self.path), "--model", str(self.model), "--log-verbosity", INFORMATIVE, *flags]
        try:
            return run(
                [*argv, "--cache-type-k", str(asked.k), "--cache-type-v", str(asked.v)],
                env={**self.environment, "LLAMA_ATTN_ROT_DISABLE": str(int(cache.endswith(PLAIN)))},
                log=self.log,
                what=f"llama-perplexity with {cache}",
            ).output
        except CommandFailed as error:
            raise CommandFailed(error.message, hint=hint_on(error.message, error.hint)) from None

    def allocated(self, cache: str, context: int) -> tuple[Cache, ...]:
        """The KV caches of one sequence of `context` tokens, as the log states them. The model is loaded, and stops at
        a text that is too short. Raises `CommandFailed`, and `VerificationFailed` for another cache."""
        with tempfile.TemporaryDirectory(prefix=".load-", dir=_made(self.log.parent)) as folder:
            text = Path(folder) / "text"
            text.write_bytes(b"x")
            flags = ["--file", str(text), "--ctx-size", str(context), "--batch-size", str(min(context, _BATCH))]
            return _proven(self.run(flags, cache), cache, self)


@record
class Compared:
    """One cache against the base. KL is in nats per token."""

    cache: str
    layers: int
    ppl: Estimate
    delta: Estimate
    kl: Estimate
    same_top: Estimate
    each: tuple[Chunk, ...]

    @property
    def chunks(self) -> tuple[float, ...]:
        """Mean KL of each chunk."""
        return tuple(one.kl for one in self.each)


class Reference:
    """A model's predictions of a text with one cache, the base: a file of logits, with which runs are compared.

    `folder` gets the text and the logits, which take 2 bytes for each token of the vocabulary at every second token of
    the text. Only the first `chunks` contexts of the text are read (0: all).
    """

    def __init__(
        self, program: Program, text: bytes, folder: Path, *, context: int, chunks: int = 0, base: str = "f16"
    ) -> None:
        self.base = base
        self._program, self._words = program, text
        self._text, self._logits = folder / "text", folder / "logits"
        self._context, self._chunks = context, chunks

    def make(self) -> None:
        """Write the logits, unless an earlier run did.

        Raises `TextTooShort`, `CommandFailed`, `VerificationFailed`, and `DiskFull` when they are incomplete.
        """
        if self._logits.is_file():
            return
        _made(self._text.parent)
        self._text.write_bytes(self._words)
        part = self._logits.with_suffix(".part")
        said = self._program.run([*self._flags(part), "--chunks", str(self._chunks or -1)], self.base)
        short = _TOO_SHORT.search(said)
        if short:
            raise TextTooShort(
                f"the text has {short.group(1)} tokens, two contexts are needed",
                hint="a longer text, or a smaller --context",
            )
        _proven(said, self.base, self._program)
        _complete(part)
        part.replace(self._logits)

    def compare(self, cache: str) -> Compared:
        """Run with another cache. Raises `CommandFailed` when the program fails, and `VerificationFailed` when its log
        states another cache."""
        log = self._program.log
        for _ in range(_ATTEMPTS):
            said = self._program.run([*self._flags(self._logits), "--kl-divergence"], cache)
            layers = sum(one.proof.layers for one in _proven(said, cache, self._program))
            found = {name: re.search(pattern, said, re.MULTILINE) for name, pattern in _FIGURES.items()}
            counted, each = _CHUNKS.search(said), _chunks(said)
            if counted and int(counted.group(1)) == len(each) and all(found.values()):
                return Compared(
                    cache=cache,
                    layers=layers,
                    each=each,
                    **{
                        name: Estimate(mean=float(match.group(1)), error=_error(match.group(2)))
                        for name, match in found.items()
                        if match
                    },
                )
        missing = ", ".join(name for name, match in found.items() if not match) or "chunks"
        raise CommandFailed(
            f"llama-perplexity with {cache} printed no {missing} in {_ATTEMPTS} attempts\n  log: {log}",
            hint="it loses its last lines on a busy machine: run it again when less else runs",
        )

    def _flags(self, logits: Path) -> list[str]:
        return ["--file", str(self._text), "--ctx-size", str(self._context), "--kl-divergence-base", str(logits)]


def _proven(said: str, cache: str, program: Program) -> tuple[Cache, ...]:
    """The caches of a run's log. Raises `VerificationFailed` when they are not as asked for."""
    plain = cache.endswith(PLAIN)
    asked = grammar.parse(cache.removesuffix(PLAIN))
    found = stated(said)
    layers = sum(one.proof.layers for one in found)
    complaint = mismatch([one.proof for one in found], str(asked), layers) if found else unstated(said)
    for one in found:
        for side, names, rotated in (
            ("K", one.proof.type_k, one.rotated_k),
            ("V", one.proof.type_v, one.rotated_v),
        ):
            if rotated != (not plain and any(name not in _FLOATS for name in names.split("+"))):
                complaint = complaint or f"{side} ({names}) is {'' if rotated else 'not '}rotated"
    complaint = complaint or uncalibrated(said, program.environment)
    if complaint:
        raise VerificationFailed(
            f"asked for {cache}: {complaint}\n  log: {program.log}", hint="is this program built with the series?"
        )
    return found


def _complete(logits: Path) -> None:
    """Raises `DiskFull` for a file of logits that is shorter than its header says: the program does not check its
    writes."""
    with logits.open("rb") as file:
        header = file.read(_HEADER.size)
    due = 0
    if len(header) == _HEADER.size:
        _, context, vocabulary, chunks = _HEADER.unpack(header)
        row = 2 * ((vocabulary + 1) // 2) + 4
        due = _HEADER.size + chunks * (4 * context + 2 * row * (context - 1 - context // 2))
    if not due or logits.stat().st_size < due:
        raise DiskFull(f"{logits}: has {logits.stat().st_size} of {due or 'many'} bytes", hint="free some space")


def _chunks(said: str) -> tuple[Chunk, ...]:
    """The program prints means of all chunks so far: the differences of their sums are the single chunks.

    The rounding of the printed means makes an error in chunk n of about 4e-6 n, which cancels in their sum.
    """
    sums, found = (0.0, 0.0, 0.0, 0.0), []
    for number, match in enumerate(_CHUNK.finditer(said), 1):
        ppl, ratio, kl, same = (float(one) for one in match.groups()[1:])
        if ppl <= 0:  # of a program that failed, or of another one
            break
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
