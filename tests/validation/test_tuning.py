"""`validate.tune` with a llama-perplexity whose losses add up by known shares, so that the optimum is known."""

from __future__ import annotations

import itertools
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.quality import llama_perplexity as double
from toolchain.core.cachetypes import grammar
from toolchain.core.cachetypes.table import type_table
from toolchain.core.config import load
from toolchain.core.errors import (
    CommandFailed,
    ConfigError,
    DiskFull,
    TextTooShort,
    ToolchainError,
    VerificationFailed,
)
from toolchain.core.run import Run
from toolchain.core.validation_errors import NothingFits
from toolchain.models.memory.geometry import CachedLayer, Geometry
from toolchain.models.memory.kv import Setting
from toolchain.models.quality.measure import Estimate
from toolchain.text import as_text
from toolchain.validation.tuning import choice, room, tuning
from toolchain.validation.tuning.result import Tuning, ratio
from toolchain.validation.tuning.shares import SIDES, Factor, Losses, Share

from .conftest import ROOT, TYPES

SHARES = ([4.0, 0.5, 1.0, 2.5], [0.2, 0.1, 0.6, 0.1])
NAMES = ("q8_0", "turbo4", "turbo3", "turbo2")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "llama-perplexity"
    command = shlex.join([sys.executable, "-m", "tests.quality.llama_perplexity"])
    path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {command} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def _shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQ_TEST_SHARES", ":".join(",".join(map(str, side)) for side in SHARES))


@pytest.fixture
def tune(run: Run, model: Path, program: Path):  # type: ignore[no-untyped-def]
    """A tuning with a short text; keywords as for `Wanted`, and `text`."""

    def made(*, text: str = "", **given: object) -> Tuning:
        measuring = tuning.plan_measuring(
            run, model=str(model), text=text, program=str(program), share=(64, 3), final=(64, 6)
        )
        usual: dict[str, object] = {"context": 4096, "types": NAMES}
        return tuning.tune(run, measuring, tuning.Wanted(**{**usual, **given}))  # type: ignore[arg-type]

    return made


def _true_optimum(size: int) -> float:
    """The least KL of all choices within so many bytes, by the double's own losses."""
    cells, each = 4096 * double.VALUES / 8, list(itertools.product(NAMES, NAMES))
    found = [(0.0, double.FLOOR / 100)]
    for k, v in zip(*SHARES, strict=True):
        options = [
            ((double.BITS[a] + double.BITS[b]) * cells, (k * double.noise(a) + v * double.noise(b)) / 100)
            for a, b in each
        ]
        found = [(held + more, lost + further) for held, lost in found for more, further in options]
    return min(lost for held, lost in found if held <= size)


def test_the_best_setting_is_found_measured_and_kept(tune, run: Run) -> None:  # type: ignore[no-untyped-def]
    found = tune(like="turbo4")
    best = _true_optimum(found.room)
    rows = {row.setting: row for row in found.rows}
    chosen, uniform = rows[found.setting], rows["turbo4"]
    assert found.optimal
    assert found.optimum == pytest.approx(best, rel=0.02)
    assert found.bound == found.optimum
    assert found.predicted.mean <= found.optimum + found.predicted.error
    assert chosen.kl.mean == pytest.approx(found.predicted.mean, rel=0.02)
    assert chosen.kl.mean < uniform.kl.mean
    assert uniform.ratio is not None
    assert uniform.ratio.mean == pytest.approx(chosen.kl.mean / uniform.kl.mean, rel=1e-3)
    assert uniform.ratio.error < 0.001
    assert uniform.kl.error > 0.05 * uniform.kl.mean
    assert rows["f16"].kl.mean == 0
    assert rows["f16"].predicted == _estimate(0.0, 0.0)
    assert found.stated
    assert chosen.bytes == found.bytes <= found.room == uniform.bytes
    assert not found.better
    settings = load(environ={}, file=found.profile)
    assert settings.deploy.kv_cache_type == found.setting
    assert found.setting in as_text(found)
    assert not [path for path in found.profile.parents[1].iterdir() if path.name in ("shares", "final")]


