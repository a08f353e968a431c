"""What a first run has on this machine: one folder, jobs whose labels begin alike, and their processes.

One run at a time. What a killed run left is removed before the next one begins, by the same means as at the end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core import folders, process, records
from ..core.config import Config
from ..core.errors import FolderUnusable, LockHeld, ToolchainError
from ..deploy import residents
from ..service import account
from ..service.launchd import DAEMONS
from .bench import LABEL

REBOOT_LABEL = f"{LABEL}.reboot"
"""of the one job that waits for a reboot, and of its disable record: spared until the run after the reboot"""
_LABELS = re.compile(rf"(?<![\w.-]){re.escape(LABEL)}(?:\.[\w.-]*\w)?(?![\w.-])")
_LAUNCHCTL = "/bin/launchctl"
_PID = "pid"
_CALL_S, _GONE_S, _POLL_S = 30.0, 30.0, 0.1
_END_S = 10.0
_FOR_ROOT = Path("/Library/Application Support/turboquant-firstrun")
"""of root on a Mac: sudo keeps the user's HOME, and nothing of root's belongs there"""


@dataclass(frozen=True)
class Belongings:
    """Everything of first runs lies below `folder`."""

    folder: Path

    @property
    def run(self) -> Path:
        """The folder of the run at work."""
        return self.folder / "run"

    @property
    def reboot(self) -> Path:
        """The folder of what waits for a reboot."""
        return self.folder / "reboot"

    def note_output(self, out: Path) -> None:
        """Note where the report is written, so that the next run finds the temporary file of a killed one."""
        (self.run / "out").write_bytes(os.fsencode(out))

    def forget_reboot(self) -> None:
        """Delete what waits for a reboot, after its job is gone."""
        residents.end(self.reboot)
        delete(self.reboot)

    def remove(self) -> tuple[str, ...]:
        """End and delete everything of a run. Returns what is left all the same, in words. May be called twice."""
        left = [*_unload(), *_delete_property_lists(), *(f"pid {one.pid}" for one in residents.end(self.run))]
        with contextlib.suppress(OSError):
            out = Path(os.fsdecode((self.run / "out").read_bytes()))
            records.sweep(out.parent, out.name)
        delete(self.run)
        if self.run.exists():
            left.append(f"the folder {self.run}")
        return tuple(left)


def of(config: Config) -> Belongings:
    """Where first runs of this user have their folder. Raises `FolderUnusable`."""
    if sys.platform == "darwin" and account.is_root():
        return Belongings(_FOR_ROOT)
    return Belongings(folders.workspace(config) / "firstrun")


@contextlib.contextmanager
def held(config: Config) -> Iterator[Belongings]:
    """The folder of first runs, for this run alone, without leftovers; deleted at the end unless a reboot is awaited.

    Raises `LockHeld` while another first run is at work, and `FolderUnusable`.
    """
    own = of(config)
    made = [path for path in (own.folder, *own.folder.parents) if not path.exists()]
    try:
        with _locked(own.folder):
            own.remove()
            records.make_folder(own.run)
            own.run.chmod(0o711 if own.folder == _FOR_ROOT else 0o700)  # a daemon of another user runs from there
            try:
                yield own
            finally:
                surely(own.remove)
                (own.folder / _PID).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # something waits for a reboot
                    own.folder.rmdir()
    except OSError as error:
        if error.filename is not None and Path(str(error.filename)).is_relative_to(own.folder):
            raise FolderUnusable(
                f"workspace: {error.filename}: {error.strerror}", hint="name another folder: --set workspace=DIR"
            ) from error
        raise
    finally:
        for path in dict.fromkeys((*made, own.folder.parent)):  # also of the run before a reboot
            with contextlib.suppress(OSError):
                path.rmdir()


def surely(action: Callable[[], object]) -> None:
    """Do it to its end although an interrupt comes in between, which raises once at most."""
    try:
        action()
    except (KeyboardInterrupt, SystemExit):
        action()
        raise


def delete(folder: Path) -> None:
    """Delete a folder, also one with folders that are not writable, such as Go's modules. Follows no links."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.is_dir() or folder.is_symlink():
        return
    for place, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            Path(place).chmod(stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made. The lock ends with the process."""
    while True:
        records.make_folder(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
                raise FolderUnusable(
                    f"{folder} belongs to another user, or others can write to it", hint="--set workspace=DIR"
                )
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = (folder / _PID).read_text() if (folder / _PID).exists() else "unknown"
                raise LockHeld(
                    f"another first run is at work (pid {pid})", hint="wait for its end, or end it with `kill`"
                ) from None
            if not folder.exists() or folder.stat().st_ino != found.st_ino:
                continue  # the run before deleted it just now
            (folder / _PID).write_text(str(os.getpid()))
            yield
            return
        finally:
            os.close(descriptor)


def _unload() -> list[str]:
    """Boot out the jobs of first runs from the Mac's launchd; the emulator's end with its process."""
    if sys.platform != "darwin":
        return []
    left = []
    uid = os.getuid()
    domains = (account.SYSTEM,) if account.is_root() else (f"gui/{uid}", f"user/{uid}")
    for domain in domains:
        for label in loaded(_said("print", domain)):
            _said("bootout", f"{domain}/{label}")
            if not _gone(f"{domain}/{label}"):
                left.append(f"the job {domain}/{label}")
    return left


def loaded(printed: str) -> tuple[str, ...]:
    """The labels of first runs in what `launchctl print` says of a domain, without those that wait for a reboot."""
    found = dict.fromkeys(_LABELS.findall(printed))
    return tuple(label for label in found if not label.startswith(REBOOT_LABEL))


def _gone(target: str) -> bool:
    deadline = time.monotonic() + _GONE_S
    while _code("print", target) == 0:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _said(*words: str) -> str:
    try:
        return process.run((_LAUNCHCTL, *words), timeout=_CALL_S, check=False).output
    except ToolchainError:
        return ""


def _code(*words: str) -> int:
    try:
        return process.run((_LAUNCHCTL, *words), timeout=_CALL_S, check=False).returncode
    except ToolchainError:
        return -1


def _delete_property_lists() -> list[str]:
    """Those that a login or a boot would load. Only on a Mac: the emulator's lie in the run's folder."""
    if sys.platform != "darwin":
        return []
    left = []
    folder = DAEMONS if account.is_root() else account.caller().home / "Library/LaunchAgents"
    for file in folder.glob(f"{LABEL}*.plist"):
        if file.name.startswith(REBOOT_LABEL):
            continue
        try:
            file.unlink()
        except OSError as error:
            left.append(f"the property list {file}: {error.strerror}")
    return left
