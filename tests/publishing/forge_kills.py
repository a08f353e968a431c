"""Uploads that are killed: `python -m tests.publishing.forge_kills [KILLS] [SEED]`.

The forge kills its client (SIGKILL) when it reaches a point drawn at random among all points of an upload: a request
that arrives, a block of an upload, an effect before its answer, a block of a download. So the place of a kill does not
depend on how fast the machine is. After each kill nothing incomplete may be public; after one to three kills a run that
is left alone has to end with exactly one public release, whose files are right, and no draft.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.publishing.forge_release import ID, faults_of, make_publication
from tests.publishing.forge_server import REPOSITORY, WRITER, ForgeServer, serving
from toolchain.publishing.published import Publication

_ROOT = Path(__file__).parents[2]


class _Points:
    """Counts the points of a run, and does something at one of them."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.count, self._at, self._act, self._lock = 0, at, act, threading.Lock()
        self.reached = ""

    def __call__(self, point: str) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._at:
                self.reached = point
                self._act()


@dataclass
class Told:
    """What a series of kills has shown."""

    killed: int = 0
    releases: int = 0
    faults: list[str] = field(default_factory=list)
    places: Counter[str] = field(default_factory=Counter)
    """where the client was killed"""


def kill(publication: Publication, folder: Path, *, kills: int, seed: int) -> Told:
    """So many kills, and what was found wrong afterwards."""
    draw, told, total = random.Random(seed), Told(), 60
    while told.killed < kills:
        with serving() as forge:
            forge.immutable = True
            for _ in range(min(draw.randint(1, 3), kills - told.killed)):
                process = _start(forge, publication, folder)
                points = forge.at_point = _Points(draw.randint(1, total), process.kill)
                code = process.wait(timeout=120)
                forge.at_point = lambda _: None
                if code == -signal.SIGKILL:
                    told.killed += 1
                    told.places[points.reached.partition(" ")[0]] += 1
                elif code:
                    told.faults.append(f"a run ended with {code}")
                told.faults += faults_of(forge, publication)
            last = _start(forge, publication, folder)
            if last.wait(timeout=120):
                told.faults.append(f"the last run ended with {last.returncode}")
            told.faults += faults_of(forge, publication)
            told.releases += 1
            if (forge.publications, len(forge.releases)) != (1, 1):
                told.faults.append(f"{forge.publications} publications, {len(forge.releases)} releases")
    return told


def _start(forge: ForgeServer, publication: Publication, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            sys.executable, "-P", "-c", "import tasks; tasks.start()", "release.upload", "--release", ID,
            "--repo", REPOSITORY, "--workspace", folder / "workspace", "--set", f"publish.forge={forge.url}",
            "--set", f"publish.folder={publication.folder}", "--set", "publish.token_variable=FORGE_TOKEN",
        ],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(_ROOT), "FORGE_TOKEN": WRITER},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _main() -> None:
    given = [int(text) for text in sys.argv[1:]]
    kills, seed = (*given, *(100, 1)[len(given) :])
    with tempfile.TemporaryDirectory() as folder:
        told = kill(make_publication(Path(folder)), Path(folder), kills=kills, seed=seed)
    sys.stdout.write(f"{told}\n")
    raise SystemExit(1 if told.faults else 0)


if __name__ == "__main__":
    _main()