def test_what_was_measured_is_not_measured_again(tune, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """An interrupted tuning goes on, and ends as one that was not; one for other memory has the shares."""
    monkeypatch.setenv("TQ_TEST_FAIL", "crash at f16,layers=2:turbo2")
    with pytest.raises(CommandFailed, match="the scripted end"):
        tune(like="turbo4")
    monkeypatch.setenv("TQ_TEST_FAIL", "")
    found = tune(like="turbo4")
    monkeypatch.setenv("TQ_TEST_FAIL", "crash")
    again = tune(like="turbo4")
    assert replace(again, seconds=found.seconds) == found
    monkeypatch.setenv("TQ_TEST_FAIL", "crash at f16,layers=1:turbo2")
    smaller = tune(like="turbo3")
    assert smaller.losses == found.losses
    assert smaller.bytes <= smaller.room < found.bytes


@pytest.mark.parametrize(
    ("given", "fail", "error", "words"),
    [
        ({"context": 9000}, "", ConfigError, "--context 9000: the model was trained on 4096 tokens"),
        ({"bits": 4.25, "like": "turbo4"}, "", ConfigError, "--ram, --bits and --like"),
        ({"bits": 40}, "", ConfigError, "--bits 40: expected 1 to 16"),
        ({"bits": 2}, "", NothingFits, "GiB are there for the cache, the smallest types take"),
        ({"ram": 5.001}, "", NothingFits, "GiB besides the cache, 0.0 GiB of memory"),
        ({"ram": 36}, "", ConfigError, "f16 takes 0.004 GiB and fits .a Mac of 36 GiB.: there is nothing to choose"),
        ({"types": ("turbo9",)}, "", ConfigError, "--types 'turbo9': no such cache type"),
        ({"types": ("f16",)}, "", ConfigError, "takes none of the quantized types"),
        ({"like": "turbo4,layers=9:f16"}, "", ConfigError, "the model has 4 attention layers"),
        ({"text": "short"}, "", TextTooShort, "tokens, two contexts are needed"),
        ({"bits": 5}, "disk-full", DiskFull, "logits.part: has"),
        ({"bits": 5}, "other-size", VerificationFailed, "planned 4 layers of 4096 cells"),
        (
            {"bits": 5},
            "other-type",
            VerificationFailed,
            "asked for q8_0: asked for K q8_0 and V q8_0, the cache has",
        ),
    ],
)
def test_what_goes_wrong_is_told(  # type: ignore[no-untyped-def]
    tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given, fail: str, error: type[ToolchainError], words: str
) -> None:
    monkeypatch.setenv("TQ_TEST_FAIL", fail)
    if "text" in given:
        (tmp_path / "text").write_text(given["text"])
        given = {"text": str(tmp_path / "text"), "bits": 5}
    with pytest.raises(error, match=words):
        tune(**given)


def test_a_window_costs_little_at_a_long_context() -> None:
    """Bytes of every choice are the planner's, and the layers with a window get the finer types."""
    shape = Geometry(
        architecture="gemma3",
        layers=6,
        cached=tuple(CachedLayer(index=at, k=256, v=256, head_k=256, head_v=256, windowed=at != 5) for at in range(6)),
        window=512,
        context_length=32768,
        embedding=640,
        feed_forward=2048,
        heads=4,
        vocabulary=100,
    )
    table, setting = type_table(TYPES), Setting(context=32768)
    types = room.suited(shape, room.usual(TYPES, metal=False), table)
    pairs = room.groups(shape, types, setting, metal=False)
    losses = _losses([1.0] * 6, [0.2] * 6)
    size = room.of_bits(shape, setting, 4.25)
    found = choice.choose(pairs, losses, size)
    assert found.bytes == room.cache_bytes(shape, found.types, setting, table) <= size
    bits = {kind.name: kind.bytes / kind.block for kind in table.values()}
    assert min(bits[name] for name in found.types.k.each(6)[:5]) > bits[found.types.k.each(6)[5]]


def test_a_mac_gets_only_pairs_that_metal_runs() -> None:
    names = {kind.name for kind in TYPES}
    shape = Geometry(
        architecture="llama",
        layers=1,
        cached=(CachedLayer(index=0, k=64, v=64, head_k=64, head_v=64),),
        context_length=1024,
        embedding=64,
        feed_forward=64,
        heads=1,
        vocabulary=100,
    )
    types = room.suited(shape, room.usual(TYPES, metal=True), type_table(TYPES))
    (pairs,) = room.groups(shape, types, Setting(context=1024), metal=True)
    assert {one.name for one in types} == {"f16", "q8_0", "q4_0", *names}
    assert all(one.k == one.v or {one.k, one.v} & names for one in pairs)
    assert {("q8_0", "turbo3"), ("turbo2", "f16"), ("q8_0", "q8_0")} <= {(one.k, one.v) for one in pairs}
    assert ("q8_0", "q4_0") not in {(one.k, one.v) for one in pairs}


def test_fewer_rules_where_the_shares_cannot_tell() -> None:
    """Where the shares have larger errors, neighbours get one type, at a predicted loss within the errors."""
    drawn = np.random.default_rng(0)
    k, v = drawn.lognormal(0, 0.8, 30).tolist(), drawn.lognormal(-1.2, 0.4, 30).tolist()
    shape = Geometry(
        architecture="llama",
        layers=30,
        cached=tuple(CachedLayer(index=at, k=64, v=64, head_k=64, head_v=64) for at in range(30)),
        context_length=1024,
        embedding=64,
        feed_forward=64,
        heads=1,
        vocabulary=100,
    )
    setting = Setting(context=1024)
    types = room.suited(shape, ("q5_0", *NAMES), type_table(TYPES))
    pairs = room.groups(shape, types, setting, metal=False)
    size = room.of_bits(shape, setting, 4.25)
    rough = choice.choose(pairs, _losses(k, v, error=0.2), size)
    exact = choice.choose(pairs, _losses(k, v), size)
    assert rough.optimum == pytest.approx(exact.optimum)
    assert _rules(str(rough.types)) < _rules(str(exact.types))
    assert max(rough.bytes, exact.bytes) <= size


def test_a_ratio_is_paired() -> None:
    """Chunks that differ much, and alike, leave the ratio exact."""
    base = [0.1, 0.5, 0.02, 0.3]
    found = ratio([0.5 * one for one in base], base)
    assert found is not None
    assert found.mean == pytest.approx(0.5)
    assert found.error < 1e-9
    assert ratio(base, [0.0] * 4) is None


def _rules(setting: str) -> int:
    types = grammar.parse(setting)
    return len(types.k.rules) + len(types.v.rules)


def _losses(k: list[float], v: list[float], error: float = 0.0) -> Losses:
    """The model of these shares of turbo2, with the double's noise."""
    shares = [
        Share(side=side, layer=layer, kl=_estimate(share, error))
        for side, each in zip(SIDES, (k, v), strict=True)
        for layer, share in enumerate(each)
    ]
    names = [name for name in double.BITS if name != "f16"]
    factors = [
        Factor(side=side, type=name, kl=_estimate(1.0, 0.0), factor=double.noise(name) / double.noise("turbo2"))
        for side in SIDES
        for name in names
    ]
    return Losses(coarsest="turbo2", floor=_estimate(0.0, 0.0), shares=tuple(shares), factors=tuple(factors))


def _estimate(mean: float, error: float) -> Estimate:
    return Estimate(mean=mean, error=error)
