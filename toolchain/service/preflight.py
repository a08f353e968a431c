"""A throwaway job that shows, before anything is built, whether launchd would load the service.

It has a label of its own, is made from a property list like the service's in the same folder, and ends at once.
"""

from __future__ import annotations

import os
import plistlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..core import records
from ..core.errors import ManagerRefused, PreflightRefused
from . import propertylist
from .manager import Instance

PROGRAM = Path("/bin/sh")
_WORDS = [str(PROGRAM), "-c", ":"]


class Job(Protocol):
    """What the preflight asks of its job in launchd."""

    @property
    def domain(self) -> str:
        """The domain."""

    @property
    def label(self) -> str:
        """The job's own."""

    @property
    def plist(self) -> Path:
        """Its property list."""

    def load(self) -> None:
        """Bootstrap it. Raises `ManagerRefused`."""

    def discard(self) -> None:
        """Boot it out if it is loaded."""

    def delete(self) -> None:
        """Delete its property list."""

    def instances(self) -> Sequence[Instance]:
        """Every domain where it is loaded."""

    def definitions(self) -> Sequence[Path]:
        """Its property lists, in every folder."""


def run(job: Job, like: bytes) -> None:
    """Load the job and boot it out. `like` is the service's property list. Raises `PreflightRefused`."""
    if os.path.lexists(job.plist):
        raise PreflightRefused(f"{job.plist} is another service's", hint="set deploy.label to another name")
    content = plistlib.loads(like)
    content |= {"Label": job.label, "ProgramArguments": _WORDS, "KeepAlive": False}
    try:
        records.write_bytes(job.plist, plistlib.dumps(content, sort_keys=False), mode=0o644)
        job.load()  # without `enable`: launchd would keep a record of the label for ever
    except ManagerRefused as refused:
        message = f"launchd would not load the service in {job.domain}: {refused.message}"
        raise PreflightRefused(message, hint=refused.hint, code=refused.code) from refused
    finally:
        job.discard()
        job.delete()


def sweep(job: Job) -> None:
    """Remove what a killed run left. The file goes last, so that a sweep that is killed is repeated.

    A service of others that has the job's label stays.
    """
    left = [file for file in job.definitions() if propertylist.read(file).get("ProgramArguments") == _WORDS]
    for one in job.instances() if left else ():
        one.manager.unload()
    for file in left:
        file.unlink(missing_ok=True)
