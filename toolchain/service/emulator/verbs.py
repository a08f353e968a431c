"""The verbs of launchctl that the emulator supports, on its table of domains and jobs."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ..launchctl_codes import (
    ALREADY_IN_PROGRESS,
    DISABLED,
    IN_PROGRESS,
    INPUT_OUTPUT,
    NO_SUCH_PROCESS,
    NOT_PERMITTED,
    TEARDOWN,
    UNKNOWN_SERVICE,
    USAGE,
    WRONG_DOMAIN,
    WRONG_SESSION,
    session_type,
)
from . import jobspec, printing, sessions
from .job import LoadedJob
from .refused import Refused
from .sessions import Sessions
from .settings import Settings

_DOMAIN = re.compile(r"(system|(?:gui|user)/\d+)(?:/(.+))?")
STOP_VERB = "emulator-stop"
"""not launchctl's: stop every job, forget them, and end the emulator"""
LOGIN_VERB, LOGOUT_VERB, SSH_VERB = "emulator-login", "emulator-logout", "emulator-ssh"
"""not launchctl's: UID logs in or out at the screen, or begins a session away from it"""
REBOOT_VERB = "emulator-reboot"
"""not launchctl's: end everything, then load what a boot loads"""
CONSOLE_VERB = "emulator-console"
"""not launchctl's: print the uid of the user in front of the screen, `loginwindow`, or `none`"""
_FORMER_STOP_VERB = "standin-stop"


