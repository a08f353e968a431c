"""Needles: what is hidden, which answers are right, and the judgement; the whole test on both programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.validation.conftest import MakePlan, MakeTrial
from toolchain.core.errors import ConfigError
from toolchain.validation.answers import Answer, lead_of, spoken
from toolchain.validation.found import judged, sign_test
from toolchain.validation.haystack import count, fit, hide, looped
from toolchain.validation.needles import DEPTHS, GROUPS, Cell, Question, hidden, right
from toolchain.validation.trials import needle

TEXT = "".join(f"Paragraph {number} of a text that says nothing.\n\n" for number in range(400))


@pytest.mark.parametrize("group", list(GROUPS))
def test_a_text_holds_each_fact_once_at_its_depth(group: str) -> None:
    facts, questions = hidden(1, 8192, 0, group)
    text = hide(TEXT, facts)
    for depth, fact in facts:
        assert text.count(fact) == 1
        assert text.index(fact) / len(text) == pytest.approx(depth, abs=0.06)
    assert [one.depth for one in questions] == [*DEPTHS, -1.0][: GROUPS[group]]
    assert len({number for one in questions for number in one.numbers}) == len(facts)
    assert hidden(1, 8192, 1, group)[0] != facts == hidden(1, 8192, 0, group)[0]


@pytest.mark.parametrize("text", ["one line of words without an end " * 50, "A sentence. " * 200, TEXT])
def test_a_fact_is_put_between_words_of_any_text(text: str) -> None:
    facts = [(depth, f"Fact {depth}.") for depth in DEPTHS]
    without = hide(text, facts)
    for depth, fact in facts:
        assert without.index(fact) / len(without) == pytest.approx(depth, abs=0.1)
        without = without.replace(fact, "", 1)
    assert without.split() == text.split()


def test_a_short_text_is_repeated_and_an_empty_one_refused() -> None:
    assert len(looped(TEXT, 100_000, "a")) == 100_000
    assert looped(TEXT, 100, "a") != looped(TEXT, 100, "b")
    with pytest.raises(ConfigError, match="3 characters are too few"):
        looped("abc", 100, "a")


@pytest.mark.parametrize(
    ("text", "numbers", "form", "expected"),
    [
        ("It is 1234567.", ["1234567"], "chat", True),
        ("It is 1,234,567.", ["1234567"], "chat", True),
        ("It is 12345678.", ["1234567"], "chat", False),
        ("Either 1234567 or 7654321.", ["1234567"], "chat", False),
        (" 1234567. The other is 7654321.", ["1234567"], "plain", True),
        ("\n 1234567.", ["1234567"], "plain", True),
        (" unknown.\n\nIt is 1234567.", ["1234567"], "plain", False),
        ("2222222, 1111111 and 3333333, so 1111111", ["1111111", "2222222", "3333333"], "chat", True),
        ("1111111 and 3333333", ["1111111", "2222222", "3333333"], "chat", False),
        ("<think>Is it 7654321?</think>It is 1234567.", ["1234567"], "chat", True),
        ("<think>It is 1234567.", ["1234567"], "chat", False),
        ("I cannot tell.", ["1234567"], "chat", False),
    ],
)
def test_an_answer_is_right_by_its_exact_numbers(text: str, numbers: list[str], form: str, expected: bool) -> None:
    assert right(text, numbers, form=form) is expected


def test_thinking_that_the_template_opened_is_skipped() -> None:
    assert spoken("hm, 7654321?</think> 1234567", thinking=True) == "1234567"
    assert spoken("hm, 7654321?", thinking=True) == ""
    assert spoken("<|channel|>analysis<|message|>hm<|end|><|channel|>final<|message|>Yes<|return|>") == "Yes"


def test_the_lead_of_a_number_is_that_of_its_weakest_token() -> None:
    leads = (("It is", 0.01), (" 12", 2.0), ("34", 0.4), ("567", 1.0), (".", 0.02))
    answer = Answer(
        prompt_sha256="",
        seed=1,
        temperature=0,
        text="",
        stop="eos",
        leads=leads,
        read=1,
        cached=0,
        generated=5,
        seconds=0,
    )
    assert lead_of(answer, "1234567") == 0.4
    assert lead_of(answer, "7654321") is None
    assert lead_of(replace(answer, leads=((" 1234567", None),)), "1234567") is None


def cell(baseline: bool, candidate: bool, lead: float | None = 1.0, depth: float = 0.5) -> Cell:
    question = Question(kind="single", depth=depth, question="?", continued="is", numbers=("1234567",))
    return Cell(context=2048, attempt=0, question=question, found=(baseline, candidate), lead=lead, said="It is")


def test_only_what_the_baseline_surely_finds_is_asked() -> None:
    unsure, missed = cell(True, False, lead=0.05), cell(False, True)
    found = judged([cell(True, True)] * 30 + [unsure, missed], ())
    assert (found.verdict, found.summary) == ("passed", "all 30 found: 0 of 30 lost says less than 10% (95%)")
    assert "1 are not counted" in found.notes[1]
    nothing = judged([unsure, missed], ("why",))
    assert (nothing.verdict, nothing.summary) == ("not asked", "the baseline finds nothing surely")
    assert judged([], ("no room",)).verdict == "not asked"


def test_a_loss_fails_and_says_how_likely_it_is_by_chance() -> None:
    found = judged([cell(True, True)] * 10 + [cell(True, False)] * 4 + [cell(False, True)], ())
    assert (found.verdict, found.summary) == ("failed", "4 of 14 lost that the baseline finds")
    assert "with a probability of 0.19" in found.notes[1]
    assert (found.figures[0].candidate, found.figures[0].ok) == (71.4, False)
    assert [row[2] for row in found.tables[1].rows] == ["single-50"] * 4
    assert found.tables[0].rows[0] == ("single", "2048", "baseline", "", "", "14/15", "", "", "")
    assert sign_test(5, 0) == pytest.approx(1 / 32)


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return str(path)


@pytest.mark.parametrize("backend", ["llama-server", "ollama"])
def test_a_text_is_cut_to_its_tokens(backend: str, make_plan: MakePlan, make_trial: MakeTrial) -> None:
    endpoint = make_trial(make_plan(backend=backend)).at("baseline", 2048)
    cut = fit(endpoint, TEXT, 1000)
    assert TEXT.startswith(cut)
    assert 0.9 * 1000 < count(endpoint, cut) <= 1000
    assert fit(endpoint, "abc", 1000)[:3] == "abc"


@pytest.mark.slow
def test_what_the_baseline_finds_is_found(
    text: str, make_plan: MakePlan, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needle, "_MOST_TRIES", 1)
    found = needle.measure(make_trial(make_plan(text=text)))
    assert found.verdict == "passed"
    assert found.tables[0].rows[0] == ("single", "2048", "baseline", *["1/1"] * 5, "")


@pytest.mark.slow
def test_a_noisy_cache_loses_needles_and_what_was_answered_is_kept(
    text: str, make_plan: MakePlan, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needle, "_MOST_TRIES", 1)
    noisy = {"TQ_TEST_NOISE": "turbo2=6"}
    plan = replace(make_plan(backend="ollama", text=text, candidate="turbo2"), environment=noisy)
    first = make_trial(plan)
    found = needle.measure(first)
    assert found.verdict == "failed"
    again = make_trial(plan)
    assert needle.measure(again) == found
    assert (first.store.taken > 0, again.store.taken) == (True, 0)


def test_a_context_without_room_is_not_asked(text: str, make_plan: MakePlan, make_trial: MakeTrial) -> None:
    found = needle.measure(make_trial(make_plan(contexts=[640], text=text)))
    assert found.verdict == "not asked"
    assert "640 tokens: not asked, for the questions leave" in found.notes[0]
