"""One loaded job: its process, and when that is started again."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import IO

from . import identity
from .jobspec import DEFAULT_PATH, JobSpec

EX_CONFIG = 78
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class LoadedJob:
    """A job that is loaded in a domain. `run` is its main loop; the verbs call the other methods.

    `state` is `not running`, `spawn scheduled` (throttled), `running` or `stopping`. `last_status` is the last exit
    code, or minus the signal that ended it, or None before the first end.
    """

    def __init__(
        self, domain: str, path: str, spec: JobSpec, data: bytes, *, throttle_s: float, changed: Callable[[], None]
    ) -> None:
        self.domain = domain
        self.path = path
        self.spec = spec
        self.data = data
        self.throttle_s = throttle_s
        self.state = "not running"
        self.pid = 0
        self.runs = 0
        self.last_status: int | None = None
        self.removing = False
        self._changed = changed
        self._kicked = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._spawns: list[asyncio.Future[int]] = []
        self._spawned_at = float("-inf")
        self._killer: asyncio.Task[None] | None = None

    @property
    def target(self) -> str:
        """As launchctl names it: gui/501/label."""
        return f"{self.domain}/{self.spec.label}"

    async def run(self) -> None:
        """Start, wait, start again, until the job has been removed and its process has ended."""
        wanted = self.spec.starts_at_load
        while not self.removing:
            if not wanted:
                self._turn("not running")
                await self._kicked.wait()
            elif not self._kicked.is_set() and (wait := self._spawned_at + self.throttle_s - time.monotonic()) > 0:
                self._turn("spawn scheduled")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._kicked.wait(), wait)
            if not self.removing:
                self._kicked.clear()
                self.last_status = await self._run_once()
                wanted = self._kicked.is_set() or self.spec.restarts_after(self.last_status)
        self._turn("not running")
        self._answer(0)

    async def kick(self) -> int:
        """Start it now, regardless of its conditions, and return the pid (0 when it could not be started)."""
        if self.pid and self.state == "running":
            return self.pid
        spawn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._spawns.append(spawn)
        self._kicked.set()
        return await spawn

    async def kick_again(self) -> int:
        """Kill the running instance, start another, and return its pid."""
        if self.pid:
            self._turn("stopping")
            self.signal(signal.SIGKILL)
        return await self.kick()

    def stop(self) -> None:
        """SIGTERM now, SIGKILL after ExitTimeOut. Does not decide whether it starts again."""
        if not self.pid or self.state == "stopping":
            return
        self._turn("stopping")
        self.signal(signal.SIGTERM)
        if self.spec.exit_timeout_s:
            self._killer = asyncio.create_task(self._kill_later(self.pid))

    async def stopped(self) -> None:
        """Wait until none of its processes runs."""
        await self._idle.wait()

    def remove(self) -> None:
        """Begin to unload: prevent further starts, and stop the process."""
        self.removing = True
        self.stop()
        if not self.pid:
            self._kicked.set()

    def signal(self, number: int) -> bool:
        """Send a signal to the process itself, not to its children. False if none runs."""
        if not self.pid:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        return True

    async def _kill_later(self, pid: int) -> None:
        await asyncio.sleep(self.spec.exit_timeout_s)
        if self.pid == pid:
            self.signal(signal.SIGKILL)

    async def _run_once(self) -> int:
        self._spawned_at = time.monotonic()
        self.runs += 1
        self._idle.clear()
        try:
            process = await self._spawn()
        except (OSError, LookupError) as error:
            print(f"{self.target}: cannot start {self.spec.program}: {error}", file=sys.stderr, flush=True)  # noqa: T201
            self._idle.set()
            self._answer(0)
            return EX_CONFIG
        self.pid = process.pid
        self._turn("running")
        self._answer(process.pid)
        if self.removing:
            self.stop()
        status = await process.wait()
        if self._killer:
            self._killer.cancel()
            self._killer = None
        if not self.spec.abandon_group:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self.pid = 0
        self._turn("not running")
        self._idle.set()
        return status

    async def _spawn(self) -> asyncio.subprocess.Process:
        spec = self.spec
        who = identity.of_job(self.domain, spec.user)
        with contextlib.ExitStack() as files:
            with identity.assumed(who):
                out = _open_log(spec.stdout, files)
                err = out if spec.stderr == spec.stdout else _open_log(spec.stderr, files)
            return await asyncio.create_subprocess_exec(
                *spec.arguments,
                executable=spec.program,
                cwd=spec.directory,
                env={"PATH": DEFAULT_PATH, "XPC_SERVICE_NAME": spec.label, **spec.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=_die_with_parent if _libc else None,
                user=who.uid if who else None,
                group=who.gid if who else None,
                extra_groups=who.groups if who else None,
            )

    def _answer(self, pid: int) -> None:
        for spawn in self._spawns:
            if not spawn.done():
                spawn.set_result(pid)
        self._spawns.clear()

    def _turn(self, state: str) -> None:
        self.state = state
        self._changed()


def _open_log(path: str, files: contextlib.ExitStack) -> IO[bytes] | int:
    if not path:
        return asyncio.subprocess.DEVNULL
    return files.enter_context(open(path, "ab"))  # noqa: PTH123  a plist's path, as it stands


def _die_with_parent() -> None:
    """In the child: SIGKILL when the emulator dies, so that no test leaves a process behind (Linux only)."""
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
