"""Pairs of headers, one for each class of change, and what they mean for whoever uses them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.text import as_text
from toolchain.upstream.surface.compare import diff
from toolchain.upstream.surface.surface import FORMAT, Declared, Enum, Enumerator, Macro, Snapshot
from toolchain.upstream.surface.usage import Need, Usage, Use, UseKind

Make = Callable[..., Snapshot]


def using(kind: UseKind, *names: str) -> Usage:
    symbols = tuple(Use(kind=kind, text=name, where="probe.go:7") for name in names)
    return Usage(describe="v1", era="pinned", symbols=symbols, server=())


NOTHING = using("loaded")


def lines(old: Snapshot, new: Snapshot, usage: Usage | None = None) -> list[str]:
    return [
        f"{one.effect} {one.change} {one.kind} {one.name} {one.detail}".rstrip()
        for one in diff(old, new, usage).changes
    ]


@pytest.mark.parametrize(
    ("replaced", "expected"),
    [
        (
            ("GGML_API const int ggml_version", "extern int ggml_more(void)"),
            ["additive added function ggml_more int (void)", "breaking removed variable ggml_version const int"],
        ),
        (("ggml_twice", "ggml_thrice"), []),
        (
            ("int64_t * ne);", "int64_t * ne, int axis);"),
            ["breaking signature function ggml_new"],
        ),
        (
            ("llama_token llama_first", "int64_t llama_first"),
            ["breaking signature function llama_first int (const struct llama_params *) -> long (const struct ll"],
        ),
        (("typedef int32_t llama_token", "typedef int llama_token"), []),
        (
            ("typedef int32_t llama_token", "typedef uint32_t llama_token"),
            ["breaking signature function llama_first", "breaking signature typedef llama_token int -> unsigned int"],
        ),
        (
            (
                "void ggml_write(FILE * to, union ggml_any what, ...)",
                'GGML_OLD(void ggml_write(FILE * to, union ggml_any what, ...), "no")',
            ),
            ["additive deprecated function ggml_write"],
        ),
        (("GGML_MAX_DIMS 4", "GGML_MAX_DIMS 4\n#define GGML_NEW 7"), ["additive added macro GGML_NEW 7"]),
        (("GGML_SCALE 0.5", "GGML_SCALE 0.25"), ["breaking value macro GGML_SCALE 0.5 -> 0.25"]),
        (('GGML_NAME "tile"', "GGML_NAME name"), ["breaking removed macro GGML_NAME 'tile'"]),
        (
            ("GGML_TYPE_Q8 = 8,", "GGML_TYPE_Q8 = 8, GGML_TYPE_Q4,"),
            [
                "additive added enumerator GGML_TYPE_Q4 ggml_type: 9",
                "additive sentinel enumerator GGML_TYPE_COUNT ggml_type: 9 -> 10",
            ],
        ),
        (
            ("GGML_TYPE_Q8 = 8,", "GGML_TYPE_Q9 = 8,"),
            [
                "additive added enumerator GGML_TYPE_Q9 ggml_type: 8, the number of GGML_TYPE_Q8",
                "breaking removed enumerator GGML_TYPE_Q8 ggml_type: 8",
            ],
        ),
        (
            ("GGML_SHAPE_ROUND,", "GGML_SHAPE_FLAT, GGML_SHAPE_ROUND,"),
            [
                "additive added enumerator GGML_SHAPE_FLAT ggml_shape: 0",
                "breaking value enumerator GGML_SHAPE_ROUND ggml_shape: 0 -> 1",
                "breaking value enumerator GGML_SHAPE_SQUARE ggml_shape: 1 -> 2",
            ],
        ),
        (
            ("GGML_FLAG_NONE = -7", "GGML_FLAG_NONE = 0x90000000"),
            [
                "breaking layout enum GGML_FLAG_IN int -> unsigned int",
                "breaking value enumerator GGML_FLAG_NONE GGML_FLAG_IN: -7 -> 2415919104",
            ],
        ),
        (
            ("struct ggml_hidden;", "struct ggml_hidden; struct ggml_other { int x; };"),
            ["additive added struct ggml_other 4 bytes"],
        ),
        (("struct ggml_hidden;", "struct ggml_hidden { int x; };"), []),
        (
            ("struct llama_params { float rope;", "struct llama_params { double rope;"),
            ["breaking layout struct llama_params 24 -> 32 bytes, rope: float -> double"],
        ),
        (
            ("struct llama_params { float rope;", "struct llama_params { float rope; int8_t first;"),
            ["breaking layout struct llama_params with first at 4, caps.fast from 4 to 5, caps.wide from 5 to 6"],
        ),
        (("bool (*stop)(void *); void * data;", "bool (*stop)(void *);"), ["breaking layout struct llama_params"]),
        (
            ("unsigned ready : 1, level : 5;", "unsigned ready : 1, level : 6;"),
            ["breaking layout struct ggml_node level: unsigned int:5 -> unsigned int:6"],
        ),
        (
            ("char rest[5];", "char rest[5]; char more;"),
            ["additive layout struct ggml_node with more at"],
        ),
    ],
)
def test_classes(surface: Make, replaced: tuple[str, str], expected: list[str]) -> None:
    old, new = surface(), surface(replaced)
    found = lines(old, new)
    assert len(found) == len(expected), found
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning)


def test_the_verdict_and_the_exit_bits(surface: Make) -> None:
    old = surface()
    more = surface(("GGML_TYPE_Q8 = 8,", "GGML_TYPE_Q8 = 8, GGML_TYPE_Q4,"))
    broken = surface(("struct llama_params { float rope;", "struct llama_params { double rope;"))
    loaded = using("loaded", "llama_default_params")
    for found, verdict, code in (
        (diff(old, old), "identical", 0),
        (diff(old, more), "additive", 96 | 4),
        (diff(old, broken, NOTHING), "changed but unused", 96 | 4 | 16),
        (diff(old, broken), "breaking", 96 | 4 | 8),
        (diff(old, broken, loaded), "breaking", 96 | 4 | 8),
    ):
        assert (found.verdict, found.exit_code) == (verdict, code)
        assert f"verdict: {verdict}" in as_text(found)
    both = surface(
        ("struct llama_params { float rope;", "struct llama_params { double rope;"),
        ("GGML_SCALE 0.5", "GGML_SCALE 2.5"),
    )
    assert diff(old, both, loaded).exit_code == 96 | 4 | 8 | 16


def test_a_type_is_used_through_a_function(surface: Make) -> None:
    old = surface()
    new = surface(("struct ggml_caps { bool fast, wide; };", "struct ggml_caps { bool fast, wide, deep; };"))
    found = {one.name: one for one in diff(old, new, using("loaded", "llama_first")).changes}
    assert found["llama_params"].effect == "additive", "the new member lies where nothing was"
    assert found["ggml_caps"].effect == found["ggml_node"].effect == "unused"
    found = {one.name: one for one in diff(old, new, using("loaded", "ggml_count")).changes}
    assert found["ggml_node"].effect == "breaking"
    assert found["ggml_node"].used == "probe.go:7 through ggml_count"


def test_what_is_compiled_again_finds_what_moved(surface: Make) -> None:
    old = surface()
    moved = surface(("enum ggml_type type;\n", "char first; enum ggml_type type;\n"))
    gone = surface(("enum ggml_type type;\n", "int64_t type;\n"))
    shifted = surface(("GGML_TYPE_F16 = 1", "GGML_TYPE_F16 = 2"))
    for new, by, effect in (
        (moved, using("loaded", "ggml_new"), "breaking"),
        (moved, using("compiled", "ggml_new"), "recompiled"),
        (gone, using("compiled", "ggml_new"), "breaking"),
        (shifted, using("loaded", "ggml_new"), "breaking"),
        (shifted, using("compiled", "ggml_new"), "recompiled"),
        (shifted, using("compiled", "GGML_TYPE_F16"), "breaking"),
        (shifted, using("compiled", "GGML_TYPE_F32"), "unused"),
    ):
        assert [one.effect for one in diff(old, new, by).changes] == [effect]


def test_the_name_of_a_type_that_is_looked_up_is_no_symbol(surface: Make) -> None:
    new = surface(("GGML_TYPE_F16 = 1", "GGML_TYPE_F16 = 2"))
    assert diff(surface(), new, using("loaded", "ggml_type")).verdict == "changed but unused"


def test_a_lost_flag_breaks_and_one_that_was_never_there_does_not(surface: Make) -> None:
    old = surface()

    def flag(in_old: bool, in_new: bool) -> Need:
        return Need(kind="flag", text="--fit", where="llm.go:3", in_old=in_old, in_new=in_new)

    assert (
        diff(old, old, NOTHING, needs=[flag(True, True), flag(False, False), flag(False, True)]).verdict == "identical"
    )
    lost = diff(old, old, NOTHING, needs=[flag(True, False)])
    assert (lost.verdict, lost.exit_code) == ("breaking", 96 | 4 | 8)
    assert "breaking   lost flag --fit" in as_text(lost)


def test_many_alike_are_one_line(surface: Make) -> None:
    old = surface()
    names = "".join(f"extern int ggml_gone{number}(void);\n" for number in range(9))
    new = surface(("struct ggml_hidden;", f"struct ggml_hidden;\n{names}"))
    text = as_text(diff(new, old))
    assert "removed function, 9 of them: ggml_gone0, ggml_gone1" in text
    assert "9 removed function" in text


_NAMES = st.sampled_from([f"GGML_{letter}" for letter in "ABCDEFGH"])


@st.composite
def _snapshots(draw: st.DrawFn) -> Snapshot:
    declared = draw(st.dictionaries(_NAMES, st.tuples(st.sampled_from(["int (void)", "int (int)"]), st.booleans())))
    values = draw(st.dictionaries(_NAMES, st.integers(-3, 9), min_size=1))
    macros = draw(st.dictionaries(_NAMES, st.one_of(st.integers(0, 3), st.sampled_from(["a", "b"]))))
    return Snapshot(
        format=FORMAT,
        platform="macos-arm64",
        origin="",
        describe="drawn",
        headers=(),
        declared=tuple(
            Declared(name=name.lower(), kind="function", type=kind, header="h", deprecated=old)
            for name, (kind, old) in sorted(declared.items())
        ),
        enums=(
            Enum(
                name="drawn",
                type="int",
                header="h",
                values=tuple(Enumerator(name=f"{name}_E", value=value) for name, value in values.items()),
            ),
        ),
        structs=(),
        macros=tuple(Macro(name=f"{name}_M", value=value, header="h") for name, value in sorted(macros.items())),
    )


@settings(max_examples=40, deadline=None)
@given(_snapshots(), _snapshots())
def test_there_and_back(one: Snapshot, other: Snapshot) -> None:
    there, back = diff(one, other), diff(other, one)
    assert diff(one, one).verdict == "identical"
    for change, reverse in (("added", "removed"), ("signature", "signature"), ("value", "value")):
        names = [(found.kind, found.name) for found in there.changes if found.change == change]
        assert names == [(found.kind, found.name) for found in back.changes if found.change == reverse]
    assert (there.verdict == "identical") == (not there.changes)
    if any(found.change == "removed" for found in there.changes):
        assert there.verdict == "breaking"
        assert diff(one, other, NOTHING).verdict == "changed but unused"
