"""What a check of the repository found."""

from __future__ import annotations

from ..core.delivery_errors import ChecksFailed
from ..core.errors import ToolchainError
from ..core.records import record


@record
class Fault:
    """One fault of one file that `check` found."""

    path: str
    """from the root of the repository"""
    line: int = 0
    """0: the file as a whole"""
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}" if self.line else f"{self.path}: {self.reason}"


@record
class NotChecked:
    """What could not be checked, since a tool is missing: nothing is known about it."""

    what: str
    why: str
    hint: str


@record
class FilesChecked:
    """All files of the repository, checked."""

    files: int
    findings: tuple[Fault, ...]
    not_checked: tuple[NotChecked, ...]
    seconds: float

    def failure(self) -> ToolchainError | None:
        """`ChecksFailed` when something was found."""
        if not self.findings:
            return None
        count = len(self.findings)
        return ChecksFailed(
            f"{count} {'finding' if count == 1 else 'findings'} in {len({one.path for one in self.findings})} of"
            f" {self.files} files",
            hint="each line above names the file, the line and the reason",
        )
