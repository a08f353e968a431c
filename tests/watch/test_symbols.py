"""Commits that touch what our sources use, in a real repository; and what counts as touching."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.series.conftest import SeriesMaker
from tests.sources.gitrepo import commit, git, new
from toolchain.series import manifest
from toolchain.series.symbols import Form, Symbol
from toolchain.sources import Repository
from toolchain.upstream.watch.symbols import Watched, declares, statements, touches, watched

HEADER = """\
#pragma once
#define GGML_LIMIT 4
#define GGML_CALL(x) \\
    call(x)
// int gone(void);
enum ggml_op { GGML_OP_NONE = 0, GGML_OP_CPY, };
struct ggml_node {
    int64_t ne[GGML_LIMIT];
    struct ggml_node * src[2];
    enum ggml_op op;
};
struct ggml_node * ggml_new(struct ggml_pool * pool,
                            int64_t         ne);
static inline int ggml_twice(int x) { return 2 * x; }
using ggml_table = std::vector<int>;
"""
FILE = "ggml/include/ggml.h"
NAMES = ("GGML_LIMIT", "GGML_CALL", "ggml_op::GGML_OP_CPY", "ggml_node", "ggml_node::ne", "ggml_node::op", "ggml_new")
SYMBOLS = [Watched(file=FILE, symbol=name) for name in (*NAMES, "ggml_twice", "ggml_table")]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    where = new(tmp_path / "llama.cpp")
    commit(where, {FILE: HEADER, "other.h": "int ggml_new(int);\n"}, "first")
    return where


def touched(repo: Path, files: dict[str, str], symbols: list[Watched] = SYMBOLS) -> list[str]:
    """What one more commit touches."""
    made = commit(repo, files, "a change (#7)")
    with Repository.open(repo) as repository:
        found = touches(repository, "HEAD~1..HEAD", symbols)
    assert all((touch.commit.id, touch.commit.subject) == (made, "a change (#7)") for touch in found)
    return [name for touch in found for name in touch.symbols]


@pytest.mark.parametrize(
    ("old", "now", "names"),
    [
        ("int64_t         ne);", "int64_t ne, int flags);", ["ggml_new"]),
        ("int64_t         ne);", "int64_t\n ne) ; // the same", []),
        ("struct ggml_node * ggml_new(", "static struct ggml_node * ggml_new(", ["ggml_new"]),
        ("    enum ggml_op op;\n", "", ["ggml_node::op"]),
        ("int64_t ne[GGML_LIMIT];", "int32_t ne[GGML_LIMIT];", ["ggml_node::ne"]),
        ("#define GGML_LIMIT 4", "#define GGML_LIMIT 8", ["GGML_LIMIT"]),
        ("    call(x)", "    call(x, 0)", ["GGML_CALL"]),
        ("GGML_OP_CPY, }", "GGML_OP_CPY = 7, }", ["ggml_op::GGML_OP_CPY"]),
        ("GGML_OP_CPY, }", "GGML_OP_CPY, GGML_OP_ADD, }", []),
        ("return 2 * x;", "return x + x;", []),
        ("ggml_twice(int x)", "ggml_twice(long x)", ["ggml_twice"]),
        ("using ggml_table = std::vector<int>;", "using ggml_table = std::vector<long>;", ["ggml_table"]),
        ("struct ggml_node {", "struct ggml_knot {", ["ggml_node"]),
        ("// int gone(void);", "int use(void) { return ggml_twice(ggml_new(nullptr, GGML_LIMIT)->op); }", []),
    ],
)
def test_what_touches_a_symbol(repo: Path, old: str, now: str, names: list[str]) -> None:
    assert old in HEADER
    assert touched(repo, {FILE: HEADER.replace(old, now)}) == names


TWO = """\
struct one { int ne; };
struct two { int ne; };
static int first(int idx) { const int op = idx; return op; }
int second(int idx) {
    const int op = idx;
    return op;
}
typedef struct { int qs; } block;
"""


@pytest.mark.parametrize(
    ("old", "now", "names"),
    [
        ("one { int ne", "one { long ne", ["one::ne"]),
        ("two { int ne", "two { long ne", []),
        ("{ const int op", "{ const long op", []),
        ("    const int op", "    const long op", ["second()::op"]),
        ("second(int idx)", "second(int idx, int more)", ["second()::idx"]),
        ("first(int idx)", "first(int idx, int more)", []),
        ("int qs", "char qs", ["block::qs"]),
        ("return op;\n", "return op + 1;\n", []),
    ],
)
def test_members_and_variables_are_those_of_their_owner(repo: Path, old: str, now: str, names: list[str]) -> None:
    assert TWO.count(old) == 1
    commit(repo, {"two.h": TWO}, "two")
    symbols = [Watched(file="two.h", symbol=one) for one in ("one::ne", "second()::op", "second()::idx", "block::qs")]
    assert touched(repo, {"two.h": TWO.replace(old, now)}, symbols) == names


def test_another_file_of_the_same_name_does_not_count(repo: Path) -> None:
    assert touched(repo, {"other.h": "long ggml_new(int);\n"}) == []
    assert touched(repo, {"other.h": "int ggml_new();\n"}, [Watched(file="other.h", symbol="ggml_new")]) == ["ggml_new"]


def test_a_file_that_goes_takes_all_along(repo: Path) -> None:
    git(repo, "rm", "--quiet", FILE)
    assert touched(repo, {"ggml/include/new.h": HEADER}) == sorted(one.symbol for one in SYMBOLS)


def test_newest_first_and_each_by_its_own(repo: Path) -> None:
    first = commit(repo, {FILE: HEADER.replace("LIMIT 4", "LIMIT 5")}, "one")
    commit(repo, {FILE: HEADER.replace("LIMIT 4", "LIMIT 5") + "int more;\n"}, "aside")
    last = commit(repo, {FILE: HEADER}, "back again")
    with Repository.open(repo) as repository:
        found = touches(repository, f"{first}~1..HEAD", SYMBOLS)
        assert [(touch.commit.id, touch.symbols) for touch in found] == [
            (last, ("GGML_LIMIT",)),
            (first, ("GGML_LIMIT",)),
        ]
        assert touches(repository, "HEAD..HEAD", SYMBOLS) == ()
        assert touches(repository, f"{first}~1..HEAD", []) == ()


def test_a_partial_clone_passes_over_what_it_lacks(repo: Path, tmp_path: Path) -> None:
    commit(repo, {FILE: HEADER.replace("LIMIT 4", "LIMIT 5")}, "one")
    git(tmp_path, "clone", "--quiet", "--bare", "--filter=blob:none", f"file://{repo}", "partial")
    with Repository(tmp_path / "partial") as repository:
        assert touches(repository, "HEAD~1..HEAD", SYMBOLS) == ()


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("return thing", False),
        ("int thing", True),
        ("int thing = 3", True),
        ("std :: vector < int > thing", True),
        ("x = a * thing", False),
        ("int other ( int thing )", False),
        ("thing ( a )", False),
        ("a :: thing ( int x )", True),
        ("thing = 3", False),
        ("typedef struct a thing", True),
        ("# define thing 3", True),
        ("# if thing", False),
    ],
)
def test_declarations_and_uses(statement: str, found: bool) -> None:
    assert declares(statement, "thing") is found


def test_statements_go_over_lines_and_not_over_braces() -> None:
    text = "int a(int x,\n  int y) {\n f([&](int z) { return z; }, 1); }\n#define M(x) \\\n  y\nint b, c;"
    found = [one for one in statements(text, "a.h") if one]
    assert found[:2] == ["# define M ( x ) \\ y", "int a ( int x , int y )"]
    assert found[-2:] == ["int b", "c"]


def test_the_contract_says_what_to_watch(make_series: SeriesMaker) -> None:
    series = manifest.load(make_series())
    assert watched(series) == ()
    forms = (Form(form="int", file="a.h"), Form(form="absent", file="-"))
    whole = replace(series, contract=(Symbol(kind="field", name="s::t::field", forms=forms),))
    assert watched(whole) == (Watched(file="a.h", symbol="s::t::field"),)
    assert (watched(whole)[0].owner, watched(whole)[0].word) == ("s::t", "field")


def test_our_own_contract_is_watched() -> None:
    found = watched(manifest.load())
    assert Watched(file="src/llama-kv-cache.cpp", symbol="llama_kv_cache::build_rope_shift()::rot") in found
    assert all(one.file != "-" for one in found)
