"""Ctrl-C, SIGTERM and the end of the terminal: a run cleans up, and ends with 128 plus the signal.

The first signal raises in the main thread, and ends the programs that worker threads wait for. The second one is
passed over, since it would leave servers, locks or half a deploy behind: people press twice, supervisors send two
signals. The third one ends the process at once; the next command then recovers.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

from ..core import process

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LAST = 3
_AGAIN_S = 0.01


class _Interrupts:
    """The signals of this process."""

    def __init__(self) -> None:
        self.number = 0
        """the first signal that came; 0: none"""
        self._count = 0
        self._ends_at_once = False

    def catch(self) -> None:
        """Handle the signals from now on; one that is ignored, as under nohup, stays so."""
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        usual = threading.excepthook
        threading.excepthook = lambda args: None if self.number else usual(args)
        sys.unraisablehook = self._lost

    def _lost(self, args: sys.UnraisableHookArgs) -> None:
        """Send a signal again whose exception was raised in a destructor, where Python only prints it."""
        if not self.number or isinstance(args.exc_value, Exception):
            sys.__unraisablehook__(args)
            return
        self._count = 0
        threading.Timer(_AGAIN_S, os.kill, (os.getpid(), self.number)).start()

    def end_at_once(self) -> None:
        """The run has its result: a signal while the interpreter shuts down must not print a traceback."""
        self._ends_at_once = True

    def message(self) -> str:
        """What ended the run."""
        return "interrupted" if self.number == signal.SIGINT else f"ended by {signal.Signals(self.number).name}"

    def exit_code(self) -> int:
        """As a shell has it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        self.number = self.number or number
        if self._ends_at_once or self._count >= _LAST:
            os._exit(self.exit_code())
        if self._count > 1:
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"cleaning up; once more ends it at once\n")
            return
        process.interrupt(KeyboardInterrupt() if number == signal.SIGINT else SystemExit(self.exit_code()))


interrupts = _Interrupts()
