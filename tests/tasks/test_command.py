"""The command line as a pipeline and a person see it: real processes, exit codes, one JSON document on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def inv(*args: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TURBOQUANT_")}
    return subprocess.run(
        [sys.executable, "-P", "-c", "import tasks; tasks.start()", *args],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_list_is_a_table_of_contents(tmp_path: Path) -> None:
    done = inv("--list", cwd=tmp_path)
    assert done.returncode == 0
    for name in ("rehearse", "test", "doctor", "config", "ship", "series.check", "build.release", "deploy.rollback"):
        assert f"  {name} " in done.stdout
    rows = [line for line in done.stdout.splitlines()[2:] if line.strip()]
    assert all(line[2] != " " for line in rows), "a description that needs two lines is too long"


def test_another_tasks_file_in_the_folder_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("raise SystemExit(9)\n")
    assert inv("config", cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_every_task_takes_json(tmp_path: Path) -> None:
    names = [line.split()[0] for line in inv("--list", cwd=tmp_path).stdout.splitlines()[2:] if line.strip()]
    assert len(names) > 15
    for name in ("ship", "rehearse", "config", "series.seal", "deploy.logs"):
        assert "--json" in inv("--help", name, cwd=tmp_path).stdout


def test_config_as_json(tmp_path: Path) -> None:
    (tmp_path / "turboquant.yaml").write_text("deploy: {port: 2000}\n")
    done = inv("config", "--json", "--set", "deploy.keep=4", cwd=tmp_path, TURBOQUANT_BUILD_JOBS="3")
    rows = {row["key"]: row for row in json.loads(done.stdout)}
    assert (rows["deploy.port"]["value"], rows["deploy.port"]["origin"]) == (2000, "turboquant.yaml")
    assert (rows["deploy.keep"]["value"], rows["deploy.keep"]["origin"]) == (4, "flag")
    assert rows["build.jobs"]["value"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["config", "--set", "deploy.port=0"], 3, "int from 1 to 65535"),
        (["config", "--set", "deploy.port"], 3, "KEY=VALUE"),
        (["sources", "--ollama", "/", "--llama-cpp", "/"], 10, "not a git repository"),
        (["build.check"], 31, "no release was built yet"),
        (["build.check", "--release", "none"], 31, "not a release directory"),
        (["deploy.rollback"], 53, "no installed parent"),
        (["series.check", "--set", "series.path=/nowhere"], 10, "git"),
        (["series.seal", "--set", "series.path=/nowhere"], 20, "no series.yaml"),
        (["config", "--bogus"], 2, "--bogus"),
        (["no-such-task"], 2, "no-such-task"),
    ],
)
def test_bad_input(tmp_path: Path, args: list[str], code: int, words: str) -> None:
    environ = {"TURBOQUANT_WORKSPACE": str(tmp_path / "ws"), "TURBOQUANT_DEPLOY_PREFIX": str(tmp_path / "prefix")}
    environ |= {"TURBOQUANT_SOURCES_OLLAMA": "/", "TURBOQUANT_SOURCES_LLAMA_CPP": "/"}
    done = inv(*args, cwd=tmp_path, **environ)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failure_is_json_too(tmp_path: Path) -> None:
    done = inv("config", "--set", "deploy.port=0", "--json", cwd=tmp_path)
    described = json.loads(done.stdout)
    assert (described["error"], described["exit_code"]) == ("ConfigError", 3)
    assert "1 to 65535" in described["try"]


def test_completion(tmp_path: Path) -> None:
    done = inv("--complete", "--", "./inv series.", cwd=tmp_path)
    assert "series.check" in done.stdout.split()


def test_invokes_own_configuration_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".invoke.yaml").write_text("tasks: [broken")
    done = inv("config", "--json", cwd=tmp_path, HOME=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_failure(tmp_path: Path, closed: str) -> None:
    script = f'"$0" -P -c "import tasks; tasks.start()" config --json {closed}; echo "ended with $?"'
    environ = os.environ | {"PYTHONPATH": str(ROOT), "TURBOQUANT_WORKSPACE": str(tmp_path)}
    done = subprocess.run(
        ["/bin/sh", "-c", script, sys.executable], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("ended with 0\n")
    assert "Traceback" not in done.stderr
