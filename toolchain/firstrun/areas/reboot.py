"""What a reboot leaves of a job: one run before it, which leaves a job and a record, and one after it.

Only `--before-reboot` leaves anything: a job that ends at once, its property list, a disable record of a label of its
own, and the record of them. `--after-reboot` looks, and removes them. launchd's emulator is rebooted by the second run.
"""

from __future__ import annotations

import os
import plistlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import psutil

from ...core import records
from ...core.errors import ConfigError
from ...core.records import record
from ...service import account, launchctl_codes, managers
from ...service.emulator.verbs import LOGIN_VERB, LOGOUT_VERB, REBOOT_VERB, STOP_VERB
from ...service.launchd import LaunchdManager
from ...service.propertylist import SESSION_TYPES
from ..assumption import MACOS, ROOT, Area, Assumption, Finding, Verdict, judged, untested
from ..belongings import REBOOT_LABEL, Belongings
from ..bench import Bench, Evidence
from ..jobs import screen_domain, told, user_domain
from .behaviours import behaviour
from .launchd_loading import is_off

_RECORD = "before.json"
_OFF_LABEL = f"{REBOOT_LABEL}-disabled"
_CLOCK_S = 60.0
"""a correction of the clock moves the time of the boot, too"""
_LOADED_S = 60.0
"""after a login launchd loads the agents one by one"""
_POLL_S = 0.25
_WIRED = "iogpu.wired_limit_mb"


@record
class Before:
    """What the first run left, and what it saw."""

    boot_time: float
    domain: str
    loaded: bool
    disabled: bool
    wired_limit_mb: str = ""
    """empty where the system does not know it"""


_USER = behaviour("boot-empties-user")
_LOGIN = behaviour("login-loads-aqua")
_LOGOUT = behaviour("logout-keeps-user")
_DISABLED = Assumption(
    id="reboot.disabled-stays",
    statement="A disable record outlives a boot.",
    how="Disable a label, reboot, and read print-disabled of the same domain.",
)
_DAEMON = Assumption(
    id="reboot.boot-loads-daemons",
    statement="A boot loads the property lists of /Library/LaunchDaemons into system.",
    how="Leave one there, reboot, and print its label.",
    needs=f"{MACOS} and {ROOT}",
)
_LIMIT = Assumption(
    id="reboot.wired-limit",
    statement="iogpu.wired_limit_mb is 0 again after a boot.",
    how="Read it before and after.",
    needs=MACOS,
)
ASSUMPTIONS = (_USER, _LOGIN, _LOGOUT, _DISABLED, _DAEMON, _LIMIT)


def _needs_one(_bench: Bench) -> Iterator[Finding]:
    steps = "needs a reboot: firstrun --before-reboot, reboot, firstrun --after-reboot"
    yield from _the_same(untested(steps))


AREA = Area(name="reboot", assumptions=ASSUMPTIONS, examine=_needs_one)


def before(own: Belongings) -> Area:
    """Leaves the job and the record."""
    return replace(AREA, examine=partial(_leave, own))


def after(own: Belongings) -> Area:
    """Looks what is there, and removes it. Raises `ConfigError` when no first run was made."""
    if not (own.reboot / _RECORD).is_file():
        raise ConfigError("nothing waits for a reboot", hint="./inv firstrun --before-reboot, and reboot")
    return replace(AREA, examine=partial(_look, own))


@dataclass(kw_only=True)
class _Job:
    """The job that waits, and a label that is only disabled."""

    bench: Bench
    manager: LaunchdManager

    @classmethod
    def of(cls, bench: Bench, own: Belongings) -> _Job:
        domain = account.SYSTEM if bench.privileged else user_domain()
        deploy = replace(bench.run.config.deploy, label=REBOOT_LABEL, domain=domain)
        manager = managers.choose(deploy, own.reboot / "prefix")
        assert isinstance(manager, LaunchdManager)
        return cls(bench=bench, manager=manager)

    def call(self, *words: str) -> Evidence:
        return self.bench.call((*self.manager.command, *words), env=self.manager.environment)

    def is_loaded(self, domain: str) -> tuple[bool, Evidence]:
        seen = self.call("print", f"{domain}/{REBOOT_LABEL}")
        return seen.code == 0, seen

    def remove(self) -> None:
        for domain in dict.fromkeys((self.manager.domain, screen_domain(), user_domain())):
            self.call("bootout", f"{domain}/{REBOOT_LABEL}")
        self.manager.delete()
        self.call("enable", f"{self.manager.domain}/{_OFF_LABEL}")
        if self.bench.emulated:
            self.call(STOP_VERB)


