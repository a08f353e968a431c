"""launchd: how a job is started, what it gets, how it is stopped, and what a teardown looks like meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from ...core.errors import ToolchainError
from ...service import launchctl_codes as codes
from ...service.launchctl import fields_of
from ...service.propertylist import EXIT_TIMEOUT_S
from ..assumption import Area, Finding, Probe, Verdict, assumed, judged, probed, said, untested
from ..bench import Bench
from ..jobs import STAYS, TinyJob, Watch, alive, screen_domain, told
from . import launchd_loading
from .behaviours import behaviour

_RACES = 10
_TRIES = 3
_AGAIN_S = 0.05
_EXIT_DEFAULT_S, _SLACK_S = 5.0, 3.0
_LONGEST_EXIT_S = 40.0
"""launchd.plist(5) of some versions says 20 s"""
_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"


def _kickstart_kills(bench: Bench) -> Verdict:
    job = TinyJob.of(bench, "kills", script=f"trap 'echo TERM; exit 0' TERM; echo ready; {STAYS}")
    before = job.start()
    job.says("ready")
    again = job.call("kickstart", "-k", job.target)
    after = job.look().pid
    job.says("ready", times=2)
    politely = "TERM" in job.said
    job.remove()
    reason = f"{told(again)}; pid {before}, then {after}; the old process {'got TERM' if politely else 'got no TERM'}"
    return judged(again.code == 0 and after not in (0, before) and not politely, reason, *job.evidence)


def _kickstart_running(bench: Bench) -> Verdict:
    job = TinyJob.of(bench, "running", script=STAYS)
    before = job.start()
    twice = [job.call("kickstart", job.target) for _ in range(2)]
    after = job.look()
    job.remove()
    fine = all(one.code in (0, *codes.PROGRESSING) for one in twice) and (after.pid, after.runs) == (before, 1)
    return judged(fine, f"{told(*twice)}; pid {before}, then {after.pid}; runs = {after.runs}", *job.evidence)


def _kickstart_throttle(bench: Bench) -> Verdict:
    job = TinyJob.of(bench, "throttle", script="exit 1", KeepAlive=True, ThrottleInterval=60)
    job.load()
    waiting = job.until(lambda state: not state.running and bool(state.last_end), "its process does not end")
    started = time.monotonic()
    seen = job.call("kickstart", job.target)
    state = job.until(lambda state: state.runs > waiting.runs, "runs does not grow", timeout_s=15)
    seconds = time.monotonic() - started
    job.remove()
    return judged(
        seconds < 10, f"{told(seen)}; runs {waiting.runs}, then {state.runs} in {seconds:.1f} s", *job.evidence
    )


def _kill_restarts(bench: Bench) -> Verdict:
    """One job that stays in spite of TERM, and one that ends by it."""
    stays = TinyJob.of(bench, "stays", script=f"trap 'echo TERM' TERM; echo ready; {STAYS}", ExitTimeOut=1)
    ends = TinyJob.of(bench, "ends", script=f"echo ready; {STAYS}", KeepAlive=True, ThrottleInterval=1)
    for job in (stays, ends):
        job.load()
    pids = [job.runs() for job in (stays, ends)]
    for job in (stays, ends):
        job.says("ready")
        job.call("kill", "SIGTERM", job.target)
    sent = time.monotonic()
    stays.says("TERM")
    restarted = ends.until(lambda state: state.running and state.pid != pids[1], "KeepAlive does not start it")
    time.sleep(max(0.0, sent + 1.5 - time.monotonic()))  # longer than ExitTimeOut
    survived = stays.look().pid == pids[0]
    ends.printed()
    for job in (stays, ends):
        job.remove()
    reason = f"the job that ignores TERM {'stays' if survived else 'was killed'}; the other one runs as {restarted.pid}"
    return judged(survived, reason, *stays.evidence, *ends.evidence)


def _slow_to_end(bench: Bench, name: str) -> TinyJob:
    """A job that ends after TERM only when there is a file `go` in its folder, or 20 s later."""
    waits = "i=0; while [ ! -e go ] && [ $i -lt 200 ]; do sleep 0.1; i=$((i+1)); done; exit 0"
    script = f"trap '{waits}' TERM; echo ready; {STAYS}"
    return TinyJob.of(bench, name, script=script, WorkingDirectory=str(bench.folder / "jobs" / name), ExitTimeOut=30)


def _teardown(bench: Bench) -> Verdict:
    job = _slow_to_end(bench, "teardown")
    pid = job.start()
    job.says("ready")
    job.bootout()
    while_alive = {job.call("bootstrap", job.domain, str(job.plist)).code for _ in range(_TRIES)}
    living = alive(pid)
    (job.folder / "go").touch()
    afterwards = set[int]()
    deadline = time.monotonic() + _LONGEST_EXIT_S
    while (seen := job.call("bootstrap", job.domain, str(job.plist))).code != 0 and time.monotonic() < deadline:
        afterwards.add(seen.code)
        time.sleep(_AGAIN_S)
    job.remove()
    if not living:
        return untested("the process ended at once, although it waits after TERM", *job.evidence)
    reason = f"while the process ended: {sorted(while_alive)}; then, until 0: {sorted(afterwards) or 'nothing else'}"
    fine = while_alive == {codes.ALREADY_IN_PROGRESS} and afterwards <= {codes.INPUT_OUTPUT, codes.ALREADY_IN_PROGRESS}
    return judged(fine and seen.code == 0, reason, *job.evidence)


def _early(bench: Bench) -> Verdict:
    job = _slow_to_end(bench, "early")
    pid = job.start()
    job.says("ready")
    ended = job.bootout()
    still, living = job.printed(), alive(pid)
    (job.folder / "go").touch()
    job.gone()
    label, process = "still there" if still.code == 0 else "gone", "still runs" if living else "is gone"
    reason = f"{told(ended)}; then the label is {label} and the process {process}"
    return judged(ended.code == 0 and still.code == 0 and living, reason, *job.evidence)


def _spawn_failure(bench: Bench) -> Verdict:
    job = TinyJob.of(bench, "spawn", str(bench.folder / "no such program"))
    loaded = job.bootstrap()
    if loaded.code != 0:
        return judged(False, f"{told(loaded)}: it is not loaded at all", *job.evidence)
    job.until(lambda state: bool(state.last_end), "it says nothing of an end")
    end = fields_of(job.printed().output).get("last exit code", "")
    job.remove()
    return judged(end.startswith("78"), f"last exit code = {end}", *job.evidence)


def _environment(bench: Bench) -> Verdict:
    job = TinyJob.of(bench, "environment", "/usr/bin/env", EnvironmentVariables={"OWN": "1", "NUMBER": 2})
    job.load()
    job.says("XPC_SERVICE_NAME=")
    job.until(lambda state: bool(state.last_end), "it does not end")
    got = dict(line.partition("=")[::2] for line in job.said.splitlines() if "=" in line)
    seen = bench.keep(f"the log of {job.target}, which runs /usr/bin/env", 0, 0.0, job.said)
    job.remove()
    wanted = {"PATH": _PATH, "XPC_SERVICE_NAME": job.label, "OWN": "1"}
    wrong = [f"{name} is {got.get(name)!r}" for name, value in wanted.items() if got.get(name) != value]
    if bench.on_mac and job.domain == screen_domain():
        wrong += [f"there is no {name}" for name in ("HOME", "USER", "SHELL", "TMPDIR") if name not in got]
    wrong += ["a number of the property list is passed"] if "NUMBER" in got else []
    wrong += [f"{name} of the session reaches it" for name in got if name.startswith(("OLLAMA_", "LLAMA_"))]
    return judged(not wrong, "; ".join(wrong) or f"it has {', '.join(sorted(got))}", *job.evidence, seen)


def _user_name(bench: Bench) -> Verdict:
    job = TinyJob.of(bench, "user", script="id -u; id -G", UserName="nobody")
    if bench.privileged:
        return untested("this run is root's, whose jobs are daemons: run it without sudo, too")
    loaded = job.bootstrap()
    if loaded.code != 0:
        return judged(False, f"{told(loaded)}: {loaded.output.strip()}", *job.evidence)
    job.awaited(lambda: job.said.count("\n") == 2, "it says nothing")
    uid, groups = job.said.splitlines()
    seen = bench.keep(f"the log of {job.target}: id -u; id -G", 0, 0.0, job.said)
    job.remove()
    mine = set(map(str, (os.getegid(), *os.getgroups())))
    fine = uid == str(os.getuid()) and mine <= set(groups.split())
    reason = f"in {job.domain} it runs as {'the caller' if uid == str(os.getuid()) else uid}, with groups {groups}"
    return judged(fine, f"{reason}; in system: run it with sudo", *job.evidence, seen)


def _full_disk(bench: Bench) -> Verdict:
    """A log that cannot be opened, not even by root, since its folder is a file; then it is a folder."""
    place = bench.folder / "jobs" / "in the way"
    job = TinyJob.of(
        bench, "nolog", script="echo here", KeepAlive=True, ThrottleInterval=1, StandardOutPath=str(place / "log"),
        StandardErrorPath=str(place / "log"),
    )  # fmt: skip
    place.write_bytes(b"")
    job.load()
    job.until(lambda state: bool(state.last_end), "it neither ran nor failed")
    end = fields_of(job.printed().output).get("last exit code", "")
    place.unlink()
    place.mkdir()
    with suppress(ValueError):
        job.awaited((place / "log").is_file, "it was not tried again", 25)
    retried = (place / "log").is_file()
    job.remove()
    reason = f"last exit code = {end}; {'then it ran' if retried else 'then it was not tried again within 25 s'}"
    return judged(
        end.startswith("78") and retried, f"{reason}, with a folder that is a file for a full disk", *job.evidence
    )


def _log_appends(bench: Bench) -> Verdict:
    job = TinyJob.of(bench, "appends", script="while :; do echo line; sleep 0.1; done")
    job.load()
    job.says("line", times=2)
    os.truncate(job.log, 0)
    job.awaited(lambda: "line" in job.said, "nothing is written after the log was cut")
    data = job.log.read_bytes()
    job.remove()
    holes = data.count(b"\0")
    return judged(not holes, f"after the log was cut to 0 bytes it goes on with {data[:12]!r}", *job.evidence)


def _children(bench: Bench) -> Verdict:
    job = TinyJob.of(bench, "children", script=f"sleep 300 & echo child $!; {STAYS}")
    job.load()
    job.says("child")
    child = int(job.said.split()[1])
    bench.cleanup.callback(_kill, child)
    job.bootout()
    job.gone()
    ended = Watch(child).ended(5)
    reason = f"the child {child} in its process group {'has ended' if ended else 'still runs 5 s later'}"
    return judged(ended, reason, *job.evidence)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, 9)


def _races(bench: Bench) -> Verdict:
    """In each round a bootstrap straight after bootout, then one after the label is gone, as in a deploy."""
    job = TinyJob.of(bench, "race", script=STAYS)
    job.load()
    early, late, seconds = [], [], []
    for _ in range(_RACES):
        job.runs()
        started = time.monotonic()
        job.bootout()
        early.append(job.call("bootstrap", job.domain, str(job.plist)).code)
        if early[-1] == 0:  # it is loaded again already
            started = time.monotonic()
            job.bootout()
        job.gone()
        seconds.append(round(time.monotonic() - started, 3))
        late.append(job.bootstrap().code)
    job.remove()
    times = f"from bootout until print answered 113: {seconds} s"
    reason = f"bootstrap answered {late}; {times}; straight after bootout it had answered {early}"
    return judged(not any(late), reason, *job.evidence)


class _Stubborn:
    """A job that ignores TERM, without ExitTimeOut in its property list: its bootout takes as long as the default."""

    def __init__(self, bench: Bench) -> None:
        self.job = TinyJob.of(bench, "stubborn", script=f"trap '' TERM; echo ready; {STAYS}")
        pid = self.job.start()
        self.job.says("ready")
        self.stated = _exit_timeout(self.job.printed().output)
        self.job.bootout()
        self.watch = Watch(pid)

    def verdict(self) -> Verdict:
        """Waits for the end."""
        ended = self.watch.ended(_LONGEST_EXIT_S)
        seconds = self.watch.seconds
        fine = ended and abs(seconds - _EXIT_DEFAULT_S) < _SLACK_S
        enough = "" if ended and seconds <= EXIT_TIMEOUT_S else f"; a deploy sets {EXIT_TIMEOUT_S} s itself"
        reason = f"killed {seconds:.1f} s after bootout; print states {self.stated or 'nothing'}{enough}"
        return judged(fine, reason, *self.job.evidence)


def _exit_timeout(printed: str) -> str:
    """`exit timeout` in what `print` says; empty if it does not say."""
    found = (line.partition(" = ")[2] for line in printed.splitlines() if line.strip().startswith("exit timeout = "))
    return next(found, "")


_assumption = partial(assumed, "launchd")

_EXIT_TIMEOUT = behaviour("exit-timeout-default")
_PROBES = (
    *launchd_loading.PROBES,
    Probe(behaviour("kickstart-kills"), _kickstart_kills),
    Probe(behaviour("kickstart-running"), _kickstart_running),
    Probe(behaviour("kickstart-throttle"), _kickstart_throttle),
    Probe(behaviour("kill-restarts"), _kill_restarts),
    Probe(behaviour("teardown-codes"), _teardown),
    Probe(behaviour("spawn-failure"), _spawn_failure),
    Probe(behaviour("environment-bare"), _environment),
    Probe(behaviour("user-name-agents"), _user_name),
    Probe(behaviour("full-disk"), _full_disk),
    Probe(
        _assumption(
            "log-appends",
            "launchd opens a log for appending and keeps it open: after it is cut, the job writes at its begin.",
            "Cut the log of a job that writes, and look for a hole.",
        ),
        _log_appends,
    ),
    Probe(
        _assumption(
            "children",
            "After a bootout launchd ends what is left of the job's process group.",
            "A job starts `sleep` in the background; bootout it and look for the child.",
        ),
        _children,
    ),
    Probe(
        _assumption(
            "bootout-early",
            "bootout answers 0 while the process and the label are still there.",
            "bootout a job that ends when it is told, and look at once.",
        ),
        _early,
    ),
    Probe(
        _assumption(
            "bootout-race",
            "Once print answers 113 after a bootout, bootstrap succeeds at the first attempt.",
            f"{_RACES} rounds, with the time until then, and what a bootstrap straight after bootout answers.",
        ),
        _races,
    ),
)


def _examine(bench: Bench) -> Iterator[Finding]:
    stubborn: _Stubborn | None = None
    failed = ""
    try:
        stubborn = _Stubborn(bench)  # first, since its end takes long
    except (ToolchainError, OSError, ValueError) as error:
        failed = said(error)
    yield from probed("launchd", *_PROBES).examine(bench)
    found = stubborn.verdict() if stubborn else untested(failed)
    yield found.on(_EXIT_TIMEOUT.id)


LAUNCHD = Area(name="launchd", assumptions=(*(one.assumption for one in _PROBES), _EXIT_TIMEOUT), examine=_examine)
