"""A whole validation on the double: plans, kept cells, bad input, and what a failure says and leaves."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.processes import alive, ended
from tests.validation import small_trial
from tests.validation.conftest import MakePlan, write_release
from toolchain.core import records
from toolchain.core.errors import (
    ConfigError,
    LockHeld,
    ModelInvalid,
    RecordError,
    ReleaseInvalid,
    ServerFailed,
    TextTooShort,
    ToolchainError,
)
from toolchain.core.run import Run
from toolchain.validation import leftovers, validation
from toolchain.validation.endpoint import Generated
from toolchain.validation.matrix import TESTS
from toolchain.validation.result import Report
from toolchain.validation.store import Store

ANSWERS = small_trial.NAME
CELLS = 2 * small_trial.QUESTIONS


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrix has the small test, too."""
    monkeypatch.setitem(TESTS, ANSWERS, small_trial.measure)


def cells(run: Run, plan_id: str) -> list[str]:
    return list(Store(validation.folder_of(run, plan_id)).keys())


def test_the_id_depends_on_what_decides_a_result_alone(
    make_plan: MakePlan, model: Path, tmp_path: Path, run: Run
) -> None:
    plan = make_plan(tests=[ANSWERS])
    changes: list[dict[str, object]] = [
        {"seed": 2},
        {"candidate": "turbo3"},
        {"baseline": "q8_0"},
        {"contexts": [1024]},
        {"backend": "ollama"},
    ]
    ids = {plan.id, *(make_plan(**{"tests": [ANSWERS], **change}).id for change in changes)}
    assert len(ids) == 1 + len(changes)
    assert re.fullmatch(r"probe-turbo4-llama_server-[0-9a-f]{10}", plan.id)
    moved = tmp_path / "elsewhere" / model.name
    moved.parent.mkdir()
    shutil.copyfile(model, moved)
    same: list[dict[str, object]] = [{"model": str(moved)}, {"candidate": "turbo4:turbo4"}, {"contexts": [2048, 2048]}]
    release = run.workspace / "releases" / plan.release
    shutil.copytree(release, tmp_path / "copied")
    same.append({"release": str(tmp_path / "copied")})
    same.append({"tests": ["checklist"]})
    for change in same:
        assert make_plan(**{"tests": [ANSWERS], **change}).id == plan.id, change
    moved.write_bytes(model.read_bytes() + b"\0" * 32)
    assert make_plan(tests=[ANSWERS], model=str(moved)).id != plan.id


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"tests": ["needles"]}, ConfigError, "--tests 'needles' is unknown"),
        ({"backend": "vllm"}, ConfigError, "--against 'vllm' is unknown"),
        ({"candidate": "turbo5"}, ConfigError, r"'turbo5' in 'turbo5' is no cache type of 9\.9\.9-turbo1-abc"),
        ({"candidate": "turbo4,layers=9:q8_0"}, ConfigError, "the model has 4 attention layers"),
        ({"contexts": [8192]}, ConfigError, "was trained on 4096 tokens"),
        ({"seed": -1}, ConfigError, "--seed -1: expected 0 to"),
        ({"release": "1.2.3"}, ReleaseInvalid, "not a release directory"),
        ({"model": "nowhere.gguf"}, ConfigError, "no such model"),
        ({"model": __file__}, ModelInvalid, "test_validation"),
        ({"baseline_url": "http://127.0.0.1:9"}, ConfigError, "go together"),
        ({"baseline_url": "localhost:9", "candidate_url": "http://[::1]:9"}, ConfigError, "expected the URL"),
        (
            {"baseline_url": "http://[::1]:9", "candidate_url": "http://h:x"},
            ConfigError,
            "expected the URL",
        ),
        ({"baseline_log": __file__}, ConfigError, "are of running servers"),
        ({"text": "nowhere.txt"}, ConfigError, "--text nowhere"),
    ],
)
def test_bad_flags(
    changes: dict[str, object], error: type[ToolchainError], message: str, make_plan: MakePlan, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        make_plan(**changes)


def test_a_text_that_is_too_short(make_plan: MakePlan, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("short")
    with pytest.raises(TextTooShort, match="5 characters, 1024 are needed"):
        make_plan(text=str(tmp_path / "text.txt"))


def test_a_release_comes_before_the_model(make_plan: MakePlan, run: Run) -> None:
    (run.workspace / "releases" / "9.9.9-turbo1-abc" / "lib" / "ollama" / "llama-server").unlink()
    with pytest.raises(ReleaseInvalid, match="llama-server: no such program"):
        make_plan()
    assert make_plan(backend="ollama").backend == "ollama"
    shutil.rmtree(run.workspace / "releases")
    with pytest.raises(ReleaseInvalid, match="no release was built yet"):  # nothing is fetched
        make_plan(model="smollm2")
    assert not (run.workspace / "models").exists()


@pytest.mark.slow
def test_an_endpoint_that_dies_keeps_what_was_done(
    make_plan: MakePlan, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(tests=[ANSWERS], contexts=[512])
    folder = validation.folder_of(run, plan.id)
    monkeypatch.setenv("TQ_TEST_DIE", str(2 * small_trial.TOKENS + 3))
    with pytest.raises(ServerFailed) as caught:
        validation.validate(run, plan)
    assert caught.value.message.startswith(f"{ANSWERS}: baseline (f16, context 512): http://127.0.0.1:")
    assert "llama-server ended with 134" in caught.value.message
    assert "fatal: the scripted end" in caught.value.message
    assert caught.value.message.endswith(f"log: {folder}/logs/baseline-512-0.log")
    assert caught.value.hint == f"what was measured is kept in {folder}; the same command goes on from there"
    assert len(cells(run, plan.id)) == 2
    assert not (folder / "home").exists()
    monkeypatch.delenv("TQ_TEST_DIE")
    assert validation.validate(run, plan).results[0].figures[0].candidate == 1.0
    assert len(cells(run, plan.id)) == CELLS


def test_an_ollama_that_dies(make_plan: MakePlan, run: Run) -> None:
    plan = replace(make_plan(tests=[ANSWERS], backend="ollama", contexts=[512]), environment={"TQ_TEST_DIE": "9"})
    with pytest.raises(
        ServerFailed, match=r"(?s)^answers: baseline \(f16, context 512\): the server ended with 134"
    ) as caught:
        validation.validate(run, plan)
    assert "fatal: the scripted end" in caught.value.message
    assert f"log: {validation.folder_of(run, plan.id)}/logs/baseline-512-0.log" in caught.value.message


@pytest.mark.slow
def test_the_second_run_measures_nothing(make_plan: MakePlan, run: Run) -> None:
    plan = make_plan(tests=["checklist", ANSWERS], contexts=[512])
    first = validation.validate(run, plan)
    kept = {path: path.stat().st_mtime_ns for path in validation.folder_of(run, plan.id).rglob("cells/**/*.json")}
    assert len(kept) == CELLS
    second = validation.validate(run, plan)
    assert [one.summary for one in second.results] == [one.summary for one in first.results]
    assert second.results[0].summary == "verified: 0 proofs, 1 verdicts"
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list((validation.folder_of(run, plan.id) / "logs").iterdir())) == 2
    assert validation.find(run, "") == validation.find(run, plan.id) == second
    damaged = next(iter(kept))
    damaged.write_text(damaged.read_text()[:-20])
    with pytest.raises(RecordError, match=re.escape(str(damaged))) as caught:
        validation.validate(run, plan)
    assert "delete it" in caught.value.hint
    damaged.unlink()
    third = validation.validate(run, plan)
    assert third.results[1].figures == first.results[1].figures
    validation.validate(run, plan, again=True)
    assert all(path.stat().st_mtime_ns != kept[path] for path in kept)


def test_two_at_once(make_plan: MakePlan, run: Run) -> None:
    plan = make_plan(tests=[ANSWERS], contexts=[512])
    folder = validation.folder_of(run, plan.id)
    folder.parent.mkdir()
    for again in (False, True):
        with leftovers.locked(folder), pytest.raises(LockHeld, match=f"{plan.id} is being measured"):
            validation.validate(run, plan, again=again)
        folder.mkdir(exist_ok=True)
    assert cells(run, plan.id) == []


def test_servers_of_a_killed_run_are_ended_by_the_next_one(make_plan: MakePlan, run: Run) -> None:
    stranger = validation.folder_of(run, "another") / "home" / "baseline"
    busy = validation.folder_of(run, "busy") / "home" / "baseline"
    children = []
    for folder in (stranger, busy):
        folder.mkdir(parents=True)
        command = ["sh", "-c", "sleep 600 & wait"]
        children.append(subprocess.Popen(command, cwd=folder, start_new_session=True))
    with leftovers.locked(busy.parent.parent):
        report = validation.validate(run, make_plan(tests=["checklist"]))
        assert report.results[0].verdict == "passed"
        children[0].wait(20)
        assert not stranger.parent.exists()
        assert busy.exists()
        assert alive(children[1].pid)
    left = psutil.Process(children[1].pid).children()
    validation.validate(run, make_plan(tests=["checklist"]))
    children[1].wait(20)
    assert all(ended(one.pid) for one in left)


def test_a_test_that_is_interrupted_leaves_no_server(
    make_plan: MakePlan, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []

    def interrupted(trial):  # type: ignore[no-untyped-def]
        pids.append(trial.at("baseline", 512).pid)
        trial.kept("interrupted/one", Generated, lambda: trial.at("baseline", 512).generate("abc", tokens=1))
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(30)

    monkeypatch.setitem(TESTS, "interrupted", interrupted)
    plan = make_plan(tests=["checklist", "interrupted"], contexts=[512])
    with pytest.raises(KeyboardInterrupt):
        validation.validate(run, plan)
    assert ended(pids[0])
    assert cells(run, plan.id) == ["interrupted/one"]
    found = records.read(validation.folder_of(run, plan.id) / "result.json", Report)
    assert (found.complete, found.decision.reasons, len(found.results)) == (False, ("interrupted",), 1)


def test_tests_may_be_added_one_after_the_other(run: Run, make_plan: MakePlan) -> None:
    """The second run measures its own tests alone, and judges both."""
    first = validation.validate(run, make_plan(tests=["checklist"]))
    assert first.decision.reasons[0].startswith("perplexity, attention,")
    second = validation.validate(run, make_plan(tests=["memory"]))
    assert (second.id, second.complete) == (first.id, True)
    assert [one.test for one in second.results] == ["checklist", "memory"] == list(second.plan.tests)
    assert "checklist" not in second.decision.reasons[0]
    again = validation.validate(run, make_plan(tests=["memory"]), again=True)
    assert [one.test for one in again.results] == ["memory"]


def test_a_release_of_another_workspace_brings_its_verification(run: Run, make_plan: MakePlan, tmp_path: Path) -> None:
    """It is verified where it was built, also when the answers are kept elsewhere."""
    other = tmp_path / "other"
    release = write_release(other)
    plan = make_plan(tests=["checklist"], release=str(other / "releases" / release.id))
    shutil.rmtree(run.workspace / "runs")
    assert validation.validate(run, plan).results[0].verdict == "passed"
    shutil.rmtree(other / "runs")
    assert validation.validate(run, plan).results[0].verdict == "undecided"
