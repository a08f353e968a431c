"""The emulator's command line: `python -m toolchain.service.emulator.launchctl <verb> ...`, with launchctl's arguments.

The root folder comes from TURBOQUANT_LAUNCHD_ROOT, or from `--root DIR` before the verb. Only the standard library
is imported here, and little of it: a deploy calls this many times (and runs the file itself, with `python -I -S`).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess

ROOT_VARIABLE = "TURBOQUANT_LAUNCHD_ROOT"
_SOCKET = "socket"
_LOG = "daemon.log"
_START_TIMEOUT_S = 15.0
_FAILED = 1
_UNKNOWN_SERVICE = 113
"""also the answer of an emulator that was never used: a look at a service must not make its folder"""


def main(argv: Sequence[str]) -> int:
    """Send one command to the emulator, starting it first where needed, and end with its exit code."""
    words = list(argv)
    root = os.environ.get(ROOT_VARIABLE, "")
    if words[:1] == ["--root"] and len(words) > 1:
        root, words = words[1], words[2:]
    if not root:
        sys.stderr.write(f"the launchd emulator needs a folder: --root DIR, or {ROOT_VARIABLE}\n")
        return _FAILED
    words = [str(Path(word).resolve()) if word.endswith(".plist") else word for word in words]
    folder = Path(root).resolve()
    if words[:1] == ["print"] and not folder.exists():
        return _UNKNOWN_SERVICE if "/" in words[-1].removeprefix("gui/").removeprefix("user/") else 0
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chdir(folder)  # a socket's path is limited to 104 bytes, a relative one always fits
    answer = _ask(words)
    if answer is None:
        sys.stderr.write(f"the launchd emulator at {folder} does not answer; see {folder / _LOG}\n")
        return _FAILED
    sys.stdout.write(answer["stdout"])
    sys.stderr.write(answer["stderr"])
    return int(answer["code"])


def _ask(words: list[str]) -> dict[str, Any] | None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    daemon: subprocess.Popen[bytes] | None = None
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ConnectionError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(_SOCKET)
            connection.sendall(json.dumps(words).encode() + b"\n")
            if line := connection.makefile("rb").readline():
                answer: dict[str, Any] = json.loads(line)
                return answer
        if daemon is not None and daemon.poll():
            return None
        if daemon is None or daemon.returncode == 0:
            if Path().stat().st_uid != os.geteuid():
                return None  # another user's emulator
            Path().chmod(0o700)
            daemon = _start()
        time.sleep(0.02)
    return None


def _start() -> subprocess.Popen[bytes]:
    """Start the emulator in its own session, so that it outlives this process."""
    import subprocess

    package_root = str(Path(__file__).resolve().parents[3])
    with Path(_LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "toolchain.service.emulator.daemon", "."],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": package_root},
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
