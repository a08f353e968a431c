"""Declarations as they are read from a file's text, and the form in which they are compared."""

from __future__ import annotations

import pytest

from toolchain.contract.declared import declarations
from toolchain.contract.spelling import spell

HEADER = r"""
#pragma once
#define SIZE 4 /* not a */ // #define COMMENTED 1
#define LARGER(a, b) \
    ((a) > (b) ? (a) : (b))
// struct commented { int no; };
#ifdef __cplusplus
extern "C" {
#endif
enum shape { SHAPE_ROUND = (1 << 2), SHAPE_SQUARE, };
typedef struct thing * thing_t;
typedef void (*callback)(void * user, int);
struct thing {
    enum shape shape;
    int a, *b, c[SIZE];
    unsigned bits : 3;
    union { float f; int i; };
    struct { int inner; } named;
    void (*call)(struct thing * self);
    callback other;
};
typedef struct { char text[8]; } plain;
API_CALL __attribute__((noreturn)) void quit(int code);
LIB_API DEPRECATED(int old(struct thing * t, int n), "use new, which is better");
static inline int twice(int x) { if (x) { return 2 * x; } return 0; }
#ifdef __cplusplus
}
#endif
"""
SOURCE = r"""
#include <vector>
namespace lib {
class cache : public base {
public:
    using filter = std::function<bool(int)>;
    cache(int n, std::vector<int> sizes = { 1, 2 }, bool full = (1 > 0)) : n(n), sizes(sizes) {}
    virtual ~cache() = default;
    int size(int il = 0) const override;
    bool operator==(const cache & other) const { return n == other.n; }
private:
    struct layer { int il; };
    std::vector<layer> layers;
    int n = 7;
    const std::vector<int> & sizes{};
};
int cache::size(int il) const {
    MACRO_LOCALS(int, ne0, src, ne);
    for (const auto & one : layers) { use(one); }
    const int first = 1, second = f(2);
    const auto walk = [&](int step) { return step; };
    return first == second ? walk(il) : ne00;
}
}
static const int table[] = {
    [0] = 1,
};
#if X
int either(int a) {
#else
int either(long a) {
#endif
    return 0;
}
int after;
"""


def test_a_header() -> None:
    found = declarations(HEADER)
    assert [found.of("macro", name)[0].form for name in ("SIZE", "LARGER")] == ["without arguments", "of 2 arguments"]
    assert not found.of("macro", "COMMENTED")
    assert not found.of("type", "commented")
    assert found.of("enumerator", "SHAPE_SQUARE")[0].form == "of shape"
    fields = {name: found.of("field", f"thing::{name}")[0].form for name in ("a", "b", "c", "bits", "f", "i", "call")}
    assert fields == {
        "a": "int", "b": "int *", "c": "int [SIZE]", "bits": "unsigned : 3", "f": "float", "i": "int",
        "call": "void (*) (thing *)",
    }  # fmt: skip
    assert found.of("field", "thing::inner")
    assert found.of("field", "plain::text")[0].form == "char [8]"
    assert found.of("type", "thing_t")[0].form == "thing *"
    assert found.of("type", "callback")[0].form == "void (*) (void *, int)"
    assert found.of("function", "quit")[0].form == "void (int)"
    assert found.of("function", "old")[0].form == "int (thing *, int)"
    (twice,) = found.of("function", "twice")
    assert (twice.form, twice.static) == ("int (int)", True)
    assert found.of("function", "quit")[0].line == HEADER[: HEADER.index("API_CALL")].count("\n") + 1


def test_a_source() -> None:
    found = declarations(SOURCE)
    assert found.of("type", "cache::filter")[0].form == "std::function<bool (int)>"
    assert found.of("function", "cache::cache")[0].form == "(int, std::vector<int> =, bool =)"
    assert {one.form for one in found.of("function", "cache::size")} == {"int (int =) const", "int (int) const"}
    assert found.of("field", "cache::layers")[0].form == "std::vector<layer>"
    assert found.of("field", "cache::sizes")[0].form == "const std::vector<int> &"
    assert found.of("field", "cache::layer::il")
    assert found.of("variable", "table")[0].form == "const int []"
    assert found.of("variable", "after"), "a brace that is opened in two branches is closed once"


def test_variables_of_a_function() -> None:
    found = declarations(SOURCE)
    forms = {}
    for name in ("il", "one", "first", "second", "walk", "step", "ne00", "use"):
        there = found.local("cache::size", name)
        forms[name] = there[0].form if there else None
    assert forms == {
        "il": "int", "one": "const auto &", "first": "int", "second": "int", "walk": "auto", "step": "int",
        "ne00": None, "use": None,
    }  # fmt: skip
    assert found.holds("cache::size", "MACRO_LOCALS ( int , ne0 , src , ne )")
    assert not found.holds("cache::size", "MACRO_LOCALS ( int , ne1 , src , ne )")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("void f(struct x * a, int n)", "extern void f ( x*b , int )"),
        ("int g(void)", "LIB_API int g()"),
        ("void h(void (*call)(void * user, int n))", "void h(void (*)(void *, int))"),
        ("enum kind k(const char text[])", "kind k(const char s[])"),
    ],
)
def test_the_same_in_other_words(one: str, other: str) -> None:
    assert [(found.name, found.form) for found in spell(one)] == [(found.name, found.form) for found in spell(other)]
