"""The ten prompts: their checks, their pairs, and a human's verdicts."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.validation.conftest import MakePlan, MakeTrial
from toolchain.core import records
from toolchain.core.errors import ConfigError
from toolchain.core.run import Run
from toolchain.validation import fixed, judging, validation
from toolchain.validation import result as results
from toolchain.validation.answers import Answer
from toolchain.validation.checks import CHECKS, failures, loops
from toolchain.validation.judgement import Judgement, judged
from toolchain.validation.plan import SIDES
from toolchain.validation.result import Pair, Report
from toolchain.validation.trials import prompts

CODE = "Here it is:\n```python\ndef f(x):\n    return x\n```\nDone."


@pytest.mark.parametrize(
    ("check", "passes", "fails"),
    [
        ("python f", CODE, CODE.replace("return x", "return (x")),
        ("python f g", CODE.replace("Done.", "```python\nf = g = 1\n```"), CODE),
        ("json a b", 'So:\n```json\n{"a": 1, "b": [2]}\n```', '{"a": 1}'),
        ("json a", 'It is {"a": {}}.', '{"a": 1,}'),
        ("number 486", "First 200, so Answer: 486.", "Answer: 4860"),
        ("number 1486", "Answer: 1,486", "Answer: 1486, or 12"),
        ("contains Halvorsen", "ingeborg halvorsen", "Nobody."),
        ("without umbrella", "- a coat", "- an Umbrella"),
        ("words 2 3", "one two", "one"),
        ("bullets 2 3", "- a dry coat\n\n- boots\n", "- a dry coat\n- very good warm boots"),
        ("language de", "Der Turm ist nicht mehr im Dienst, und die Kinder zählen auf ihm.", "The tower is not used."),
        ("language en", "The tower is not in use, and it was the pride of the town.", "Der Turm ist nicht das."),
    ],
)
def test_each_check_passes_and_fails(check: str, passes: str, fails: str) -> None:
    assert failures([check], passes, stop="eos") == ()
    assert failures([check], fails, stop="eos") == (check,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is so. " + "and so on, " * 12, True),
        ("x" * 60, True),
        ("A line that comes again.\n" * 6 + "A line that", True),
        ("A line that comes again.\n" * 3, False),
        ("| a | b |\n|---|---|\n" + "-" * 80, False),
        ("Each sentence of this text says another thing, and none of them is ever repeated.", False),
    ],
)
def test_repetitions_are_noticed(text: str, expected: bool) -> None:
    assert loops(text) is expected


def test_an_answer_must_be_there_and_end() -> None:
    assert failures([], "  \n", stop="eos") == ("empty",)
    assert failures([], "It goes on", stop="limit") == ("does not end",)
    assert failures([], "It goes on", stop="repeats") == ("repeats itself",)


def test_the_ten_prompts_are_ten_and_their_checks_known() -> None:
    ten = fixed.prompts()
    assert [one.key for one in ten] == [str(number) for number in range(1, 11)]
    assert len({one.category for one in ten}) == 10
    assert {check.split()[0] for one in ten for check in one.checks} == set(CHECKS)
    assert sum(prompts.DOCUMENT in one.text for one in ten) == 1


def test_other_prompts_are_another_plan(make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = make_plan()
    for file in fixed.FOLDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes() + b"\n")
    monkeypatch.setattr(fixed, "FOLDER", tmp_path)
    assert make_plan().prompts_sha256 != before.prompts_sha256
    assert make_plan().id != before.id


def pair(key: str, candidate: str = "other") -> Pair:
    return Pair(key=key, title="code", prompt="Why?", baseline="so", candidate=candidate)


def result(equal: int = 0) -> results.TestResult:
    ten = tuple(pair(str(one), "so" if one <= equal else "other") for one in range(1, 11))
    return results.TestResult(test="prompts", verdict="undecided", summary="", pairs=ten)


@pytest.mark.parametrize(
    ("equal", "verdicts", "expected", "summary"),
    [
        (10, "", "passed", "10 of 10 no worse, 10 of them word for word the same"),
        (8, "", "undecided", "8 of 10 no worse, 8 of them word for word the same; no verdict on 9, 10 yet"),
        (8, "9=better", "passed", "9 of 10 no worse, 8 of them word for word the same; no verdict on 10 yet"),
        (
            8,
            "9=worse",
            "undecided",
            "8 of 10 no worse, 8 of them word for word the same, 1 worse; no verdict on 10 yet",
        ),
        (8, "9=worse 10=worse", "failed", "8 of 10 no worse, 8 of them word for word the same, 2 worse"),
        (0, "1=worse 2=worse", "failed", "0 of 10 no worse, 2 worse; no verdict on 3, 4, 5, 6, 7, 8, 9, 10 yet"),
    ],
)
def test_nine_of_ten_are_needed(equal: int, verdicts: str, expected: str, summary: str) -> None:
    found, judgement = result(equal), Judgement()
    for key, verdict in judging.parse(verdicts.split(), found.pairs).items():
        judgement = judgement.entered(found.pairs[int(key) - 1], verdict, who="me", when="now")
    found = judged(judged(found, judgement), judgement)
    assert (found.verdict, found.summary) == (expected, summary)
    assert [one.limit for one in found.figures] == ["at least 9"]


def test_a_verdict_holds_for_the_answers_that_it_was_given_on(tmp_path: Path) -> None:
    judgement = Judgement().entered(pair("1"), "worse", who="me", when="now")
    judgement.write(tmp_path)
    assert Judgement.read(tmp_path).of(pair("1")) == "worse"
    assert Judgement.read(tmp_path).of(pair("1", "a third")) == ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("11=same", "there is no pair '11'"),
        ("1=good", "expected same, worse, better"),
        ("1", "expected same, worse, better"),
        ("1=same 1=worse", "1 is given twice"),
    ],
)
def test_wrong_verdicts_are_named(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        judging.parse(given.split(), result().pairs)


def test_an_interview_does_not_say_which_side_is_which() -> None:
    shown, asked = list[str](), list[tuple[str, str]]()
    lines = iter(["maybe", "a", "b", "s", "q"])
    pairs = [replace(pair(str(one), "\x1b[31mnew"), baseline="    old") for one in range(1, 6)]

    def answer(question: str) -> str:
        return next(lines)

    asked += judging.interview(pairs, show=shown.append, answer=answer, rng=random.Random(3))
    first = [text.index("new") < text.index("old") for text in shown[1::2]]
    assert len(set(first)) == 2  # by chance
    assert [word for _, word in asked] == [
        "better" if first[0] else "worse",
        "worse" if first[1] else "better",
        "same",
    ]
    assert "\x1b" not in "".join(shown)
    assert "\n    old" in shown[1]
    assert all("candidate" not in text for text in shown)


def test_the_end_of_the_input_ends_an_interview() -> None:
    def answer(question: str) -> str:
        raise EOFError

    assert not list(judging.interview(result().pairs, show=lambda _: None, answer=answer, rng=random.Random(1)))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ten prompts with answers of 24 tokens and a document of 300, for a double that knows no end."""
    ten = tuple(replace(one, tokens=24) for one in fixed.prompts())
    monkeypatch.setattr(fixed, "prompts", lambda: ten)
    monkeypatch.setattr(prompts, "DOCUMENT_TOKENS", 300)


