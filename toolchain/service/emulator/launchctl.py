"""The emulator's command line: `python -m toolchain.service.emulator.launchctl <verb> ...`, with launchctl's arguments.

The root folder comes from TURBOQUANT_LAUNCHD_ROOT, or from `--root DIR` before the verb. A deploy calls this at each
look at a service (and runs the file itself, with `python -I -S`). So only what Python is made of is imported here:
pathlib, socket and json take twice as long as all the rest.
"""

from __future__ import annotations

import _json
import _socket
import os
import sys
import time

TYPE_CHECKING = False  # as in typing, which is among what is not imported
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from typing import Any

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
    words = [os.path.realpath(word) if word.endswith(".plist") else word for word in words]
    folder = os.path.realpath(root)
    if words[:1] == ["print"] and not os.path.exists(folder):
        return _UNKNOWN_SERVICE if "/" in words[-1].removeprefix("gui/").removeprefix("user/") else 0
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chdir(folder)  # a socket's path is limited to 104 bytes, a relative one always fits
    answer = _ask(words)
    if answer is None:
        sys.stderr.write(f"the launchd emulator at {folder} does not answer; see {folder}/{_LOG}\n")
        return _FAILED
    sys.stdout.write(answer["stdout"])
    sys.stderr.write(answer["stderr"])
    return int(answer["code"])


def _ask(words: list[str]) -> dict[str, Any] | None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    daemon: subprocess.Popen[bytes] | None = None
    while time.monotonic() < deadline:
        try:
            if line := _said(words):
                answer: dict[str, Any] = _json.make_scanner(_Plain)(line, 0)[0]  # type: ignore[arg-type]
                return answer
        except (FileNotFoundError, ConnectionError):
            pass
        if daemon is not None and daemon.poll():
            return None
        if daemon is None or daemon.returncode == 0:
            if os.stat(".").st_uid != os.geteuid():
                return None  # another user's emulator
            os.chmod(".", 0o700)
            daemon = _start()
        time.sleep(0.02)
    return None


class _Plain:
    """How json reads by default."""

    strict = True
    object_hook = object_pairs_hook = parse_constant = None
    parse_float, parse_int = float, int


def _said(words: list[str]) -> str:
    """The emulator's answer, a line of JSON; empty if it ended. Raises `ConnectionError`, `FileNotFoundError`."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.connect(_SOCKET)
        question = ", ".join(map(_json.encode_basestring_ascii, words))
        rest = f"[{question}]\n".encode()
        while rest:
            rest = rest[connection.send(rest) :]
        parts = [b""]
        while not parts[-1].endswith(b"\n"):
            if not (part := connection.recv(65536)):
                break
            parts.append(part)
        return b"".join(parts).decode()
    finally:
        connection.close()


def _start() -> subprocess.Popen[bytes]:
    """Start the emulator in its own session, so that it outlives this process."""
    import subprocess

    package_root = os.path.realpath(os.path.join(__file__, *[os.pardir] * 4))
    with open(_LOG, "ab") as log:
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