class Verbs:
    """The loaded jobs and the disable records, with a method for each verb.

    `changed` is called after every change that must be saved.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.jobs: dict[tuple[str, str], LoadedJob] = {}
        self.disabled: dict[str, dict[str, bool]] = {}
        self.stopping = False
        self.settings = Settings()
        self.sessions: Sessions | None = None
        """None until the first login, logout or boot"""
        self._ending: set[str] = set()
        self._changed = changed
        self._tasks: set[asyncio.Task[None]] = set()
        self._table: dict[str, Callable[[list[str]], Awaitable[tuple[str, str]]]] = {
            "bootstrap": self._bootstrap,
            "bootout": self._bootout,
            "enable": self._enable,
            "disable": self._disable,
            "print": self._print,
            "print-disabled": self._print_disabled,
            "kickstart": self._kickstart,
            "kill": self._kill,
            "managername": self._manager_name,
            LOGIN_VERB: self._login,
            LOGOUT_VERB: self._logout,
            SSH_VERB: self._ssh,
            REBOOT_VERB: self._reboot,
            CONSOLE_VERB: self._console,
            STOP_VERB: self._stop,
            _FORMER_STOP_VERB: self._stop,
        }

    async def call(self, argv: Sequence[str]) -> tuple[int, str, str]:
        """Run one command line (without `launchctl` itself): its exit code, stdout and stderr."""
        verb = argv[0] if argv else ""
        action = self._table.get(verb)
        if action is None:
            return USAGE, "", f"Unrecognized subcommand: {verb}\nknown: {' '.join(self._table)}\n"
        if self.stopping:
            return TEARDOWN, "", Refused(TEARDOWN).text()
        try:
            out, err = await action(list(argv[1:]))
        except Refused as refused:
            prefix = {"bootstrap": "Bootstrap failed: ", "bootout": "Boot-out failed: "}.get(verb, "")
            return refused.code, "", refused.text(prefix)
        return 0, out, err

    def load(self, domain: str, path: str, spec: jobspec.JobSpec, data: bytes) -> LoadedJob:
        """Add a job to a domain and run it."""
        cap = self.settings.throttle_cap_s
        throttle = spec.throttle_s if cap is None else min(cap, spec.throttle_s)
        job = LoadedJob(domain, path, spec, data, throttle_s=throttle, changed=self._changed)
        self.jobs[domain, spec.label] = job
        self._changed()
        self._spawn(self._live(job))
        return job

    async def stop_all(self) -> None:
        """Stop and unload everything."""
        self.stopping = True
        for job in self.jobs.values():
            job.remove()
        while self.jobs:
            await asyncio.sleep(0.01)

    async def _live(self, job: LoadedJob) -> None:
        """A job from load to removal. Its label outlives the process by a delay from the settings."""
        await job.run()
        await asyncio.sleep(0 if self.stopping else self.settings.bootout_delay_s)
        del self.jobs[job.domain, job.spec.label]
        self._changed()

    async def _bootstrap(self, words: list[str]) -> tuple[str, str]:
        if len(words) < 2:
            raise Refused(USAGE, "launchctl bootstrap <domain-target> <service-path> ...")
        domain, label = _split(words[0])
        if label or domain not in self.domains:
            raise Refused(WRONG_DOMAIN, words[0])
        self._known(domain)
        self._permit(domain, INPUT_OUTPUT, "Try re-running the command as root for richer errors.")
        notes = ""
        for path in words[1:]:
            spec, data = jobspec.read(Path(path), _owners(domain))
            if not spec.loads_in(session_type(domain)):
                raise Refused(WRONG_SESSION, f"{path} is not for {session_type(domain)} sessions, as {domain} is one")
            if self.disabled.get(domain, {}).get(spec.label, spec.disabled):
                raise Refused(DISABLED, f"{domain}/{spec.label}")
            old = self.jobs.get((domain, spec.label))
            if old is not None and old.removing and old.pid:
                raise Refused(ALREADY_IN_PROGRESS, f"{old.target} is still stopping")
            if old is not None:
                raise Refused(INPUT_OUTPUT, f"{old.target} is already loaded, or its teardown has not finished")
            self.load(domain, path, spec, data)
            if spec.ignored:
                notes += f"{path}: not modelled by this emulator: {', '.join(spec.ignored)}\n"
        return "", notes

    async def _bootout(self, words: list[str]) -> tuple[str, str]:
        if not words:
            raise Refused(USAGE, "launchctl bootout <service-target> | <domain-target> <service-path>")
        domain, label = _split(words[0])
        self._writable(domain)
        if not label:
            if len(words) != 2:
                raise Refused(USAGE, "the emulator does not boot out a whole domain")
            label = jobspec.read(Path(words[1]), _owners(domain))[0].label
        job = self.jobs.get((domain, label))
        if job is None:
            raise Refused(NO_SUCH_PROCESS, f"{domain}/{label}")
        if job.removing:
            raise Refused(IN_PROGRESS, job.target)
        job.remove()
        return "", ""

    async def _enable(self, words: list[str]) -> tuple[str, str]:
        return self._set_disabled(words, False)

    async def _disable(self, words: list[str]) -> tuple[str, str]:
        return self._set_disabled(words, True)

    def _set_disabled(self, words: list[str], value: bool) -> tuple[str, str]:
        domain, label = _split(words[0] if len(words) == 1 else "")
        self._writable(domain)
        if not label:
            raise Refused(USAGE, "needs a service target: <domain>/<label>")
        self.disabled.setdefault(domain, {})[label] = value
        self._changed()
        return "", ""

    async def _print(self, words: list[str]) -> tuple[str, str]:
        domain, label = _split(words[0] if len(words) == 1 else "")
        self._known(domain)
        if label:
            return printing.service(self._job(domain, label)), ""
        return printing.domain(domain, [job for job in self.jobs.values() if job.domain == domain]), ""

    async def _print_disabled(self, words: list[str]) -> tuple[str, str]:
        domain, _ = _split(words[0] if len(words) == 1 else "")
        self._known(domain)
        return printing.disabled(self.disabled.get(domain, {})), ""

    async def _kickstart(self, words: list[str]) -> tuple[str, str]:
        flags = "".join(word[1:] for word in words if word.startswith("-"))
        targets = [word for word in words if not word.startswith("-")]
        if len(targets) != 1 or set(flags) - set("kp"):
            raise Refused(USAGE, "launchctl kickstart [-k] [-p] <service-target>")
        domain, label = _split(targets[0])
        self._writable(domain)
        job = self._job(domain, label)
        if job.removing:
            raise Refused(ALREADY_IN_PROGRESS, job.target)
        if self.disabled.get(domain, {}).get(label, False):
            raise Refused(DISABLED, job.target)
        start = job.kick_again() if "k" in flags else job.kick()
        if self.settings.kickstart_code:
            self._spawn(start)
            raise Refused(self.settings.kickstart_code, job.target)
        pid = await start
        return (f"service spawned with pid: {pid}\n" if "p" in flags else ""), ""

    async def _kill(self, words: list[str]) -> tuple[str, str]:
        if len(words) != 2:
            raise Refused(USAGE, "launchctl kill <signal> <service-target>")
        number = _signal(words[0])
        domain, label = _split(words[1])
        self._writable(domain)
        job = self._job(domain, label)
        if not job.signal(number):
            raise Refused(NO_SUCH_PROCESS, f"{job.target} does not run")
        return "", ""

    async def _stop(self, words: list[str]) -> tuple[str, str]:
        if words:
            raise Refused(USAGE, f"launchctl {STOP_VERB}")
        await self.stop_all()
        return "", ""

    async def _manager_name(self, _words: list[str]) -> tuple[str, str]:
        return sessions.manager_name(self._sessions, self.settings) + "\n", ""

    async def _console(self, _words: list[str]) -> tuple[str, str]:
        return sessions.console(self._sessions, self.settings) + "\n", ""

    async def _login(self, words: list[str]) -> tuple[str, str]:
        uid = self._session_of(words, LOGIN_VERB)
        if not self.settings.screen:
            raise Refused(USAGE, "this emulator has no screen")
        again = uid in self._sessions.gui
        self._begin(self._sessions.login(uid))
        return "", "" if again else self._load_folder(f"gui/{uid}")

    async def _logout(self, words: list[str]) -> tuple[str, str]:
        uid = self._session_of(words, LOGOUT_VERB)
        self._begin(self._sessions.logout(uid))
        await self._end({f"gui/{uid}"})
        return "", ""

    async def _ssh(self, words: list[str]) -> tuple[str, str]:
        self._begin(self._sessions.began(self._session_of(words, SSH_VERB)))
        return "", ""

    async def _reboot(self, words: list[str]) -> tuple[str, str]:
        if words or self.settings.domains:
            raise Refused(USAGE, REBOOT_VERB)
        self._begin(sessions.after_boot())
        await self._end({domain for domain, _ in self.jobs} | {sessions.SYSTEM})
        return "", self._load_folder(sessions.SYSTEM)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that exist."""
        return sessions.domains(self._sessions, self.settings)

    @property
    def _sessions(self) -> Sessions:
        return self.sessions or sessions.initial(self.settings)

    def _session_of(self, words: list[str], verb: str) -> int:
        if len(words) != 1 or not words[0].isdecimal():
            raise Refused(USAGE, f"{verb} UID")
        if self.settings.domains:
            raise Refused(USAGE, "the settings of this emulator say which domains exist")
        return int(words[0])

    def _begin(self, now: Sessions) -> None:
        """Saved before anything is stopped or loaded, so that it holds even if the emulator is killed meanwhile."""
        self.sessions = now
        self._changed()

    async def _end(self, domains: set[str]) -> None:
        """Stop and unload all jobs of these domains, which answer 124 meanwhile."""
        self._ending |= domains
        try:
            doomed = [job for job in self.jobs.values() if job.domain in domains]
            for job in doomed:
                job.remove()
            while any(self.jobs.get((job.domain, job.spec.label)) is job for job in doomed):
                await asyncio.sleep(0.01)
        finally:
            self._ending -= domains

    def _load_folder(self, domain: str) -> str:
        """Load what a boot or a login finds in the domain's folder. Returns what was not loaded, and why."""
        notes = ""
        for path in sorted(sessions.folder(Path(), domain).absolute().glob("[!.]*.plist")):
            try:
                spec, data = jobspec.read(path, _owners(domain))
            except Refused as refused:
                notes += f"{path}: {refused.text()}"
                continue
            off = self.disabled.get(domain, {}).get(spec.label, spec.disabled)
            if spec.loads_in(session_type(domain)) and not off and (domain, spec.label) not in self.jobs:
                self.load(domain, str(path), spec, data)
        return notes

    def _known(self, domain: str) -> None:
        if domain in self._ending:
            raise Refused(TEARDOWN, domain)
        if domain not in self.domains:
            raise Refused(self.settings.absent_code, domain)

    def _writable(self, domain: str) -> None:
        self._known(domain)
        self._permit(domain, NOT_PERMITTED, domain)

    def _permit(self, domain: str, code: int, detail: str) -> None:
        """An ordinary caller changes its own domains only."""
        if not self.settings.root and sessions.owner(domain) != os.getuid():
            raise Refused(code, detail)

    def _job(self, domain: str, label: str) -> LoadedJob:
        job = self.jobs.get((domain, label))
        if job is None:
            raise Refused(UNKNOWN_SERVICE, f'"{label}" in domain {domain}')
        return job

    def _spawn(self, life: object) -> None:
        task = asyncio.ensure_future(life)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _split(target: str) -> tuple[str, str]:
    """gui/501/label -> (gui/501, label); the label may be empty."""
    match = _DOMAIN.fullmatch(target)
    if match is None:
        raise Refused(USAGE, f"not a domain or service target: {target!r}")
    return match[1], match[2] or ""


def _owners(domain: str) -> tuple[int, ...]:
    """Whose property lists launchd takes in a domain, besides root's: its user's; the emulator's stand for root's."""
    uid = sessions.owner(domain)
    return (os.getuid(),) if uid is None else (uid, os.getuid())


def _signal(word: str) -> int:
    """TERM, SIGTERM or 15."""
    name = word if word.startswith("SIG") else f"SIG{word}"
    if name in signal.Signals.__members__:
        return signal.Signals[name]
    if word.isdigit() and int(word) in set(signal.Signals):
        return int(word)
    raise Refused(USAGE, f"not a signal: {word}")
