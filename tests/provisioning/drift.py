"""Ten kinds of drift: what `tq status` says of each, and whether an `apply` repairs it and the next one changes nothing.

python -m tests.provisioning.drift [NAME...]     prints a table; 1 if one of them was not found or not repaired
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolchain.service.emulator.verbs import STOP_VERB

from .place import Mac, Said


@dataclass(frozen=True)
class Drift:
    """What is done to a Mac with releases 1 (older) and 2 (wanted), what status then calls it, and its exit code."""

    do: Callable[[Mac], object]
    what: str
    code: int = 20
    repaired: int = 10
    """how apply ends"""


def _edit(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


def _current(mac: Mac) -> Path:
    return mac.site.prefix.release(mac.site.prefix.active())


def _plist(mac: Mac) -> Path:
    return mac.site.emulator / "LaunchAgents/io.turboquant.ollama.plist"


def _relink(mac: Mac) -> None:
    older = next(path for path in mac.site.prefix.releases.iterdir() if path.name != mac.site.prefix.active())
    mac.site.prefix.current.unlink()
    mac.site.prefix.current.symlink_to(f"releases/{older.name}")


def _binary(mac: Mac) -> None:
    with (_current(mac) / "bin/ollama").open("ab") as file:
        file.write(b"\n# changed\n")


def _target(mac: Mac) -> str:
    return f"gui/{os.getuid()}/io.turboquant.ollama"


def _older_channel(mac: Mac) -> None:
    """The server offers an old statement again, with its own good signature."""
    statement = mac.publisher.promote(mac.site.prefix.active(), sequence=1)
    assert statement.sequence == 1


def _stopped(mac: Mac) -> None:
    """Its process is gone, and launchd does not start it again."""
    mac.site.launchctl("bootout", _target(mac))
    mac.site.until(lambda: mac.site.launchctl("print", _target(mac)).returncode != 0)


def _taken(mac: Mac) -> None:
    """Another program has the port."""
    _stopped(mac)
    program = mac.site.folder / "taker.py"
    program.write_text(
        "import socket, sys, time\n"
        f"s = socket.create_server(('127.0.0.1', {mac.site.config.deploy.port}))\n"
        "open(sys.argv[1], 'w').close()\n"
        "while True:\n    c, _ = s.accept(); c.recv(9999); c.sendall(b'HTTP/1.1 404 No\\r\\nContent-Length: 0\\r\\n\\r\\n'); c.close()\n"
    )
    ready = mac.site.folder / "taken"
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, str(program), str(ready)])
    (mac.site.folder / "taker.pid").write_text(str(pid))
    mac.site.until(ready.exists)


def _mask(mac: Mac) -> None:
    _edit(mac.prefix / "state.json", b'"active": "', b'"active": "0')


KINDS: dict[str, Drift] = {
    "environment edited": Drift(
        lambda mac: _edit(_current(mac) / "environment", b"ATTENTION=1", b"ATTENTION=0"), "environment"
    ),
    "binary changed": Drift(_binary, "files"),
    "plist edited": Drift(lambda mac: _edit(_plist(mac), b"<integer>10</integer>", b"<integer>11</integer>"), "plist"),
    "unloaded": Drift(_stopped, "service"),
    "shim edited": Drift(lambda mac: _edit(mac.site.prefix.shim, b"set -eu", b"set -u"), "shim"),
    "link changed": Drift(_relink, "release"),
    "models folder missing": Drift(
        lambda mac: Path(mac.site.config.deploy.models).rename(mac.site.folder / "m"), "models"
    ),
    "state damaged": Drift(_mask, "state.json"),
    "older channel": Drift(_older_channel, "channel", repaired=36),
    "port taken": Drift(_taken, "port", repaired=54),
}


def make(folder: Path) -> Mac:
    """A Mac on which release 2 runs, whose parent is 1."""
    mac = Mac.make(folder)
    for sequence, version in enumerate(("1", "2"), 1):
        mac.publisher.promote(mac.release(version, sequence))
        mac.run("apply", expect=10)
    mac.run("apply", expect=0)
    return mac


def find(mac: Mac, name: str) -> tuple[Said, Said, Said]:
    """What status says of a drift, how apply repairs it, and what the next apply does. What cannot be repaired is undone."""
    kind = KINDS[name]
    kind.do(mac)
    found = mac.run("status")
    repaired = mac.run("apply")
    if name == "older channel":
        mac.publisher.promote(mac.site.prefix.active(), sequence=mac.publisher.statements)
    if name == "port taken":
        os.kill(pid := int((mac.site.folder / "taker.pid").read_text()), signal.SIGKILL)
        os.waitpid(pid, 0)
        mac.run("apply", expect=10)
    return found, repaired, mac.run("apply")


def right(name: str, found: Said, repaired: Said, after: Said) -> bool:
    kind = KINDS[name]
    return (found.code, repaired.code, after.code) == (kind.code, kind.repaired, 0) and kind.what in found.what


def main(names: list[str]) -> int:
    """Make each of them, print what was said; how many were not as they should be."""
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="drift-") as folder:
        mac = make(Path(folder))
        try:
            print("| drift | status | apply | next apply | status says |\n|---|---|---|---|---|")  # noqa: T201
            for name in names or KINDS:
                begun = time.monotonic()
                found, repaired, after = find(mac, name)
                good = right(name, found, repaired, after)
                wrong += not good
                said = "; ".join(f"{one['what']}: {one['is'] or 'nothing'}" for one in found.json["changes"])
                bad = "" if good else f"  <-- WRONG {found.log} {repaired.log} {after.log}"
                print(  # noqa: T201
                    f"| {name} | {found.code} | {repaired.code} | {after.code} | {said[:150]}{bad} |"
                    f" {time.monotonic() - begun:.0f} s",
                    flush=True,
                )
        finally:
            mac.site.launchctl(STOP_VERB)
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
