"""Publishing that is killed between any two changes of files: the publication stays valid, and the next run ends it.

python -m tests.publishing.kills        kills publish, promote and refresh at each of their changes
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolchain.core.run import Run
from toolchain.publishing import checking, download, promotion, publication
from toolchain.publishing.tuf_client import TufClient

from .world import World, at, make, publisher_of, run_in, stage

KILLED = 9
_CHANGES = frozenset({"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.symlink", "os.chmod", "subprocess.Popen"})
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Step = Callable[[Run], object]


def steps(world: World, staged: str) -> dict[str, Step]:
    """What a publisher does; each can be done again."""
    return {
        "publish": lambda run: publication.publish(run, staged, b"#!/bin/sh\necho newer provisioner\n"),
        "promote": lambda run: promotion.promote(run, world.older, name="stable", without_proof="a rollback"),
        "refresh": promotion.refresh,
    }


def killed(run: Run, step: Step, after: int) -> bool:
    """Do a step in a process of its own, and kill it at its change number `after`, from 1; False: it had fewer."""
    child = os.fork()
    if child == 0:
        left = after

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
            if event in _CHANGES or writes:
                left -= 1
                if left == 0:
                    os._exit(KILLED)

        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        sys.addaudithook(watch)
        try:
            step(run)
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED), code
    return code == KILLED


def is_valid(world: World, folder: Path) -> str:
    """The release that a client finds in the channel, by SSH and by TUF. Raises when it refuses."""
    trust = checking.Trust(signers=world.signers, revoked=world.revoked)
    run = run_in(folder)
    found = checking.verify(run, str(world.publication.folder), trust, name="stable")
    assert world.tuf_root
    origin = download.source(str(world.publication.folder), 30.0)
    TufClient(origin, world.tuf_root, folder / "tuf").read("channels/stable.json")
    return found.release


def copied(base: Path, folder: Path) -> tuple[World, Run]:
    """What `make` made in `base`, once more in `folder`, with its publisher."""
    shutil.copytree(base, folder, symlinks=True)
    return at(folder), publisher_of(folder)


def main() -> None:
    """Kill each step at each of its changes, each time in a copy."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name, "base")
        make(base)
        staged = stage(publisher_of(base), "newest", 3)
        for title in steps(at(base), staged):
            number, again = 0, True
            while again:
                number += 1
                folder = Path(name, "copy")
                world, run = copied(base, folder)
                step = steps(world, staged)[title]
                again = killed(run, step, number)
                is_valid(world, folder / "client")
                step(run)
                is_valid(world, folder / "client")
                shutil.rmtree(folder)
            print(f"{title}: killed at each of {number - 1} changes; valid then, and done by the next run")  # noqa: T201


if __name__ == "__main__":
    main()
