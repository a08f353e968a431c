"""The refusal of a verb of the emulator."""

from __future__ import annotations

from ..launchctl_codes import TEXTS


class Refused(Exception):
    """A verb ends with exit code `code`; `detail` is added to its text on stderr. It simulates launchd's answer."""

    def __init__(self, code: int, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def text(self, prefix: str = "") -> str:
        """As launchctl words it: `Bootstrap failed: 5: Input/output error`."""
        words = f"{prefix}{self.code}: {TEXTS.get(self.code, 'Unknown error')}"
        return f"{words}\n  {self.detail}\n" if self.detail else words + "\n"
