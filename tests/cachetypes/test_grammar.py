"""One grammar of cache types: the shared table, the layers that rules name, and presets that only add."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.core import records
from toolchain.core.cachetypes.grammar import PRESETS, CacheTypes, LayerRule, LayerTypes, parse, split_settings
from toolchain.core.cachetypes.table import averages, bits_per_value, own, type_table
from toolchain.core.config import load, rows
from toolchain.core.errors import ConfigError

TABLE = Path(__file__).parents[2] / "patches/cachetypes.txt"
CASES = [line.split() for line in TABLE.read_text().splitlines() if line and not line.startswith("#")]

names = st.sampled_from(["turbo4", "turbo2", "q8_0", "f16"])
numbers = st.integers(0, 9999)
rules = st.one_of(
    st.builds(
        lambda where, n, name: LayerRule(where=where, low=0, high=n + (n == 0), type=name),
        st.sampled_from(["first", "last"]),
        numbers,
        names,
    ),
    st.builds(
        lambda a, b, name: LayerRule(where="layers", low=min(a, b), high=max(a, b), type=name), numbers, numbers, names
    ),
)
sides = st.builds(lambda base, found: LayerTypes(base=base, rules=tuple(found)), names, st.lists(rules, max_size=4))
settings = st.builds(lambda k, v: CacheTypes(k=k, v=v), sides, sides)


@pytest.mark.parametrize(("kind", "text", "canonical"), CASES, ids=[text for _, text, _ in CASES])
def test_the_shared_table(kind: str, text: str, canonical: str) -> None:
    if canonical == "-":
        with pytest.raises(ConfigError) as caught:
            parse(text)
        assert text in str(caught.value)
    else:
        found = parse(text)
        assert str(found) == canonical
        assert kind == "pair" or found.k == found.v


@given(settings)
def test_what_is_written_is_read_back(found: CacheTypes) -> None:
    assert parse(str(found)) == found
    assert parse(str(found).upper()) == found


@given(st.text(alphabet="tq82_0:,=-firstlaye", max_size=40))
def test_anything_else_is_refused_by_name(text: str) -> None:
    def outcome() -> str:
        try:
            return str(parse(text))
        except ConfigError as error:
            return error.message

    found = outcome()
    assert repr(text) in found or str(parse(found)) == found


@given(sides, st.integers(1, 60))
def test_each_layer_has_the_type_of_the_last_rule_that_names_it(side: LayerTypes, layers: int) -> None:
    def names_it(rule: LayerRule, layer: int) -> bool:
        if rule.where == "first":
            return layer < rule.high
        return layer >= layers - rule.high if rule.where == "last" else rule.low <= layer <= rule.high

    beyond = [rule for rule in side.rules if rule.high > (layers - 1 if rule.where == "layers" else layers)]
    if beyond:
        with pytest.raises(ConfigError, match=f"the model has {layers} attention layer") as caught:
            side.each(layers)
        assert str(beyond[0]) in caught.value.message
        return
    for layer in range(layers):
        matching = [rule.type for rule in side.rules if names_it(rule, layer)]
        assert side.of(layer, layers) == (matching[-1] if matching else side.base)


@pytest.mark.parametrize(
    ("text", "spelt_out"),
    [
        ("turbo3,mode=0", "turbo3"),
        ("turbo3,mode=1", "turbo3,first=4:q8_0,last=4:q8_0"),
        ("q8_0:turbo3,mode=1", "q8_0:turbo3,first=4:q8_0,last=4:q8_0"),
        ("turbo2,mode=7", "turbo2:turbo2,first=2:q8_0,last=2:q8_0"),
        ("q8_0:turbo4,mode=7", "q8_0:turbo4,first=2:q8_0,last=2:q8_0"),
        ("turbo4:q8_0,mode=7", "turbo4:q8_0"),
        ("turbo4,first=1:f16,mode=1", "turbo4,first=4:q8_0,last=4:q8_0,first=1:f16"),
    ],
)
def test_presets_are_spelt_out(text: str, spelt_out: str) -> None:
    assert str(parse(text)) == spelt_out


@given(settings, st.sampled_from(list(PRESETS)), st.integers(8, 40))
def test_a_preset_never_overrides_a_rule(asked: CacheTypes, mode: str, layers: int) -> None:
    found = parse(f"{asked},mode={mode}")
    for before, after in ((asked.k, found.k), (asked.v, found.v)):
        assert after.base == before.base
        assert after.rules[len(after.rules) - len(before.rules) :] == before.rules
        try:
            types = before.each(layers)
        except ConfigError:
            continue
        ruled = {layer for rule in before.rules for layer in rule.span(layers)}
        for layer, (old, new) in enumerate(zip(types, after.each(layers), strict=True)):
            assert new == old or (new == "q8_0" and old in ("turbo4", "turbo2") and layer not in ruled)


@pytest.mark.parametrize("text", ["turbo4,mode=", "turbo4,mode=2", "turbo4,mode=7,first=1:q8_0", "mode=7"])
def test_no_such_preset(text: str) -> None:
    with pytest.raises(ConfigError, match="mode="):
        parse(text)


def test_several_settings_in_one_text() -> None:
    text = "turbo4, q8_0:turbo2;turbo2,first=2:q8_0,last=2:q8_0,q8_0:turbo4 f16"
    assert list(split_settings(text)) == [
        "turbo4",
        "q8_0:turbo2",
        "turbo2,first=2:q8_0,last=2:q8_0",
        "q8_0:turbo4",
        "f16",
    ]


def test_the_names_that_a_release_must_know() -> None:
    assert parse("q8_0:turbo2,first=2:f16,last=1:q8_0").names() == ("q8_0", "turbo2", "f16")


def test_as_a_record() -> None:
    found = parse("q8_0:turbo2,first=2:f16")
    assert records.to_builtins(found)["v"]["rules"][0] == {"where": "first", "low": 0, "high": 2, "type": "f16"}


def test_the_configuration_shows_the_rules(tmp_path: Path) -> None:
    file = tmp_path / "turboquant.yaml"
    file.write_text("deploy: {kv_cache_type: 'Q8_0:turbo2,mode=7'}\n")
    config = load(file=file, environ={"TURBOQUANT_VERIFY_TYPES": "turbo4,turbo2,first=1:q8_0"})
    assert config.deploy.kv_cache_type == "q8_0:turbo2,first=2:q8_0,last=2:q8_0"
    assert config.verify.types == ("turbo4", "turbo2,first=1:q8_0")
    assert {row.key: row.value for row in rows(config)}["deploy.kv_cache_type"] == config.deploy.kv_cache_type
    for bad in ("turbo4,first=0:q8_0", "turbo4; rm", ""):
        with pytest.raises(ConfigError, match=r"deploy\.kv_cache_type"):
            load(file=tmp_path / "turboquant.yaml", environ={}, flags={"deploy.kv_cache_type": bad})


def test_an_average_of_bits_is_the_pair_that_has_it() -> None:
    known = type_table(own())
    for bits, setting in averages().items():
        found = parse(f"turbo:{bits}")
        assert found == parse(setting)
        pair = (known[found.k.base], known[found.v.base])
        assert sum(map(bits_per_value, pair)) / 2 == float(bits)
    assert parse("TURBO:4.250,mode=1") == parse(f"{averages()['4.25']},mode=1")
    with pytest.raises(ConfigError, match=r"turbo:5'.*there are turbo:3\.25, "):
        parse("turbo:5")
