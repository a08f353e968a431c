"""Scopes and anchors, and the masks that keep comments and strings out of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.series.lexing import Language, language_of, mask
from toolchain.series.place import Span, find_anchors, find_scopes, needle

PIECES = st.lists(
    st.sampled_from(["/*", "*/", "//", '"', "'", "\\", "\n", "{", "}", "`", "#", "[[", "]]", 'R"(', ')"', "x", " "]),
    max_size=40,
).map("".join)


@given(text=PIECES, strings=st.booleans(), language=st.sampled_from(["c", "go", "cmake", "text"]))
def test_a_mask_keeps_length_and_lines(text: str, strings: bool, language: Language) -> None:
    masked = mask(text, language, strings=strings)
    assert len(masked) == len(text)
    assert [at for at, char in enumerate(masked) if char == "\n"] == [at for at, c in enumerate(text) if c == "\n"]


@given(text=PIECES)
def test_scopes_lie_inside_the_text(text: str) -> None:
    for span in find_scopes(text + "void f() {" + text, "c", "void f("):
        assert 0 <= span.start <= span.end


def test_masks() -> None:
    code = 'a "s//t" /* "c" */ b // "d"\nc'
    assert mask(code, "c", strings=False) == 'a "s//t"           b       \nc'
    assert mask(code, "c", strings=True) == 'a "    "           b       \nc'
    assert mask("x = `a\n}`", "go", strings=True) == "x = ` \n `"
    assert mask("1'000'000 + 'a'", "c", strings=True) == "1'000'000 + ' '"
    assert mask('R"x(a)" // )x" b', "c", strings=True).endswith('" b')


@pytest.mark.parametrize(
    ("words", "text", "found"),
    [
        ("A = 1", "A=1", True),
        ("A = 1", "A   =\n 1", True),
        ("A = 1", "A = 12", False),
        ("A = 1", "BA = 1", False),
        ("case A:", "case A :", True),
        ("case A :", "case A:", True),
        ("int f(", "int  f(", True),
        ("int f(", "int ff(", False),
    ],
)
def test_needle(words: str, text: str, found: bool) -> None:
    assert bool(needle(words).search(text)) is found


def test_declarations_and_calls_are_no_scopes() -> None:
    text = "int f(int a);\nint g() { return f(1); }\nint f(int a)\n{\n    return a;\n}\n"
    (span,) = find_scopes(text, "c", "int f(")
    assert text[span.start : span.end] == "\n    return a;\n"


def test_an_unclosed_scope_is_none() -> None:
    assert find_scopes("void f() { if (a) {", "c", "void f(") == []


def test_anchors_in_comments_do_not_count() -> None:
    text = "// case A\ncase A /* case A */\n"
    assert find_anchors(text, "c", "case A", Span(start=0, end=len(text))) == [Span(start=10, end=16)]


def test_languages() -> None:
    assert [language_of(p) for p in ("a/b.h", "x.go", "CMakeLists.txt", "a.cmake", "a.txt", "k.metal")] == [
        "c", "go", "cmake", "cmake", "text", "c",
    ]  # fmt: skip
