"""The one table, and what is derived from it: today's selections, and whatever a series' types make of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain.contract import operations, proving
from toolchain.core.cachetypes.table import BESIDE, UPSTREAM, CacheType, own, proven_types, standard, type_table
from toolchain.core.config import load
from toolchain.core.errors import SeriesError
from toolchain.metal import cases, cost
from toolchain.models.memory import plan
from toolchain.models.quality import divergence

OWN = own()
NAMES = [kind.name for kind in OWN]
SINGLE = (CacheType(name="turbo9", block=64, bytes=74),)


def test_every_type_is_known_with_its_noise() -> None:
    table = type_table(OWN)
    assert list(table) == [*(kind.name for kind in UPSTREAM), *NAMES]
    assert all(kind.db for kind in table.values())
    assert {kind.name for kind in table.values() if not kind.quantized} == {"f32", "f16", "bf16"}
    assert set(BESIDE) <= set(table)


def test_what_is_run_for_the_types_that_there_are() -> None:
    """Which pairs are run decides what results mean, so that they change on purpose alone."""
    assert NAMES == ["turbo4", "turbo3", "turbo2", "turbo5"]
    rules = "q8_0:turbo2,first=2:q8_0,last=2:q8_0"
    assert load(environ={}).verify.types == (*NAMES, "q8_0:turbo4", "turbo5:turbo4", rules)
    assert load(environ={}).deploy.kv_cache_type == "turbo4"
    assert plan.usual_types(OWN) == ("f16", "q8_0", "q8_0:turbo4", "turbo5:turbo4", *NAMES)
    assert divergence.usual_caches(OWN) == (
        *("f16", "q8_0", "q4_0", "q4_0/plain"),
        *(*NAMES, "q8_0:turbo4", "turbo5:turbo4", "turbo4:f16", "f16:turbo4"),
    )
    assert cases.usual(NAMES) == (
        *((name, name) for name in NAMES),
        *(("q8_0", "turbo4"), ("f16", "turbo3"), ("q8_0", "turbo2"), ("f16", "turbo5"), ("turbo4", "turbo3")),
    )
    assert cost.pairs(NAMES) == (
        *(("f16", "f16"), ("q8_0", "q8_0"), ("q4_0", "q4_0")),
        *((name, name) for name in NAMES),
        ("q8_0", "turbo4"),
    )
    assert proving.pairs(NAMES) == (
        *(("q8_0", "turbo4"), ("turbo4", "q8_0"), ("f16", "turbo3")),
        *((name, name) for name in ("turbo4", "turbo2", "turbo5")),
    )


def test_one_type_is_enough() -> None:
    assert proven_types(SINGLE) == ("turbo9", "q8_0:turbo9", "q8_0:turbo9,first=2:q8_0,last=2:q8_0")
    assert proving.pairs(["turbo9"]) == (("q8_0", "turbo9"), ("turbo9", "q8_0"), ("turbo9", "turbo9"))
    assert {one.k for one in cases.rare(["turbo9"])} == {"turbo9", "q8_0"}
    assert {one.v for one in cases.attentions(["turbo9"])} >= {"turbo9", *BESIDE}
    assert set(operations.pairs(["turbo9"], [*BESIDE])) == set(cases.pairs(["turbo9"]))


def test_no_type_at_all() -> None:
    """A release without the series has upstream's alone."""
    assert standard(()) == "f16"
    assert proven_types(()) == plan.usual_types(())[:1] == ("f16",)
    assert divergence.usual_caches(()) == ("f16", "q8_0", "q4_0", "q4_0/plain")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("types: [", "series.yaml"),
        ("types: [{name: x}]", "block"),
        ("parts: []", "missing required"),
        ("", "Expected"),
    ],
)
def test_a_series_that_cannot_be_read(tmp_path: Path, text: str, word: str) -> None:
    """It is an error for whoever asks for its types; the configuration leaves it to them."""
    with pytest.raises(SeriesError, match=r"no series\.yaml"):
        own(tmp_path)
    (tmp_path / "series.yaml").write_text(text)
    with pytest.raises(SeriesError, match=word):
        own(tmp_path)
    assert load(environ={}, flags={"series.path": str(tmp_path)}).deploy.kv_cache_type == "turbo4"
