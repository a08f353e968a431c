"""The verbs of launchctl that the emulator supports, on its table of domains and jobs."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from ..launchctl_codes import (
    ALREADY_IN_PROGRESS,
    DISABLED,
    DOMAIN_ABSENT,
    IN_PROGRESS,
    INPUT_OUTPUT,
    NO_SUCH_PROCESS,
    TEARDOWN,
    UNKNOWN_SERVICE,
    USAGE,
    WRONG_DOMAIN,
)
from . import jobspec, printing
from .job import LoadedJob
from .refused import Refused
from .settings import Settings

_DOMAIN = re.compile(r"(system|(?:gui|user)/\d+)(?:/(.+))?")
STOP_VERB = "emulator-stop"
"""not launchctl's: stop every job, forget them, and end the emulator"""
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
        self._changed = changed
        self._tasks: set[asyncio.Task[None]] = set()
        self._table = {
            "bootstrap": self._bootstrap,
            "bootout": self._bootout,
            "enable": self._enable,
            "disable": self._disable,
            "print": self._print,
            "print-disabled": self._print_disabled,
            "kickstart": self._kickstart,
            "kill": self._kill,
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
        if label or domain not in self.settings.existing_domains():
            raise Refused(WRONG_DOMAIN, words[0])
        notes = ""
        for path in words[1:]:
            spec, data = jobspec.read(Path(path), os.getuid())
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
        self._known(domain)
        if not label:
            if len(words) != 2:
                raise Refused(USAGE, "the emulator does not boot out a whole domain")
            label = jobspec.read(Path(words[1]), os.getuid())[0].label
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
        self._known(domain)
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
        self._known(domain)
        job = self._job(domain, label)
        if job.removing:
            raise Refused(ALREADY_IN_PROGRESS, job.target)
        if self.disabled.get(domain, {}).get(label, False):
            raise Refused(DISABLED, job.target)
        pid = await (job.kick_again() if "k" in flags else job.kick())
        return (f"service spawned with pid: {pid}\n" if "p" in flags else ""), ""

    async def _kill(self, words: list[str]) -> tuple[str, str]:
        if len(words) != 2:
            raise Refused(USAGE, "launchctl kill <signal> <service-target>")
        number = _signal(words[0])
        domain, label = _split(words[1])
        self._known(domain)
        job = self._job(domain, label)
        if not job.signal(number):
            raise Refused(NO_SUCH_PROCESS, f"{job.target} does not run")
        return "", ""

    async def _stop(self, words: list[str]) -> tuple[str, str]:
        if words:
            raise Refused(USAGE, f"launchctl {STOP_VERB}")
        await self.stop_all()
        return "", ""

    def _known(self, domain: str) -> None:
        if domain not in self.settings.existing_domains():
            raise Refused(DOMAIN_ABSENT, domain)

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


def _signal(word: str) -> int:
    """TERM, SIGTERM or 15."""
    name = word if word.startswith("SIG") else f"SIG{word}"
    if name in signal.Signals.__members__:
        return signal.Signals[name]
    if word.isdigit() and int(word) in set(signal.Signals):
        return int(word)
    raise Refused(USAGE, f"not a signal: {word}")
