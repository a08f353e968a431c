"""Rollouts over eight hosts, as a person runs them: `python -m tests.fleet.rollouts [--out FOLDER] [SCENARIO ...]`.

Each host is a real sshd in a network namespace of its own, with the real tq, a small signed publication, and the
emulator as launchd. The publication is reached as file://, since tq takes http from its own machine alone. Needs root;
nothing of the machine is changed. What is no Mac here: launchd, the GPU, and Ollama, which is a program of the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolchain.fleet import report as reporting
from toolchain.fleet.report import FleetReport

from .fleets import outcomes
from .lab import KINDS, Lab
from .namespaces import enter, missing

RULES: dict[str, Any] = {
    "canary": 1, "max_parallel": 3, "min_healthy_time": "5s", "healthy_deadline": "40s", "progress_deadline": "5m",
    "stagger": 0, "poll": "500ms", "connect_timeout": 20, "command_timeout": "3m", "health": ["healthy"],
}  # fmt: skip
KILLS = 5


def main() -> int:
    """Run the scenarios, print a line for each, and leave the reports in a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(SCENARIOS)}; all without")
    parser.add_argument("--out", type=Path, default=Path("fleet-rollouts"))
    parser.add_argument("--seed", type=int, default=1, help="of the moments at which a controller is killed")
    asked = parser.parse_args()
    if why := missing():
        print(f"skipped: {why}", file=sys.stderr)  # noqa: T201
        return 1
    enter()
    asked.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in asked.scenario or SCENARIOS:
        folder = asked.out.absolute() / name
        shutil.rmtree(folder, ignore_errors=True)
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            lab = Lab.make(folder, RULES)
            stack.callback(lab.close)
            rows = SCENARIOS[name](lab, random.Random(asked.seed))
        for what, good, said in rows:
            failed += not good
            print(f"{'ok' if good else 'FAILED':<7}{name:<10} {what:<34} {said}", flush=True)  # noqa: T201
        print(f"       {name:<10} {time.monotonic() - started:.0f} s, reports in {folder}", flush=True)  # noqa: T201
    return 1 if failed else 0


Rows = list[tuple[str, bool, str]]


def waves(lab: Lab, _random: random.Random) -> Rows:
    """A first installation; then an update with an unhealthy host in each wave in turn."""
    rows: Rows = []
    report = lab.apply("first")
    rows.append(("first installation, 8 hosts, 3 waves", set(outcomes(report).values()) == {"changed"}, _said(report)))
    lab.names(lab.new)
    for wave, (sick, how) in {1: ("mac-2", "late"), 2: ("mac-4", "at-once"), 3: ("mac-8", "late")}.items():
        lab.hosts[sick].sick(lab.new, how)
        report = lab.apply(f"sick-in-wave-{wave}")
        got = outcomes(report)
        changed = [name for name, one in got.items() if one.startswith("changed")]
        later = [name for name, number in lab.waves.items() if number > wave]
        good = (
            report.halted_wave == wave
            and got[sick] == ("failed reverted" if how == "late" else "failed by-tq")
            and all(got[name] == "changed reverted" for name in changed)
            and all(got[name] == "waiting" for name in later)
            and lab.all_run(lab.old)
        )
        rows.append((f"unhealthy in wave {wave}: {sick}, {how}", good, _said(report)))
        lab.hosts[sick].sick("", "")
    report = lab.apply("update")
    rows.append(("the same update without it", lab.all_run(lab.new), _said(report)))
    found = lab.task("fleet.status")
    rows.append(("fleet.status", found.returncode == 0, f"exit code {found.returncode}"))
    return rows


