"""Reading preprocessed Metal: tokens keep their places, brackets match, lines stay where they are."""

from __future__ import annotations

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from toolchain.metal.tokens import matching, split, tokenize
from toolchain.metal.translation import read

NOWHERE = Path("/nowhere/at/all")
PIECES = st.sampled_from(
    [
        "a",
        "x1",
        "[[",
        "]]",
        "[",
        "]",
        "(",
        ")",
        "<",
        ">",
        "::",
        "->",
        ".",
        "1.5h",
        "0x1p-3",
        '"s]]"',
        "'c'",
        " ",
        "\n",
        ",",
    ]
)


@given(st.lists(PIECES, max_size=40))
@example(["[[", "]", "\n", "]]"])
def test_tokens_are_the_text_without_its_blanks(pieces: list[str]) -> None:
    text = " ".join(pieces)
    found = tokenize(text, NOWHERE)
    assert all(text[token.start : token.end] == token.text for token in found if token.text != "]]")
    assert "".join(token.text for token in found).split() == "".join(text.split()).split()
    assert all(token.line == 1 + text.count("\n", 0, token.start) for token in found)


def test_two_closing_brackets_end_an_attribute_and_nothing_else() -> None:
    texts = [token.text for token in tokenize("a[b[0]] [[buffer(n[1])]] c[d[e[2]]]", NOWHERE)]
    assert texts.count("]]") == 1
    assert texts[texts.index("[[") :][:9] == ["[[", "buffer", "(", "n", "[", "1", "]", ")", "]]"]


def test_commas_in_brackets_do_not_separate() -> None:
    tokens = tokenize("f<A, B> x, g(1, 2), [[a, b]]", NOWHERE)
    assert [len(part) for part in split(tokens)] == [7, 6, 5]
    opens = next(at for at, token in enumerate(tokens) if token.text == "(")
    assert tokens[matching(tokens, opens)].text == ")"
    assert matching(tokens[: opens + 2], opens) == opens + 1, "the end, where nothing closes it"


WORDS = st.sampled_from(
    [
        "device float * p;",
        "threadgroup float s[4];",
        "v.xy = v.yx;",
        "x = 1.0;",
        "constant int y = 2;",
        "a[b[0]] = 1.h;",
        "",
    ]
)


@given(st.lists(WORDS, max_size=12))
def test_rewriting_keeps_every_line(lines: list[str]) -> None:
    text = "kernel void f(device float * x [[buffer(0)]],\n    uint i [[thread_position_in_grid]]) {\n"
    text += "\n".join(lines) + "\n}\nint last;\n"
    found = read(f'# 1 "user.metal"\n{text}')
    assert found.text.count("\n") == text.count("\n") + 1
    assert found.text.splitlines()[text.count("\n")] == "int last;"
    assert found.kernels["f"].line == 1
    assert [(p.name, p.binding) for p in found.kernels["f"].parameters] == [
        ("x", "buffer"),
        ("i", "thread_position_in_grid"),
    ]
