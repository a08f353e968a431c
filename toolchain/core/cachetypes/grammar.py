"""The syntax of a cache type setting: one type, or one each for K and V, with other types for some layers.

    SETTING = SPEC [":" SPEC]          K and V; a single SPEC is for both
    SPEC    = TYPE ("," RULE)*         the type of every layer that no rule names
    RULE    = "first=" N ":" TYPE  |  "last=" N ":" TYPE  |  "layers=" A ["-" B] ":" TYPE

Layers are *attention layers*, those that have a K and V cache, counted from 0 over the whole model: recurrent layers
of a hybrid model do not count, and a cache that is split in two for a sliding window counts as one. Where two rules
name the same layer the later one wins. Case is ignored; blanks are not allowed. llama-server and Ollama of a release
parse the same grammar (patches/kernels/llama-kv-layers.cpp, patches/ollama/turboquant.go.j2), and all three are tested
against patches/cachetypes.txt.

A setting of the toolkit may also be `turbo:BITS`, the types that lose least at this average of bits per value
(`averages` of patches/series.yaml, from measurements).

A setting of the toolkit may end in `,mode=N`, one of the three presets below. It is expanded at once, so that
`./inv config`, logs and the service's environment show the rules. A preset's rules come before the setting's own, which
therefore win, and are added only to K or V of a type that is coarser than q8_0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from ..errors import ConfigError
from ..records import record
from . import table

# The modes of the best-known fork: none; K and V of four layers at either end; V of two layers at either end.
PRESETS = {
    "0": ("", ""),
    "1": ("first=4:q8_0,last=4:q8_0", "first=4:q8_0,last=4:q8_0"),
    "7": ("", "first=2:q8_0,last=2:q8_0"),
}
_FINE_DB = table.nominal(table.UPSTREAM)["q8_0"]
_AS_FINE_AS_PRESETS = tuple(kind.name for kind in table.UPSTREAM if (kind.db or 0) >= _FINE_DB)
_AVERAGE = re.compile(r"turbo:([0-9]{1,2}(?:\.[0-9]{1,4})?)")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RULE = re.compile(r"(first|last|layers)=([0-9]{1,4})(?:-([0-9]{1,4}))?")
_HINT = "for example turbo4, q8_0:turbo4, or q8_0:turbo2,first=2:q8_0,last=2:q8_0"


@record
class LayerRule:
    """Another type for some layers: the `high` first or last ones (`low` is then 0), or those from `low` to `high`."""

    where: str
    low: int
    high: int
    type: str

    def __str__(self) -> str:
        span = f"{self.low}-{self.high}" if self.low < self.high and self.where == "layers" else f"{self.high}"
        return f"{self.where}={span}:{self.type}"

    def span(self, layers: int) -> range:
        """The layers that the rule names, of `layers` attention layers. Raises `ConfigError` when it needs more."""
        if self.high + (self.where == "layers") > layers:
            raise ConfigError(f"{self}: the model has {layers} attention layer{'s' * (layers != 1)}, counted from 0")
        if self.where == "layers":
            return range(self.low, self.high + 1)
        return range(self.high) if self.where == "first" else range(layers - self.high, layers)


@record
class LayerTypes:
    """The types of all K, or of all V: `base`, except for layers that a rule names."""

    base: str
    rules: tuple[LayerRule, ...] = ()

    def __str__(self) -> str:
        return ",".join([self.base, *map(str, self.rules)])

    def of(self, layer: int, layers: int) -> str:
        """The type of attention layer `layer` (from 0) of `layers`. Raises `ConfigError` for a rule beyond them."""
        return self.each(layers)[layer]

    def each(self, layers: int) -> tuple[str, ...]:
        """The type of every attention layer. Raises `ConfigError` for a rule beyond them."""
        found = [self.base] * layers
        for rule in self.rules:
            for layer in rule.span(layers):
                found[layer] = rule.type
        return tuple(found)

    @property
    def reach(self) -> int:
        """Number of attention layers that a model needs for every rule to apply."""
        return max((rule.high + (rule.where == "layers") for rule in self.rules), default=0)

    def names(self) -> tuple[str, ...]:
        """Every type that the setting names, without repeats, the base first."""
        return tuple(dict.fromkeys([self.base, *(rule.type for rule in self.rules)]))


@record
class CacheTypes:
    """The types of K and V."""

    k: LayerTypes
    v: LayerTypes

    def __str__(self) -> str:
        """The canonical form, which `parse` reads back: lower case, plain numbers, V only when it differs."""
        return str(self.k) if self.k == self.v else f"{self.k}:{self.v}"

    @property
    def reach(self) -> int:
        """Number of attention layers that a model needs for every rule to apply."""
        return max(self.k.reach, self.v.reach)

    def names(self) -> tuple[str, ...]:
        """Every type that the setting names, without repeats."""
        return tuple(dict.fromkeys(chain(self.k.names(), self.v.names())))


def parse(text: str) -> CacheTypes:
    """Parse a setting. Raises `ConfigError` with the part that is invalid."""
    if not text.isascii():
        raise _refused(text, text, "only ASCII is allowed")
    setting, named, mode = text.lower().partition(",mode=")
    setting = _average(text, setting) or setting
    if named and mode not in PRESETS:
        raise _refused(text, f"mode={mode}", f"a setting ends with one of {', '.join(f'mode={n}' for n in PRESETS)}")
    sides = [_Side(base="", rules=[])]
    for index, piece in enumerate(setting.split(",")):
        rule, names = _split(text, piece, needs_rule=index > 0)
        if rule is None:
            sides[-1].base = names.pop(0)
        else:
            sides[-1].rules.append(_rule(text, rule, names.pop(0)))
        if len(sides) + len(names) > 2:
            raise _refused(text, piece, "only two types, for K and V, are allowed")
        sides += [_Side(base=name, rules=[]) for name in names]
    k, v = sides[0], sides[-1]
    preset = PRESETS[mode if named else "0"]
    return CacheTypes(k=k.types(preset[0]), v=v.types(preset[1]))


def _average(text: str, setting: str) -> str:
    """The types of `turbo:BITS`; empty for any other setting."""
    found = _AVERAGE.fullmatch(setting)
    if found is None:
        return ""
    known = {float(bits): types for bits, types in table.averages().items()}
    if float(found[1]) not in known:
        allowed = ", ".join(f"turbo:{bits}" for bits in table.averages())
        raise _refused(text, setting, f"there are {allowed}")
    return known[float(found[1])]


class _Side:
    def __init__(self, *, base: str, rules: list[LayerRule]) -> None:
        self.base = base
        self.rules = rules

    def types(self, preset: str) -> LayerTypes:
        added: list[LayerRule] = []
        if preset and self.base not in _AS_FINE_AS_PRESETS:
            added += parse(f"{self.base},{preset}").k.rules
        return LayerTypes(base=self.base, rules=(*added, *self.rules))


def _split(text: str, piece: str, *, needs_rule: bool) -> tuple[re.Match[str] | None, list[str]]:
    """A part between commas: its rule, if any, and the type names after it (V's type may follow)."""
    names = piece.split(":")
    rule = None
    if needs_rule:
        head = names.pop(0)
        rule = _RULE.fullmatch(head)
        if rule is None or (rule[3] is not None and rule[1] != "layers"):
            raise _refused(text, piece, "a rule is first=N:TYPE, last=N:TYPE, layers=A:TYPE or layers=A-B:TYPE")
    if not names or not all(map(_NAME.fullmatch, names)):
        raise _refused(text, piece, "a type is missing, or is not a valid name")
    return rule, names


def _rule(text: str, found: re.Match[str], name: str) -> LayerRule:
    where, low, high = found[1], int(found[2]), int(found[3] or found[2])
    if where != "layers":
        low = 0
        if high == 0:
            raise _refused(text, found[0], "the rule names no layer")
    if low > high:
        raise _refused(text, found[0], "the range is reversed")
    return LayerRule(where=where, low=low, high=high, type=name)


def _refused(text: str, piece: str, why: str) -> ConfigError:
    return ConfigError(f"cache type '{text}': '{piece}': {why}", hint=_HINT)


def split_settings(settings: str) -> Iterator[str]:
    """Several settings in one text, separated by blanks, semicolons, or commas that no rule follows."""
    return (part for part in re.split(r"[\s;]+|,(?!\s*\w+=)\s*", settings) if part)
