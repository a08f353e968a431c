"""The report's page, its Markdown, and what release.attest takes: made of a rich report, and of a real run."""

from __future__ import annotations

import html.parser
import json
import math
import shlex
from dataclasses import fields, replace
from pathlib import Path

import pytest

from tests.validation import reports
from tests.validation.conftest import MakePlan
from tests.validation.reports import HOSTILE, TESTS
from toolchain.core import records
from toolchain.core.errors import ConfigError, RecordError
from toolchain.core.run import Run
from toolchain.proofs import RanOn
from toolchain.publishing.testresult import Outcome, SignedProof, Validation, of_validation
from toolchain.stages import Release
from toolchain.text import as_text
from toolchain.validation import chart, matrix, pages, result, validation, wording
from toolchain.validation.parallel import parallel
from toolchain.validation.plan import Plan
from toolchain.validation.result import Decision, Line, Pair, Plot, Report

ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "p", "h1", "h2", "h3", "div", "ul", "li", "b", "table", "tr",
    "td", "th", "details", "summary", "code", "pre", "span", "a", "br", "mark", "figure", "figcaption", "svg", "line",
    "text", "path", "circle",
}  # fmt: skip
VOID = {"meta", "br"}


class Reader(html.parser.HTMLParser):
    """Collects tags, attributes and text, and holds that each tag is closed where it must be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def rich() -> Report:
    return reports.report(*reports.rich())


@pytest.fixture(scope="module")
def page(rich: Report) -> Reader:
    return Reader(pages.html(rich, TESTS))


def test_the_page_has_the_decision_the_matrix_and_everything_found(rich: Report, page: Reader) -> None:
    assert page.open == []
    said = " ".join(page.text.split())
    expected = ["Try another setting", "on battery", "a finer type", "delta <= 0.5", "± 0.041", "missed",
                "f16 finds none of 15", "found by depth", "it compiles", "no verdict yet", "perplexity and KL disagree",
                "Both answers are identical", "has not run yet", "SHA-256 of the model",
                "--contexts 8192,32768,131072", "'/models/a model.gguf'"]  # fmt: skip
    assert [one for one in expected if one not in said] == []
    assert said.index("a finer type") < said.index("The matrix") < said.index("delta <= 0.5")


def test_the_page_needs_nothing_else_and_runs_nothing(page: Reader) -> None:
    assert set(page.tags) <= ALLOWED
    names = {name for name, _ in page.attributes}
    assert not {"src", "srcset", "onerror", "onclick", "onload"} & names
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    assert page.text.count(HOSTILE) >= 5, "it is shown as text"


def test_many_pairs_are_folded_and_only_prompts_ask_for_verdicts() -> None:
    pairs = tuple(Pair(key=f"turn-{at}", title="t", prompt="p", baseline="a", candidate="b") for at in range(15))
    found = reports.report(result.TestResult(test="session", verdict="reported", summary="", pairs=pairs))
    page = Reader(pages.html(found, TESTS))
    assert page.open == []
    assert "15 answers side by side" in page.text
    for text in (page.text, pages.markdown(found, TESTS)):
        assert "judge" not in text.partition("The matrix")[2]
        assert "no verdict yet" not in text
        assert "none yet" not in text


def test_hidden_characters_and_secrets_are_not_on_the_page(page: Reader) -> None:
    assert not set(page.text) & set("\u2028\u202e\x1b\0")
    assert "⟨U+202E⟩esrever" in page.text
    assert "hunter2" not in page.text
    assert "LLAMA_ARG_REPACK=0" in page.text


def test_what_json_reads_back_gives_the_same_page(rich: Report, tmp_path: Path) -> None:
    records.write(tmp_path / "result.json", rich)
    written = pages.render(rich, tmp_path, TESTS).read_text()
    again = records.read(tmp_path / "result.json", Report)
    assert math.isnan(rich.results[1].figures[3].candidate or 0)
    assert again.results[1].figures[3].candidate is None, "JSON has no number that is not finite"
    for number, none in ((">nan<", ">-<"), (">inf<", ">-<"), (">± unknown<", "><")):
        assert number in written
        written = written.replace(number, none)
    assert pages.html(again, TESTS) == written


def test_markdown_holds_what_answers_say_in_fences(rich: Report) -> None:
    text = pages.markdown(rich, TESTS)
    assert text.startswith("# Try another setting\n")
    fence, outside = "", ""
    for line in text.splitlines():
        mark = line.removesuffix("text") if line.startswith("```") else ""
        if not fence and mark:
            fence = mark
        elif line == fence:
            fence = ""
        elif not fence:
            outside += f"{line}\n"
    assert fence == ""
    assert "<" not in outside
    assert "return a - b" in text
    assert "return a - b" not in outside
    assert "| delta &lt;= 0.5 | missed |" in outside
    rows = [line for line in outside.splitlines() if line.startswith("| ") and "yes" in line]
    assert [row.replace("\\|", "").count("|") for row in rows] == [7, 7, 7], "a cell's bar ends no cell"


@pytest.mark.parametrize(
    "text", ["a\\b", "*a* _b_ [c](d) `e` ~f~ $g$", "# h", "- i", "1. j", "<b>&amp;", "snake_case|b"]
)
def test_a_line_of_markdown_has_no_markup(text: str) -> None:
    line = wording.in_markdown(text)
    plain = line.replace("&lt;", "<").replace("&amp;", "&")
    assert "".join(part for part in plain.replace("\\\\", "\0").replace("\\", "")).replace("\0", "\\") == text
    assert not line.startswith(("#", "-", "1."))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (math.nan, "nan"), (-math.inf, "-inf"), (131072.0, "131072"), (0.03456, "0.03456"), (-0.0, "0"),
     (12345.6, "12346"), (1e300, "1e+300"), (1.5e-7, "1.5e-07")],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert wording.number(value) == text


STATED = {"model", "release", "release_dir", "backend", "baseline", "candidate", "baseline_url", "candidate_url",
          "contexts", "tests", "seed", "text", "environment", "perplexity_bytes", "baseline_log",
          "candidate_log"}  # fmt: skip
DERIVED = {"model_name", "model_sha256", "trained_context", "content_sha256", "text_sha256", "text_bytes",
           "prompts_sha256"}  # fmt: skip
"""what follows from the flags"""


def test_the_command_repeats_the_plan(make_plan: MakePlan, tmp_path: Path) -> None:
    text = tmp_path / "my text.txt"
    text.write_text("It was a dark and stormy night. " * 400)
    unstated = {one.name for one in fields(Plan)} - STATED - DERIVED
    assert unstated == set(), "wording.command must state it"
    for plan in (make_plan(), make_plan(text=str(text), candidate="q8_0:turbo4", seed=7, backend="ollama")):
        _, _, *words = shlex.split(wording.command(plan))
        given = dict(zip(words[::2], words[1::2], strict=True))
        again = make_plan(
            model=given["--model"],
            candidate=given["--candidate"],
            baseline=given["--baseline"],
            backend=given["--against"],
            tests=given["--tests"].split(","),
            contexts=[int(one) for one in given["--contexts"].split(",")],
            release=given["--release"],
            perplexity_bytes=int(given["--perplexity-bytes"]),
            seed=int(given["--seed"]),
            text=given.get("--text", ""),
        )
        assert again.id == plan.id


# -- plots -----------------------------------------------------------------------------------------


def plot(*lines: Line, limit: float | None = None) -> Plot:
    return Plot(title="t", x="x", y="y", lines=lines, limit=limit)


def test_a_plot_has_its_points_and_its_limit_inside() -> None:
    found = chart.chart(plot(Line(name="a", x=(0, 1, 2), y=(1, 2, 3)), limit=5.0))
    assert found
    assert found.limit
    (trace,) = found.traces
    assert [mark.text for mark in trace.marks] == ["a: 0, 1", "a: 1, 2", "a: 2, 3"]
    heights = [mark.y for mark in trace.marks]
    assert heights == sorted(heights, reverse=True)
    assert chart.TOP <= found.limit.at < heights[-1] < heights[0] <= chart.HEIGHT - chart.BOTTOM
    steps = [heights[0] - heights[1], heights[1] - heights[2]]
    assert steps[0] == pytest.approx(steps[1], abs=0.2)
    assert [tick.text for tick in found.x_ticks] == ["0", "1", "2"]


def test_contexts_are_apart_on_the_axis() -> None:
    contexts = (8192, 32768, 131072)
    found = chart.chart(plot(Line(name="a", x=contexts, y=(1, 1, 1))))
    assert found
    assert [tick.text for tick in found.x_ticks] == ["8K", "32K", "128K"]
    gaps = [after.at - before.at for before, after in zip(found.x_ticks, found.x_ticks[1:], strict=False)]
    assert gaps[0] == pytest.approx(gaps[1], abs=0.2), "by their logarithm"


def test_what_is_not_finite_is_a_gap() -> None:
    line = Line(name="a", x=(1, 2, 3, 4, 5), y=(1, math.nan, None, math.inf, 2))
    found = chart.chart(plot(line, limit=math.nan))
    assert found
    assert found.limit is None
    assert found.traces[0].path.count("M") == 2
    assert chart.chart(plot(Line(name="a", x=(1, 2), y=(None, math.inf)))) is None
    assert chart.chart(plot()) is None


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 7), (0.031, 0.034), (1e-9, 2e-9), (-5e6, 9e6), (2, 2)])
def test_ticks_are_round_few_and_inside(low: float, high: float) -> None:
    found = chart.round_steps(low, high, 5)
    assert 1 <= len(found) <= 6
    slack = (high - low) * 1e-6
    assert low - slack <= found[0]
    assert found[-1] <= high + slack
    assert len({f"{one:.4g}" for one in found}) == len(found)


# -- side by side ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("baseline", "candidate", "alike"),
    [("one two three", "one two four", 2), ("", "a", 0), ("same", "same", 1), ("a\nb", "a b", 1),
     ("x " * 4000, "y " * 4000, 0), ("begin " + "a " * 3000 + "end", "begin " + "b " * 3000 + "end", 1)],
)  # fmt: skip
def test_both_texts_are_whole_and_what_is_called_the_same_is(baseline: str, candidate: str, alike: int) -> None:
    found = parallel(baseline, candidate)
    assert "".join(span.text for span in found.baseline) == baseline
    assert "".join(span.text for span in found.candidate) == candidate
    same = ["".join(span.text for span in side if span.same) for side in (found.baseline, found.candidate)]
    assert same[0] == same[1]
    assert found.alike == alike
    assert found.identical == (baseline == candidate)


# -- in the folder of a run ------------------------------------------------------------------------


def proceeding(report: Report) -> Report:
    return replace(report, decision=Decision(answer="proceed", reasons=(), next=""))


def test_a_run_writes_its_report_after_each_test(run: Run, make_plan: MakePlan) -> None:
    plan = make_plan(tests=["checklist"])
    found = validation.validate(run, plan)
    folder = validation.folder_of(run, plan.id)
    assert "verified: 0 proofs, 1 verdicts" in Reader((folder / "report.html").read_text()).text
    assert (folder / "report.md").read_text().startswith("# Not decided\n")
    stated = records.read(folder / "validation.json", Validation)
    assert (stated.ok, stated.tests) == (
        False,
        (Outcome(name="checklist", ok=True), Outcome(name="gate: not decided", ok=False)),
    )
    assert found.decision.answer == "not decided"


def test_release_attest_takes_the_record_of_a_complete_run(run: Run, make_plan: MakePlan) -> None:
    plan = make_plan(tests=["checklist"])
    found = validation.validate(run, plan)
    folder = validation.folder_of(run, plan.id)
    assert plan.release_dir
    release = records.read(plan.release_dir / "manifest.json", Release)
    assert of_validation(folder / "validation.json", release)["failedTests"] == ["gate: not decided"]
    pages.render(proceeding(found), folder, TESTS)
    predicate = of_validation(folder / "validation.json", release)
    assert (predicate["result"], predicate["passedTests"]) == ("PASSED", ["checklist"])
    assert predicate["configuration"][1]["annotations"]["platform"] == found.ran_on.platform
    assert json.loads((folder / "validation.json").read_text())["candidate"] == "turbo4"
    assert not SignedProof.read(predicate, "validation", "key", folder).passed_on_a_mac, "so stable does not take it"
    on_a_mac = replace(proceeding(found), ran_on=RanOn(platform="macos-arm64", system="macOS 26.1, arm64"))
    pages.render(on_a_mac, folder, TESTS)
    predicate = of_validation(folder / "validation.json", release)
    assert SignedProof.read(predicate, "validation", "key", folder).passed_on_a_mac
    voided = result.TestResult(test="speed", verdict="passed", summary="fast", voids=("on battery",))
    pages.render(proceeding(replace(found, results=(*found.results, voided))), folder, TESTS)
    assert of_validation(folder / "validation.json", release)["failedTests"] == ["speed"]
    pages.render(replace(found, complete=False), folder, TESTS)
    assert not (folder / "validation.json").exists()


def test_the_report_is_made_anew(run: Run, make_plan: MakePlan, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no validation was run"):
        validation.find(run, "")
    plan = make_plan(tests=["checklist"])
    validation.validate(run, plan)
    folder = validation.folder_of(run, plan.id)
    before = (folder / "report.html").read_bytes()
    for name in ("", plan.id, str(folder), str(folder / "result.json")):
        (folder / "report.html").unlink()
        file = validation.located(run, name)
        assert file == folder / "result.json"
        pages.render(validation.find(run, name), file.parent, tuple(matrix.TESTS))
        assert (folder / "report.html").read_bytes() == before
    with pytest.raises(ConfigError, match="no validation nowhere"):
        validation.find(run, "nowhere")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(RecordError, match="not a Report record"):
        validation.find(run, str(tmp_path / "other.json"))


def test_the_text_fits_100_columns_and_ends_with_the_decision(rich: Report) -> None:
    lines = as_text(rich).splitlines()
    assert [line for line in lines if len(line) > 100] == []
    assert lines[-3] == "Try another setting:"
    assert "delta <= 0.5: missed" in as_text(rich)
    unfinished = as_text(reports.report(*reports.rich()[:2], complete=False)).splitlines()
    at = unfinished.index("Unfinished: 2 of 9 tests:")
    assert unfinished[at + 1].startswith("  next: ./inv validate --model '/models/a model.gguf'")
