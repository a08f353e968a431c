"""Both servers: side by side or in turn, with the asked cache types and no others, ours or given."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.processes import alive, ended
from tests.validation.conftest import MakePlan, MakeTrial
from toolchain.core.config import load
from toolchain.core.errors import ConfigError, ModelLoadFailed, ServerFailed, VerificationFailed
from toolchain.core.run import Run
from toolchain.core.validation_errors import WrongModelServed
from toolchain.core.variables import CALIBRATION
from toolchain.deploy.prefix import Prefix
from toolchain.serving.launcher import hint_on
from toolchain.validation import sides as module
from toolchain.validation.given import named
from toolchain.validation.plan import SIDES

LOST = "llama_kv_cache: size = 1.00 MiB ( 512 cells, 4 layers, 1/1 seqs), K (f16): 0.50 MiB, V (f16): 0.50 MiB"


@pytest.mark.slow
def test_both_at_a_time_or_in_turn(make_plan: MakePlan, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = make_trial(make_plan())
    first = trial.at("baseline", 512)
    assert trial.at("baseline", 512) is first
    second = trial.at("candidate", 512)
    assert alive(first.pid)
    monkeypatch.setattr(module, "_SHARE", 0.0)  # no memory for two
    third = trial.at("candidate", 1024)
    assert ended(second.pid)
    assert ended(first.pid)
    trial.at("baseline", 1024)
    assert ended(third.pid)


def test_a_server_that_died_is_started_again(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    trial = make_trial(make_plan())
    first = trial.at("baseline", 512)
    os.kill(first.pid, signal.SIGKILL)
    with pytest.raises(ServerFailed) as caught:
        first.generate("abc", tokens=1)
    explained = trial.sides.explained(caught.value)
    assert explained.message.startswith("baseline (f16, context 512): http://127.0.0.1:")
    assert "llama-server was killed by signal 9 (Killed" in explained.message
    assert trial.at("baseline", 512).generate("abc", tokens=1).text
    assert trial.at("baseline", 512).pid != first.pid
    assert trial.sides.explained(ConfigError("a")).message == "a"


@pytest.mark.parametrize(("stated", "message"), [("none", "states no KV cache"), ("q8_0", "q8_0")])
def test_a_server_with_another_cache_counts_for_nothing(
    stated: str, message: str, make_plan: MakePlan, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQ_TEST_STATED", stated)
    monkeypatch.setattr(module, "_LOG_S", 0.1)
    before = set(psutil.Process().children())  # of other tests
    trial = make_trial(make_plan())
    with pytest.raises(VerificationFailed, match=rf"(?s)^candidate \(turbo4, context 512\): .*{message}") as caught:
        trial.at("candidate", 512)
    assert caught.value.message.endswith("/logs/candidate-512-0.log")
    assert set(psutil.Process().children()) <= before


def test_a_server_that_knows_no_calibration_counts_for_nothing(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    trial = make_trial(replace(make_plan(), environment={CALIBRATION: "/folder"}))
    with pytest.raises(VerificationFailed, match=r"the release is too old"):
        trial.at("candidate", 512)
    assert trial.at("baseline", 512).generate("abc", tokens=1).text  # f16 has none


def test_a_model_that_does_not_load(run: Run, make_plan: MakePlan, make_trial: MakeTrial) -> None:
    program = run.workspace / "releases" / "9.9.9-turbo1-abc" / "lib" / "ollama" / "llama-server"
    program.write_text("#!/bin/sh\necho 'heads of 80 are not rotated'\nkill -ILL $$\n")
    with pytest.raises(ModelLoadFailed) as caught:
        make_trial(make_plan()).at("candidate", 512)
    assert caught.value.message.startswith("candidate (turbo4, context 512): ")
    assert "heads of 80 are not rotated" in caught.value.message
    assert "was killed by signal 4 (Illegal instruction" in caught.value.message
    assert caught.value.hint.endswith("--set deploy.environment.LLAMA_ARG_REPACK=0")


def test_the_hint_on_an_illegal_instruction_alone() -> None:
    assert "REPACK=0" in hint_on("llama-server process has terminated: signal: illegal instruction", "usual")
    assert hint_on("was killed by signal 4 (Illegal instruction)", "usual") != "usual"
    assert hint_on("was killed by signal 41", "usual") == hint_on("ended with 4", "usual") == "usual"


@pytest.mark.slow
def test_ollama_gets_the_model_without_a_copy(make_plan: MakePlan, make_trial: MakeTrial, model: Path) -> None:
    plan = make_plan(backend="ollama")
    trial = make_trial(plan)
    trial.at("candidate", 512)
    blob = trial.store.folder / "home" / "models" / "blobs" / f"sha256-{plan.model_sha256}"
    assert blob.samefile(model)
    trial.sides.stop("candidate")
    assert trial.at("baseline", 512).generate("abc", tokens=1).text  # the store is shared


@pytest.mark.slow
def test_given_servers_prove_their_cache_by_their_logs(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    own = make_trial(make_plan())
    logs: dict[str, Path] = {}
    urls: dict[str, str] = {}
    for side in SIDES:
        endpoint = own.at(side, 1024)
        assert endpoint.log
        logs[side], urls[side] = endpoint.log, endpoint.server.url  # type: ignore[attr-defined]
    given = {"baseline_url": urls["baseline"], "candidate_url": f"{urls['candidate']}/"}
    proven = make_trial(make_plan(**given, baseline_log=str(logs["baseline"]), candidate_log=str(logs["candidate"])))
    assert proven.at("candidate", 512).generate("abc", tokens=1).text
    assert proven.at("baseline", 512).log == logs["baseline"]
    assert proven.sides.unproven == []
    part = make_trial(make_plan(**given, candidate_log=str(logs["candidate"])))
    part.at("candidate", 512)
    part.at("baseline", 512)
    assert part.sides.unproven == [
        f"baseline: {urls['baseline']}: nothing here states its cache type; --baseline-log names its log"
    ]
    assert make_trial(part.plan).sides.unproven == part.sides.unproven  # a resumed run, with all answers kept
    crossed = make_trial(make_plan(**given, candidate_log=str(logs["baseline"])))
    with pytest.raises(VerificationFailed, match=r"(?s)candidate \(turbo4, context 512\): .*f16"):
        crossed.at("candidate", 512)
    silent = logs["candidate"].with_name("silent.log")
    silent.write_text("nothing\n")
    void = make_trial(make_plan(**given, candidate_log=str(silent)))
    void.at("candidate", 512)
    assert "states no KV cache of the model (llama-server: --log-verbosity 4)" in void.sides.unproven[0]
    with pytest.raises(ConfigError, match="serves a context of 1024 tokens, 2048 are asked for"):
        proven.at("candidate", 2048)
    assert alive(own.at("candidate", 1024).pid)


def test_the_log_of_the_last_load_counts(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    own = make_trial(make_plan())
    endpoint = own.at("candidate", 512)
    assert endpoint.log
    other = LOST.replace("4 layers", "9 layers")
    endpoint.log.write_text(f"{other}\n{LOST}\n{LOST.replace('f16', 'turbo4')}\n")
    url = endpoint.server.url  # type: ignore[attr-defined]
    given = make_trial(make_plan(baseline_url=url, candidate_url=url, candidate_log=str(endpoint.log)))
    given.at("candidate", 512)
    assert given.sides.unproven == []
    endpoint.log.write_text(f"{LOST}\n{other}\n")  # another model was loaded last
    again = make_trial(make_plan(baseline_url=url, candidate_url=url, candidate_log=str(endpoint.log)))
    again.at("candidate", 512)
    assert "states no KV cache of the model" in again.sides.unproven[0]


def test_given_ollamas(make_plan: MakePlan, make_trial: MakeTrial, run: Run) -> None:
    own = make_trial(make_plan(backend="ollama"))
    endpoint = own.at("candidate", 512)
    url = endpoint.client.base_url  # type: ignore[attr-defined]
    flags = {"backend": "ollama", "baseline_url": url, "candidate_url": url}
    with pytest.raises(WrongModelServed, match="has no model probe:latest"):
        make_trial(make_plan(**flags)).at("candidate", 512)
    plan = replace(make_plan(**flags, candidate_log=str(endpoint.log)), model_name="validated")
    trial = make_trial(plan)
    assert trial.at("candidate", 1024).generate("abc", tokens=1).text
    assert trial.sides.unproven == []
    with pytest.raises(WrongModelServed, match=r"its validated:latest is another file than .*SHA-256"):
        make_trial(replace(plan, model_sha256="0" * 64)).at("candidate", 512)


def test_the_log_of_the_service_is_found(run: Run, tmp_path: Path) -> None:
    flags = {"deploy.prefix": str(tmp_path / "prefix"), "deploy.port": "11777", "workspace": str(run.workspace)}
    config = load(environ={}, flags=flags)
    log = Prefix.of(config).log
    log.parent.mkdir(parents=True)
    log.write_text("")

    def found(url: str) -> Path | None:
        return named(config, "http://127.0.0.1:9", url, "", "").candidate_log

    assert found("http://127.0.0.1:11777") == log
    assert found("http://127.0.0.1:11778") is None
    assert found("http://example.org:11777") is None
    log.unlink()
    assert found("http://localhost:11777") is None