def kinds(lab: Lab, _random: random.Random) -> Rows:
    """Eight hosts, each of another kind, in one wave of which everything may fail."""
    lab.apply("first")
    lab.names(lab.new)
    for name, kind in zip(lab.hosts, KINDS, strict=True):
        lab.hosts[name].becomes(kind, lab.new)
    lab.flatten(max_failures="100%", halt_on_same_error=False, auto_revert=True)
    report = lab.apply("kinds", meanwhile=lambda: lab.hosts["mac-8"].cut_off(30))
    got = {one.name: one for wave in report.waves for one in wave.hosts}
    wanted = {
        "healthy": "changed", "slow": "changed", "disk full": "failed by-tq", "silent": "unreachable",
        "another key": "rejected", "unhealthy": "failed reverted", "clock wrong": "failed",
        "killed in the middle": "changed",
    }  # fmt: skip
    rows: Rows = []
    for (name, one), kind in zip(got.items(), KINDS, strict=True):
        found = f"{one.outcome} {one.revert}".strip()
        good = found == wanted[kind]
        active = lab.hosts[name].active
        kept = active == (lab.new if one.outcome == "changed" else lab.old)
        rows.append(
            (f"{name}: {kind}", good and kept, f"{found}, {one.seconds:.0f} s, {one.error}: {one.message}"[:150])
        )
    return rows


def killed(lab: Lab, chance: random.Random) -> Rows:
    """The controller is killed five times in the middle, and called again with the same command."""
    lab.apply("first")
    lab.names(lab.new)
    lab.hosts["mac-7"].sick(lab.new, "late")
    lab.rules["max_parallel"] = 2
    lab.count_starts()
    moments = []
    for number in range(KILLS):
        process = lab.start("fleet.apply")
        begun = len(lab.journal().events()) if lab.has_journal() else 0
        enough = begun + chance.randint(2, 9)
        while process.poll() is None and not (lab.has_journal() and len(lab.journal().events()) >= enough):
            time.sleep(0.05)
        time.sleep(chance.random())
        last = lab.journal().events()[-1]
        moments.append(f"{last.event} {last.host}".strip())
        assert process.poll() is None, f"it ended before kill {number + 1}"
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = lab.task("fleet.apply")
    report = reporting.of(lab.journal())
    reporting.save(report, lab.keep("killed"))
    got = outcomes(report)
    twice = _applied_after_the_end(lab)
    starts = lab.count_starts()
    rows: Rows = [
        ("killed after", True, "; ".join(moments)),
        ("ends as without kills", report.halted_wave == 3 and lab.all_run(lab.old), _said(report)),
        ("exit code", done.returncode == 78, str(done.returncode)),
        ("taken up again", report.interruptions == KILLS, f"{report.interruptions} times"),
        ("no host applied after its end", not twice, twice or "none"),
        ("starts of services", True, ", ".join(f"{name}: {number}" for name, number in starts.items())),
        ("before is of the first controller", all(
            one.before and one.before.release == lab.old
            for wave in report.waves for one in wave.hosts if one.touched
        ), str(got)),
    ]  # fmt: skip
    return rows


def _applied_after_the_end(lab: Lab) -> str:
    """Hosts on which apply was begun although the journal had their end."""
    ended: set[str] = set()
    wrong = []
    for event in lab.journal().events():
        if event.event == "ended" and event.outcome in ("changed", "unchanged", "failed"):
            ended.add(event.host)
        if event.event == "applying" and event.host in ended:
            wrong.append(event.host)
    return ", ".join(wrong)


def _said(report: FleetReport) -> str:
    counts = ", ".join(f"{number} {name}" for name, number in report.counts.items())
    back = ", ".join(f"{number} {name}" for name, number in report.reverts.items())
    halted = f"; halted in wave {report.halted_wave}: {report.halted_because}" if report.halted_wave else ""
    return f"{report.seconds:.0f} s: {counts}{f'; back: {back}' if back else ''}{halted}"


SCENARIOS: dict[str, Callable[[Lab, random.Random], Rows]] = {"waves": waves, "kinds": kinds, "killed": killed}

if __name__ == "__main__":
    raise SystemExit(main())
