"""The exit codes of launchctl that the stand-in reproduces, and the words that go with them."""

from __future__ import annotations

NO_SUCH_PROCESS = 3
INPUT_OUTPUT = 5
IN_PROGRESS = 36
ALREADY_IN_PROGRESS = 37
USAGE = 64
DOMAIN_ABSENT = 112
UNKNOWN_SERVICE = 113
DISABLED = 119
BAD_OWNERSHIP = 122
TEARDOWN = 124
WRONG_DOMAIN = 125

TEXTS = {
    NO_SUCH_PROCESS: "No such process",
    INPUT_OUTPUT: "Input/output error",
    IN_PROGRESS: "Operation now in progress",
    ALREADY_IN_PROGRESS: "Operation already in progress",
    USAGE: "Usage error",
    DOMAIN_ABSENT: "Could not find domain",
    UNKNOWN_SERVICE: "Could not find service",
    DISABLED: "Service is disabled",
    BAD_OWNERSHIP: "Path had bad ownership/permissions",
    TEARDOWN: "Domain is being torn down",
    WRONG_DOMAIN: "Domain does not support specified action",
}


class Refused(Exception):  # noqa: N818  launchctl's own word: it is an answer, not an error of ours
    """A verb ends with `code`; `detail` is added to its text on stderr."""

    def __init__(self, code: int, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def text(self, prefix: str = "") -> str:
        """As launchctl words it: `Bootstrap failed: 5: Input/output error`."""
        words = f"{prefix}{self.code}: {TEXTS.get(self.code, 'Unknown error')}"
        return f"{words}\n  {self.detail}\n" if self.detail else words + "\n"
