"""Two validations side by side: what may be compared, which differences count, and how they are shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.validation import reports
from tests.validation.test_pages import ALLOWED, Reader
from toolchain.core import records
from toolchain.core.errors import ConfigError
from toolchain.core.validation_errors import RunsDiffer
from toolchain.text import as_text
from toolchain.validation import result
from toolchain.validation.comparison import RunComparison, compare, save
from toolchain.validation.result import Figure, Line, Plot, Report


def run(*figures: Figure, verdict: result.Verdict = "passed", y: float = 1.0, **changes: Any) -> Report:
    plot = Plot(
        title="KL",
        x="turn",
        y="nats",
        lines=(Line(name="floor", x=(1, 2), y=(0, 0)), Line(name="KL", x=(1, 2), y=(y, y))),
    )
    return reports.report(
        result.TestResult(test="perplexity", verdict=verdict, summary="", figures=figures, plots=(plot,)), **changes
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_sha256": "e" * 64, "model_name": "Gemma"}, r"model: SmolLM2 135M Instruct aaaaaaaaaaaa / Gemma eeee"),
        ({"prompts_sha256": "e" * 64}, "prompts: dddddddddddd / eeeeeeeeeeee"),
        ({"text_sha256": "e" * 64}, r"text: held out\.txt cccccccccccc / held out\.txt eeeeeeeeeeee"),
        ({"contexts": (8192,)}, "contexts: 8192, 32768, 131072 / 8192"),
        ({"contexts": (8192,), "model_sha256": "e" * 64}, "model: .*; contexts: "),
    ],
)
def test_other_models_prompts_texts_and_contexts_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(RunsDiffer, match=named):
        compare(run(), run(**changes))


def test_an_unfinished_run_is_refused_with_the_command_that_ends_it() -> None:
    with pytest.raises(ConfigError, match="is unfinished") as caught:
        compare(run(), replace(run(), complete=False))
    assert caught.value.hint.startswith("./inv validate --model '/models/a model.gguf'")


def test_other_differences_are_stated_on_top(tmp_path: Path) -> None:
    other = replace(run(release="8.8.8", seed=2, backend="ollama", candidate="turbo3"), machine="a Mac")
    found = compare(run(), other)
    assert [one.partition(":")[0] for one in found.differences] == [
        "release", "candidate", "served by", "machine", "seed",
    ]  # fmt: skip
    said = Reader(save(found, tmp_path).read_text()).text
    assert said.index("release: 9.9.9-turbo1-abc / 8.8.8") < said.index("Verdicts")
    assert compare(run(), run()).differences == ()


def test_what_environments_hold_is_no_secret() -> None:
    (stated,) = compare(run(), run(environment={"LLAMA_API_KEY": "correct horse"})).differences
    assert stated.startswith("environment: ")
    assert "hunter2" not in stated
    assert "horse" not in stated


@pytest.mark.parametrize(
    ("a", "b", "difference", "beyond"),
    [
        (Figure(name="KL", candidate=0.1, error=0.03), Figure(name="KL", candidate=0.2, error=0.03), 0.1, True),
        (Figure(name="KL", candidate=0.1, error=0.04), Figure(name="KL", candidate=0.2, error=0.04), 0.1, False),
        (Figure(name="KL", candidate=0.1, error=0.01), Figure(name="KL", candidate=0.2), 0.1, True),
        (Figure(name="KL", candidate=0.2), Figure(name="KL", candidate=0.1), -0.1, None),
        (Figure(name="KL", candidate=0.2, error=0.1), Figure(name="KL"), None, None),
        (Figure(name="KL", candidate=float("inf"), error=1), Figure(name="KL", candidate=1.0, error=1), None, None),
        (Figure(name="KL", candidate=1, unit="s", error=0.1), Figure(name="KL", candidate=9, unit="ms"), None, None),
    ],
)
def test_a_difference_counts_by_its_error(a: Figure, b: Figure, difference: float | None, beyond: bool | None) -> None:
    ((found,),) = (one.figures for one in compare(run(a), run(b)).tests)
    assert found.difference == (difference if difference is None else pytest.approx(difference))
    assert found.beyond is beyond


def test_figures_are_matched_by_name_also_where_it_repeats() -> None:
    a = (Figure(name="KL", candidate=1), Figure(name="KL", candidate=2), Figure(name="only A", candidate=3))
    b = (Figure(name="only B", candidate=4), Figure(name="KL", candidate=1), Figure(name="KL", candidate=5))
    found = compare(run(*a), run(*b)).tests[0].figures
    assert [(one.name, one.difference) for one in found] == [("KL", 0), ("KL", 3), ("only A", None), ("only B", None)]


def test_changed_verdicts_and_plots_of_both(tmp_path: Path) -> None:
    a = run(Figure(name="KL", candidate=0.1, error=0.01, unit="nats"))
    b = run(Figure(name="KL", candidate=0.3, error=0.01, unit="nats"), verdict="kill", y=3.0)
    b = replace(b, results=(*b.results, result.TestResult(test="speed", verdict="passed", summary="", voids=("hot",))))
    found = compare(a, b)
    assert [(one.test, one.a, one.b, one.changed) for one in found.tests] == [
        ("perplexity", "passed", "kill", True), ("speed", "", "void", True),
    ]  # fmt: skip
    (plot,) = found.tests[0].plots
    assert [line.name for line in plot.lines] == ["floor", "A: KL", "B: KL"]
    page = Reader(save(found, tmp_path).read_text())
    assert page.open == []
    assert set(page.tags) <= ALLOWED
    assert "beyond the errors" in page.text
    assert "+0.2" in page.text
    assert records.read(tmp_path / "comparison.json", RunComparison) == found
    lines = as_text(found).splitlines()
    assert [line for line in lines if len(line) > 100] == []
    assert "  perplexity   passed -> kill" in lines
    assert lines[-1] == "not decided -> kill"


def test_hostile_reports_stay_text_and_in_100_columns(tmp_path: Path) -> None:
    other = reports.report(*reports.rich(), candidate="turbo3", model_name=reports.HOSTILE)
    found = compare(reports.report(*reports.rich()), other)
    page = Reader(save(found, tmp_path).read_text())
    assert set(page.tags) <= ALLOWED
    assert reports.HOSTILE in page.text
    assert [line for line in as_text(found).splitlines() if len(line) > 100] == []
    assert records.read(tmp_path / "comparison.json", RunComparison).tests
