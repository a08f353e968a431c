"""A service manager of the tests' own: a plain process that starts the program again whenever it ends.

It has neither domains nor a command line, so that what deploy asks of it is what the protocol says. Run as a program,
this file is the process: it starts what the definition names until it gets SIGTERM or its owner is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from toolchain.core import records
from toolchain.core.config import DeployConfig
from toolchain.core.errors import CommandFailed
from toolchain.service.account import Account, caller
from toolchain.service.manager import Definition, Instance, Registration, ServiceState

KIND = "process"
_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 20.0
_POLL_S = 0.02
_PAUSE_S = 0.2
_EXIT_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ProcessManager:
    """A `Manager`. `home`/LABEL.json is the definition; what was loaded and how it is lies in `home`/LABEL.loaded."""

    home: Path
    label: str
    kind: str = KIND
    account: Account = field(default_factory=caller)
    owner: Account = field(default_factory=caller)

    @property
    def target(self) -> str:
        return f"{KIND} {self.label}"

    @property
    def registration(self) -> Registration:
        return Registration(label=self.label, domain="", file=str(self._file), manager=KIND)

    @property
    def caution(self) -> str:
        return ""

    @property
    def _file(self) -> Path:
        return self.home / f"{self.label}.json"

    @property
    def _loaded(self) -> Path:
        return self.home / f"{self.label}.loaded"

    def check(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)

    def require_rights(self) -> None:
        """All is the caller's own."""

    def preflight(self) -> None:
        """It loads everything."""

    def sweep(self) -> None:
        """Nothing is left of a preflight."""

    def instances(self) -> tuple[Instance, ...]:
        state = self.inspect()
        return (Instance(manager=self, state=state),) if state.loaded else ()

    def definitions(self) -> tuple[Path, ...]:
        return (self._file,) if self._file.is_file() else ()

    def runs(self, file: Path) -> str:
        return str(_read(file).get("program", ""))

    def inspect(self) -> ServiceState:
        found = _read(self._loaded / "state.json")
        if not found or not _is(found["keeper"], found["keeper_started"]):
            return ServiceState(loaded=False)
        return ServiceState(loaded=True, pid=found["pid"], runs=found["runs"], last_end=found["last_end"])

    def render(self, definition: Definition) -> bytes:
        return json.dumps({"program": str(definition.program), "log": str(definition.log)}).encode()

    def describe(self, data: bytes) -> dict[str, str]:
        return {key: str(value) for key, value in json.loads(data).items()}

    def user_of(self, data: bytes) -> str:
        return ""

    def install(self, definition: Definition) -> None:
        records.write_bytes(self._file, self.render(definition))

    def digest(self) -> str:
        return records.sha256_file(self._file) if self._file.is_file() else ""

    def reload(self) -> None:
        self.unload()
        if not self._file.is_file():
            raise CommandFailed(f"{self.target}: there is no definition to load")
        records.write_bytes(self._loaded / "definition.json", self._file.read_bytes())
        keeper = [sys.executable, "-m", __name__, str(self._loaded), str(_owner())]
        subprocess.run(  # by a shell that ends at once: the keeper is nobody's child
            ["/bin/sh", "-c", '"$@" &', "sh", *keeper],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            check=True,
        )
        self._until(lambda: self.inspect().runs > 0, "was not started")

    def restart(self) -> bool:
        before = self.inspect()
        if not before.loaded:
            self.reload()
            return True
        ended = True
        if before.pid:
            os.kill(before.pid, signal.SIGTERM)
            try:
                self._until(lambda: self.inspect().pid != before.pid, "does not end", _EXIT_TIMEOUT_S)
            except CommandFailed:
                ended = False
                os.kill(before.pid, signal.SIGKILL)
        self._until(lambda: self.inspect().runs > before.runs, "was not started again")
        return ended

    def unload(self) -> None:
        found = _read(self._loaded / "state.json")
        if found and _is(found["keeper"], found["keeper_started"]):
            os.kill(found["keeper"], signal.SIGTERM)
            self._until(lambda: not self.inspect().loaded, "does not end")

    def delete(self) -> None:
        self._file.unlink(missing_ok=True)

    def doubt(self, registration: Registration, program: Path) -> str:
        ours = registration.file == str(self.home / f"{registration.label}.json")
        return "" if ours else f"{registration.file} is not in {self.home}"

    def find(self, program: Path) -> Registration | None:
        return self.registration if self._file.exists() else None

    def adopt(self, registration: Registration) -> ProcessManager:
        return replace(self, home=Path(registration.file).parent, label=registration.label)

    def _until(self, condition: Any, complaint: str, seconds: float = _TIMEOUT_S) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise CommandFailed(f"{self.target}: {complaint}")
            time.sleep(_POLL_S)


def make(config: DeployConfig, home: Path, _loaded_in: str) -> ProcessManager:
    return ProcessManager(home / KIND, config.label)


def _owner() -> int:
    """The process of the test, also where a child of it deploys."""
    return int(os.environ.get("PYTEST_OWNER_PID", os.getpid()))


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}


def _is(pid: int, started: float) -> bool:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return process.create_time() == started and process.status() != psutil.STATUS_ZOMBIE
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def keep(folder: Path, owner: int) -> None:
    """Start the program of `folder`/definition.json again and again."""
    told = False

    def tell(_number: int, _frame: object) -> None:
        nonlocal told
        told = True

    signal.signal(signal.SIGTERM, tell)
    definition = _read(folder / "definition.json")
    state = {"keeper": os.getpid(), "keeper_started": psutil.Process().create_time(), "last_end": ""}
    runs = 0
    while not told and psutil.pid_exists(owner):
        with Path(definition["log"]).open("ab") as log:
            process = subprocess.Popen(
                [definition["program"]],
                env={"PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        runs += 1
        records.write(folder / "state.json", {**state, "pid": process.pid, "runs": runs})
        while not told and process.poll() is None and psutil.pid_exists(owner):
            time.sleep(_POLL_S)
        _end(process)
        state["last_end"] = str(process.returncode)
        records.write(folder / "state.json", {**state, "pid": 0, "runs": runs})
        deadline = time.monotonic() + _PAUSE_S
        while not told and time.monotonic() < deadline:
            time.sleep(_POLL_S)


if __name__ == "__main__":
    keep(Path(sys.argv[1]), int(sys.argv[2]))
