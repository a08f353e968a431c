"""Templates of a series, which may be another's: nothing but text comes of them, and that in bounds."""

from __future__ import annotations

import signal
import sys

import pytest

from toolchain.core import bounds, templates

FACTS = {"types": [{"name": "turbo4", "bytes": 34}], "next_id": 7, "text": {"a": "b"}.__getitem__}


def test_what_a_series_needs_still_works() -> None:
    macro = "{% macro m(x) %}<{{ x.name | upper }}>{% endmacro %}"
    assert templates.fill(macro + "{% for t in types %}{{ m(t) }}{% endfor %}{{ text('a') }}", FACTS) == "<TURBO4>b"
    total = "{% set n = namespace(x=0) %}{% for t in types %}{% set n.x = t.bytes %}{% endfor %}{{ n.x }}"
    assert templates.fill(total, FACTS) == "34"


@pytest.mark.parametrize(
    "given",
    [
        "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ text.__self__ }}",
        "{% set f = text['__class__'] %}{{ f.__base__ }}",
        "{{ types.append(1) }}",
        "{{ '{0.__class__.__mro__[1].__subclasses__}'.format(1)() }}",
        "{% include 'assessment.html.j2' %}",
        "{{ nothing }}",
        "{{ 1 / 0 }}",
        "{{ types[3].name }}",
        "{{ next_id + 'x' }}",
        "{{ 'x'.nope() }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in range(10 ** 9) %}{% endfor %}",
        "{{ '%d' % 'x' }}",
        "{{ 1.0e400 | int }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    ],
)
def test_whatever_it_does_wrong_is_one_error(given: str) -> None:
    with pytest.raises(templates.TemplateError):
        templates.fill(given, FACTS)


@pytest.mark.parametrize("given", ["{{ ('x' * 10 ** 7) | wordwrap(1) }}", "{{ 9 ** (9 ** 9) }}"])
def test_what_jinja_computes_when_it_compiles_is_ended_too(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setattr(bounds, "SECONDS", 0.2)
    with pytest.raises(templates.TemplateError, match="takes more than"):
        templates.fill(given, FACTS)


def test_one_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SECONDS", 0.2)
    handler = signal.getsignal(signal.SIGVTALRM)
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(templates.TemplateError, match=r"takes more than 0\.2 s"):
        templates.fill(loops, FACTS)
    assert signal.getsignal(signal.SIGVTALRM) is handler
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
    assert templates.fill("{{ next_id }}", FACTS) == "7"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit the address space")
@pytest.mark.parametrize("given", ["{{ ('x' * 10 ** 10) | length }}", "{{ '%9999999999d' % 1 }}"])
def test_one_that_takes_all_memory_is_ended(given: str) -> None:
    with pytest.raises(templates.TemplateError, match="takes more than 512 MiB of memory"):
        templates.fill(given, FACTS)