@pytest.mark.slow
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("backend", ["llama-server", "ollama"])
def test_both_sides_answer_the_same_prompts(backend: str, make_plan: MakePlan, make_trial: MakeTrial) -> None:
    trial = make_trial(replace(make_plan(backend=backend), environment={"TQ_TEST_NOISE": "turbo4=0.3"}))
    found = prompts.measure(trial)
    assert found.verdict == "undecided"
    assert len(found.pairs) == 10
    assert any(one.baseline != one.candidate for one in found.pairs)
    alone = [row for row in found.tables[0].rows if row[5]]
    assert [one.candidate for one in found.figures[1:]] == [20, len(alone)]
    assert found.pairs[0].checks[0] == "greedy, baseline: does not end, python merge_intervals"
    for one in fixed.prompts():
        keys = [f"prompts/{side}/{one.key}/greedy" for side in SIDES]
        cells = [records.read(trial.store.path(key), Answer) for key in keys]
        assert cells[0].prompt_sha256 == cells[1].prompt_sha256
    taken = trial.store.taken
    assert prompts.measure(trial) == found
    assert trial.store.taken == taken


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_verdicts_are_kept_and_judge_the_gate(run: Run, make_plan: MakePlan) -> None:
    plan = replace(make_plan(tests=["prompts"]), environment={"TQ_TEST_NOISE": "turbo4=0.3"})
    report = validation.validate(run, plan)
    file = validation.located(run, "")
    assert report.decision.answer == "not decided"
    open_pairs = [one.key for one in judging.pairs(report) if not one.verdict]
    assert open_pairs
    judging.enter(file, dict.fromkeys(open_pairs, "same"), "me")
    found = records.read(file, Report)
    assert found.results[0].verdict == "passed"
    assert "prompts" not in " ".join(found.decision.reasons)
    judging.enter(file, dict.fromkeys(open_pairs[:2], "worse"), "me")
    assert records.read(file, Report).decision.answer == "try another setting"
    assert validation.validate(run, plan).results[0].verdict == "failed"  # the verdicts are still there
    assert validation.validate(run, plan, again=True).results[0].verdict == "failed"  # for equal answers
