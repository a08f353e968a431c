"""The folder of a validation: every answer is kept when it comes, so that an interrupted run goes on where it was.

plan.json            what is measured
cells/KEY.json       one answer or measurement each; KEY says which, as in needle/candidate/8192/3
cells/KEY.npz, .slot arrays of a measurement, and a saved cache, whose digests KEY.json states
result.json          what was found, of all tests
judgement.json       what a human found
logs/                of the servers

What the baseline alone answers is kept beside the validations, in baselines/ID/cells, where the next candidate finds
it. Speed is measured in pairs, and so belongs to one validation.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ..core.records import read, sweep, write
from . import judgement

R = TypeVar("R")

_KEY = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")


_OF_BASELINE = re.compile(
    r"(needle|prompts|session|trajectory|perturbation|memory|ceiling)/((free|forced)/)?baseline/.*"
    r"|needle/(text|room)/.*|needle/chat|prompts/asked/.*|prompts/chat"
)


class Store:
    """The kept cells of one validation. A cell is written atomically once it is complete, and never changed.

    `baseline` is a folder for the cells of the baseline, which further validations share; without it they are in
    `folder`.
    """

    def __init__(self, folder: Path, baseline: Path | None = None) -> None:
        self.folder = folder
        self._baseline = baseline or folder
        self.logs = folder / "logs"
        self.taken = 0
        """cells that this run measured itself"""

    def kept(self, key: str, kind: type[R], measure: Callable[[], R]) -> R:
        """The cell `key`, measured now unless it is kept. Raises `RecordError` for a damaged one, `DiskFull`."""
        path = self.path(key)
        if path.is_file():
            return read(path, kind)
        found = measure()
        write(path, found)
        self.taken += 1
        return found

    def has(self, key: str) -> bool:
        """Whether a cell is kept."""
        return self.path(key).is_file()

    def path(self, key: str) -> Path:
        """The file of a cell."""
        assert _KEY.fullmatch(key), key
        folder = self._baseline if _OF_BASELINE.fullmatch(key) else self.folder
        return folder / "cells" / f"{key}.json"

    def keys(self) -> Iterator[str]:
        """All cells, sorted."""
        found = set[str]()
        for root in (self.folder / "cells", self._baseline / "cells"):
            files = (path for path in root.rglob("*.json") if not path.name.startswith("."))
            found |= {path.relative_to(root).as_posix().removesuffix(".json") for path in files}
        return iter(sorted(found))

    def clear(self) -> None:
        """Delete all but what a human entered, which holds for equal answers; the baseline's cells, too."""
        shutil.rmtree(self._baseline / "cells", ignore_errors=True)
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != judgement.FILE:
                path.unlink()

    def tidy(self) -> None:
        """Delete what a killed run left half written."""
        for folder in [self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())]:
            sweep(folder, "*.json", "*.npz", "*.slot", "*.html", "*.md")
