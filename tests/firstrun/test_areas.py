"""What the areas assume, and what they find with launchd's emulator."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from toolchain.core.run import Run
from toolchain.firstrun import engine, report
from toolchain.firstrun.areas import AREAS, pythons
from toolchain.firstrun.bench import Bench
from toolchain.firstrun.report import Summary
from toolchain.service.emulator.unconfirmed import BEHAVIOURS

from .interrupts import left, start

ROOT = Path(__file__).parents[2]
OWN = ("machine", "python", "launchd", "disk", "neighbours", "reboot")
ASSUMPTIONS = [one for area in AREAS for one in area.assumptions]


def test_every_assumption_has_an_id_and_a_statement() -> None:
    ids = [one.id for one in ASSUMPTIONS]
    assert len(set(ids)) == len(ids) >= 40
    for one in ASSUMPTIONS:
        assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)*\.[a-z0-9]+([-_.][a-z0-9]+)*", one.id)
        assert one.statement.endswith(".")
    for area in AREAS:
        assert area.name not in OWN or all(one.how for one in area.assumptions)


def test_every_unconfirmed_behaviour_of_the_emulator_is_one() -> None:
    stated = {one.id: (one.statement, one.how) for one in ASSUMPTIONS}
    assert {f"launchd.{one.id}" for one in BEHAVIOURS} <= set(stated)
    for one in BEHAVIOURS:
        assert stated[f"launchd.{one.id}"] == (one.statement, one.test)


def test_the_page_has_every_area() -> None:
    page = (ROOT / "docs/how-to/confirm-on-a-mac.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", page.partition("## Areas\n")[2], re.MULTILINE)
    assert [area.name for area in AREAS] == [name for name in listed if name in {area.name for area in AREAS}]


def test_pythons_are_sought_where_inv_seeks_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (
        ".pyenv/versions/3.12.4/bin",
        ".pyenv/versions/3.12.1/bin",
        ".local/share/uv/python/cpython-3.13.2-x/bin",
    ):
        (tmp_path / folder).mkdir(parents=True)
    script = (ROOT / "inv").read_text()
    function = re.search(r"^pythons\(\) \(\n.*?^\)\n", script, re.MULTILINE | re.DOTALL)
    numbers = re.findall(r"^(?:oldest|newest)=\d+$", script, re.MULTILINE)
    assert function
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin:/opt/x"}
    said = subprocess.run(
        ["sh", "-euc", "\n".join([*numbers, "venv=/nowhere", function[0], "pythons"])],
        env=environ, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in ("PYENV_ROOT", "XDG_DATA_HOME", "UV_PYTHON_INSTALL_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert [str(path) for path in pythons.places()] == list(dict.fromkeys(line for line in said if "*" not in line))


@pytest.mark.slow
def test_on_the_emulator(tmp_path: Path) -> None:
    """Of the machine's own qualities a test says nothing: some have no git, no certificates or little room."""
    process = start(tmp_path, ",".join(OWN))
    said, _ = process.communicate(timeout=300)
    summary = report.read(tmp_path / "report.tar.gz")
    assert process.returncode == summary.exit_code, said
    found = {one.id: one for one in summary.assumptions}
    launchd = {id: one for id, one in found.items() if id.startswith("launchd.")}
    open_ = {id: one.reason for id, one in launchd.items() if one.status != "confirmed"}
    needs_more = ("log-opened-by-user", "boot-empties-user", "login-loads-aqua", "logout-keeps-user")
    assert set(open_) == {f"launchd.{name}" for name in needs_more}, open_
    assert (summary.complete, summary.left) == (True, ())
    assert all(one.error == "" for one in summary.areas)
    if sys.platform != "darwin":
        assert summary.machine == "emulator"
        assert set(summary.only_a_mac) == set(found)
        assert "needs macOS" in found["machine.native"].reason
    assert all(one.evidence for id, one in launchd.items() if id not in open_ and id != "launchd.preflight")
    assert left(tmp_path) == ""


@pytest.mark.slow
def test_before_and_after_a_reboot(run: Run, tmp_path: Path) -> None:
    out = str(tmp_path / "report.zip")
    before = engine.first_run(run, out, before_reboot=True)
    assert {one.status for one in before.assumptions} == {"not tested"}
    assert "waits for the reboot: bootstrap answered 0" in before.assumptions[0].reason
    between = engine.first_run(run, str(tmp_path / "other.zip"), ["neighbours"])
    assert between.complete
    after = _by_id(engine.first_run(run, out, after_reboot=True))
    for name in ("launchd.boot-empties-user", "launchd.login-loads-aqua", "reboot.disabled-stays"):
        assert after[name][0] == "confirmed", after[name]
    assert after["reboot.boot-loads-daemons"][0] == "not tested"
    (tmp_path / "other.zip").unlink()
    assert left(tmp_path) == f"left: {tmp_path / 'report.zip'}; left: {tmp_path / 'turboquant.yaml'}"


def _by_id(summary: Summary) -> dict[str, tuple[str, str]]:
    return {one.id: (one.status, one.reason) for one in summary.assumptions}


def test_the_task_prints_the_summary(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import tasks; tasks.start()", "firstrun", "--json", "--only", "neighbours",
         "--out", "a.zip", "--set", "workspace=workspace"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert done.returncode == (66 if found["refuted"] else 0), done.stderr
    assert [one["id"] for one in found["assumptions"]] == [
        one.id for area in AREAS if area.name == "neighbours" for one in area.assumptions
    ]
    assert "first run: neighbours" in done.stderr


def test_a_folder_that_cannot_be_looked_into_hides_no_python(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"/{'x' * 300}:{Path(sys.base_prefix) / 'bin'}")
    (found,) = (one for one in pythons.PYTHONS.examine(bench) if one.id == "python.found")
    assert found.status == "confirmed", found.reason
