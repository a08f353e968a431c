"""The benchmark: every selected type on every selected data set, rotated and not."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ...core.config import Config
from ...core.console import Console, Step
from ...core.errors import ConfigError
from ...core.records import record, sha256_bytes
from ...series.manifest import Series
from . import kernels
from .codec import Codec
from .dump import dump
from .measure import DB_PER_BIT, Figures, attention, compare, mean
from .references import REFERENCES
from .samples import DISTRIBUTIONS, Sample, draw

DUMP = "dump"
TOKENS = 8192
HEAD_SIZE = 128


@record
class BenchmarkRow:
    """One type on one data set."""

    type: str
    data: str
    """the data set; for a dump also dump.k, dump.v, and each layer as in dump.k.0"""
    rotated: bool
    seed: int
    bits_per_value: float
    snr_db: float
    gap_db: float
    """distance in dB to Shannon's bound for Gaussian data"""
    cosine: float
    ip_bias: float
    ip_variance: float


@record
class ScoreRow:
    """Attention over keys of one data set: cosines with the exact scores, and with their softmax."""

    type: str
    data: str
    rotated: bool
    seed: int
    context: int
    scores: float
    weights: float


@record
class Benchmark:
    """The results of the benchmark."""

    rows: tuple[BenchmarkRow, ...]
    attention: tuple[ScoreRow, ...]
    text_sha256: str = ""
    """digest of a dump's text; empty without a dump"""


@record
class DumpSource:
    """Where real keys and values come from: a llama-server, a model, and the text that it reads."""

    server: Path
    model: Path
    text: str


@record
class Selection:
    """What to measure; an empty tuple means everything."""

    types: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    rotations: tuple[bool, ...] = (True, False)
    tokens: int = TOKENS
    head_size: int = HEAD_SIZE


def run(
    chosen: Selection, source: DumpSource | None, series: Series, config: Config, console: Console, *, workspace: Path
) -> Benchmark:
    """Measure. Raises `ConfigError` for an unknown type or data set, or a dump without a model, before any work."""
    known = (*(kind.name for kind in series.types), *(codec.name for codec in REFERENCES))
    types = _chosen("type", chosen.types, known)
    data = _chosen("data set", chosen.data, (*DISTRIBUTIONS, DUMP) if source or chosen.data else tuple(DISTRIBUTIONS))
    if DUMP in data and source is None:
        raise ConfigError("--data dump needs a model", hint="--model FILE.gguf, and --server or --release")
    if chosen.tokens < 2:
        raise ConfigError(f"{chosen.tokens} tokens are too few", hint=f"--tokens {TOKENS}")
    codecs = tuple(codec for codec in (*kernels.load(series, config, workspace), *REFERENCES) if codec.name in types)
    rows: list[BenchmarkRow] = []
    scores: list[ScoreRow] = []
    samples = [
        (draw(name, tokens=chosen.tokens, head_size=chosen.head_size, seed=seed), seed)
        for seed in chosen.seeds
        for name in data
        if name != DUMP
    ]
    if DUMP in data and source is not None:
        dumped = dump(source.server, source.model, source.text, chosen.tokens, config, console)
        samples += [(sample, chosen.seeds[0]) for sample in dumped]
    with console.step("quality") as step:
        for sample, seed in _counted(samples, step):
            for rotated in chosen.rotations:
                measured = _measure(sample, seed, rotated, codecs)
                rows += (row for row, _ in measured)
                scores += (score for _, found in measured for score in found)
    return Benchmark(
        rows=(*rows, *_summaries(rows)),
        attention=(*scores, *_score_summaries(scores)),
        text_sha256=sha256_bytes(source.text.encode()) if source and DUMP in data else "",
    )


def _chosen(what: str, asked: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    for name in asked:
        if name not in known:
            raise ConfigError(f"unknown {what} {name!r}", hint=", ".join(known))
    return tuple(dict.fromkeys(asked)) or tuple(known)


def _counted(samples: Sequence[tuple[Sample, int]], step: Step) -> Iterator[tuple[Sample, int]]:
    for index, (sample, seed) in enumerate(samples):
        step.update(index, len(samples), sample.name)
        yield sample, seed


def _measure(
    sample: Sample, seed: int, rotated: bool, codecs: Iterable[Codec]
) -> list[tuple[BenchmarkRow, tuple[ScoreRow, ...]]]:
    values = sample.rotated() if rotated else sample.values
    found = []
    for codec in codecs:
        restored = codec.restore(values)
        # the same queries for every type, so that differences between types are paired
        rng = np.random.default_rng([seed, zlib.crc32(sample.name.encode())])
        row = _row(codec.name, codec.bits_per_value, sample.name, rotated, seed, compare(values, restored, rng))
        scores = tuple(
            ScoreRow(
                type=codec.name,
                data=sample.name,
                rotated=rotated,
                seed=seed,
                context=one.context,
                scores=one.scores,
                weights=one.weights,
            )
            for one in (attention(values, restored, rng) if sample.keys else ())
        )
        found.append((row, scores))
    return found


def _row(kind: str, bits: float, data: str, rotated: bool, seed: int, figures: Figures) -> BenchmarkRow:
    return BenchmarkRow(
        type=kind,
        data=data,
        rotated=rotated,
        seed=seed,
        bits_per_value=bits,
        snr_db=figures.snr_db,
        gap_db=DB_PER_BIT * bits - figures.snr_db,
        cosine=figures.cosine,
        ip_bias=figures.ip_bias,
        ip_variance=figures.ip_variance,
    )


def _summaries(rows: Sequence[BenchmarkRow]) -> Iterator[BenchmarkRow]:
    """K, V and all of a dump: means over layers, each with the same weight."""
    for name in (f"{DUMP}.k", f"{DUMP}.v", DUMP):
        groups: dict[tuple[str, bool], list[BenchmarkRow]] = {}
        for row in rows:
            if row.data.startswith(f"{name}."):
                groups.setdefault((row.type, row.rotated), []).append(row)
        for (kind, rotated), members in groups.items():
            figures = mean(
                [
                    Figures(snr_db=row.snr_db, cosine=row.cosine, ip_bias=row.ip_bias, ip_variance=row.ip_variance)
                    for row in members
                ]
            )
            yield _row(kind, members[0].bits_per_value, name, rotated, members[0].seed, figures)


def _score_summaries(scores: Sequence[ScoreRow]) -> Iterator[ScoreRow]:
    """Attention over the K of a dump: means over layers."""
    groups: dict[tuple[str, bool, int], list[ScoreRow]] = {}
    for row in scores:
        if row.data.startswith(f"{DUMP}.k."):
            groups.setdefault((row.type, row.rotated, row.context), []).append(row)
    for members in groups.values():
        yield dataclasses.replace(
            members[0],
            data=f"{DUMP}.k",
            scores=float(np.mean([row.scores for row in members])),
            weights=float(np.mean([row.weights for row in members])),
        )