def _leave(own: Belongings, bench: Bench) -> Iterator[Finding]:
    if own.reboot.exists():
        _Job.of(bench, own).remove()
        own.forget_reboot()
    records.make_folder(own.reboot / "prefix")
    job = _Job.of(bench, own)
    noted = Before(boot_time=psutil.boot_time(), domain=job.manager.domain, loaded=False, disabled=False)
    records.write(own.reboot / _RECORD, noted)  # first: what is left has a record, whenever this is killed
    begun = len(bench.kept)
    content = {
        "Label": REBOOT_LABEL,
        "LimitLoadToSessionType": list(SESSION_TYPES),
        "ProgramArguments": ["/bin/sh", "-c", ":"],
        "RunAtLoad": True,
    }
    records.write_bytes(job.manager.plist, plistlib.dumps(content), mode=0o644)
    loaded = job.call("bootstrap", job.manager.domain, str(job.manager.plist))
    off = job.call("disable", f"{job.manager.domain}/{_OFF_LABEL}")
    limit = _wired_limit(bench)
    noted = replace(noted, loaded=loaded.code == 0, disabled=off.code == 0, wired_limit_mb=limit)
    records.write(own.reboot / _RECORD, noted)
    reason = f"waits for the reboot: {told(loaded, off)}; then firstrun --after-reboot"
    yield from _the_same(untested(reason, *bench.kept[begun:]))


def _look(own: Belongings, bench: Bench) -> Iterator[Finding]:
    noted = records.read(own.reboot / _RECORD, Before)
    job = _Job.of(bench, own)
    try:
        if bench.emulated:
            _reboot_emulator(job)
        elif abs(psutil.boot_time() - noted.boot_time) < _CLOCK_S:
            yield from _the_same(untested("there was no reboot since --before-reboot; what that left is removed"))
            return
        yield from _findings(job, noted)
    finally:
        job.remove()
        own.forget_reboot()


def _reboot_emulator(job: _Job) -> None:
    job.call(REBOOT_VERB)
    job.call(LOGIN_VERB, str(os.getuid()))


def _findings(job: _Job, noted: Before) -> Iterator[Finding]:
    bench = job.bench
    screen = job.call("print", screen_domain()).code == 0
    in_gui, gui = _eventually(job) if screen else job.is_loaded(screen_domain())
    in_user, user = job.is_loaded(user_domain())
    if noted.domain == account.SYSTEM:
        yield _finding(_USER, untested("the run before the reboot was root's: run both without sudo"))
        yield _finding(_LOGIN, untested("the run before the reboot was root's: run both without sudo"))
        loaded, shown = job.is_loaded(account.SYSTEM)
        yield _finding(_DAEMON, judged(loaded, told(shown), shown))
    else:
        was = "" if noted.loaded else "; it was not loaded before either"
        yield _finding(_USER, judged(not in_user, f"in {user_domain()}: {told(user)}{was}", user))
        seen = f"in {screen_domain()}: {told(gui)}; in {user_domain()}: {told(user)}"
        at_screen = judged(in_gui and not in_user, seen, gui, user)
        yield _finding(_LOGIN, at_screen if screen else untested("nobody is logged in at the screen", gui))
        yield _finding(_DAEMON, untested(f"needs {_DAEMON.needs}: run both with sudo"))
    listed = job.call("print-disabled", noted.domain)
    off = is_off(listed.output, _OFF_LABEL)
    how = judged(off, f"print-disabled of {noted.domain} {'has' if off else 'has not'} {_OFF_LABEL}", listed)
    yield _finding(_DISABLED, how if noted.disabled else untested("it could not be disabled before the reboot", listed))
    yield _finding(_LIMIT, _limit(bench, noted))
    yield _finding(_LOGOUT, _logout(job))


def _logout(job: _Job) -> Verdict:
    """Only the emulator can be logged out without its user."""
    if not job.bench.emulated:
        return untested(f"by hand: {_LOGOUT.how}")
    job.call("bootstrap", user_domain(), str(job.manager.plist))
    job.call(LOGOUT_VERB, str(os.getuid()))
    gui, (in_user, user) = job.call("print", screen_domain()), job.is_loaded(user_domain())
    absent = gui.code in (launchctl_codes.DOMAIN_ABSENT, launchctl_codes.WRONG_DOMAIN)
    reason = f"after a logout: gui/UID: {told(gui)}; the job in user/UID: {told(user)}"
    return judged(absent and in_user, reason, gui, user)


def _eventually(job: _Job) -> tuple[bool, Evidence]:
    """Whether it is loaded in gui/UID, once all agents had their time."""
    deadline = time.monotonic() + (0.0 if job.bench.emulated else _LOADED_S)
    while True:
        loaded, seen = job.is_loaded(screen_domain())
        if loaded or time.monotonic() >= deadline:
            return loaded, seen
        time.sleep(_POLL_S)


def _wired_limit(bench: Bench) -> str:
    return bench.call(("/usr/sbin/sysctl", "-n", _WIRED)).output.strip() if bench.on_mac else ""


def _limit(bench: Bench, noted: Before) -> Verdict:
    if not bench.on_mac:
        return untested(f"needs {MACOS}")
    now = _wired_limit(bench)
    if noted.wired_limit_mb in ("", "0"):
        return untested(f"it was {noted.wired_limit_mb or 'unknown'} before the reboot, and is {now or 'unknown'}")
    return judged(now == "0", f"{noted.wired_limit_mb} before, {now} after", bench.kept[-1])


def _the_same(verdict: Verdict) -> Iterator[Finding]:
    yield from (_finding(one, verdict) for one in ASSUMPTIONS)


def _finding(one: Assumption, found: Verdict) -> Finding:
    return Finding(id=one.id, status=found.status, reason=found.reason, evidence=found.evidence)
