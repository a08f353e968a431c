"""The network dies at random bytes of a download, as a script: `python -m tests.provisioning.cuts --runs 100`.

Each run offers a new release. One of the files that tq fetches is drawn, and a byte of it: there the server closes the
connection, once, or for good. tq must then have installed the new release by going on, or say that the network failed
and leave the old one as it is; with the network back, `apply` installs it, and fetches only what it did not have.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .place import Mac

FILES = ("stable.json", "stable.json.sig", "release.json", "release.json.sig", ".tar.gz")
PATIENCE_S = 3


@dataclass
class Network:
    """What happens to the connections, and how many bytes of content were sent."""

    name: str = ""
    """of the file at which it is cut; empty: at none"""
    at: int = 0
    for_good: bool = False
    dead: bool = False
    sent: int = 0


class _Handler(http.server.BaseHTTPRequestHandler):
    network: Network
    folder: Path

    def do_GET(self) -> None:
        """Send a file, or the rest of it, as far as the network lasts."""
        path = self.folder / self.path.lstrip("/")
        self.close_connection = True
        if self.network.dead:
            return
        if not path.is_file():
            self.send_error(404)
            return
        data, start = path.read_bytes(), 0
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = len(data)
        if self.network.name and path.name.endswith(self.network.name) and start <= self.network.at:
            end = self.network.at
            self.network.dead = self.network.for_good
            self.network.name = ""
        self.network.sent += end - start
        with contextlib.suppress(OSError):
            self.wfile.write(data[start:end])

    def log_message(self, *_arguments: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def serving(folder: Path, network: Network) -> Iterator[str]:
    """Serve a folder over a network; its URL."""
    handler = type("Handler", (_Handler,), {"network": network, "folder": folder})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.05))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def cut(mac: Mac, network: Network, draw: random.Random, number: int) -> tuple[str, str]:
    """One run: what was drawn and how it ended, and what is wrong about it."""
    before = mac.site.status()
    for old in mac.publisher.site.releases.glob("*"):
        if old.name not in before.releases:
            shutil.rmtree(old)
    new = mac.release(f"c{number}", number + 1, ballast=draw.randbytes(300_000))
    mac.publisher.promote(new)
    name = draw.choice(FILES)
    path = next(one for one in mac.publisher.site.folder.rglob("*") if one.name.endswith(name) and _is_of(one, new))
    network.name, network.at = name, draw.randrange(path.stat().st_size)
    network.for_good, network.dead = draw.random() < 0.6, False
    drawn = f"{name} at {network.at} of {path.stat().st_size}, {'for good' if network.for_good else 'once'}"
    said = mac.run("apply", TURBOQUANT_PATIENCE_S=str(PATIENCE_S))
    network.dead, network.name, network.sent = False, "", 0
    after = mac.site.status()
    wrong = []
    if said.code == 10:
        if after.active != new or not after.healthy:
            wrong.append(f"10, and {after.active} is active: {after.reason}")
    elif said.code in (0, 40):
        same = (before.active, before.pid, before.releases) == (after.active, after.pid, after.releases)
        if not (same and after.healthy):
            wrong.append(f"{said.code}, and not as before: {after}")
    else:
        wrong.append(f"ended with {said.code}")
    again = mac.run("apply")
    if again.code != (0 if said.code == 10 else 10) or mac.site.prefix.active() != new:
        wrong.append(f"the next apply ended with {again.code}: {again.log}")
    if name == ".tar.gz" and said.code == 40 and network.sent > path.stat().st_size - network.at + 100_000:
        wrong.append(f"the next apply fetched {network.sent} bytes again")
    return f"{drawn}: {said.code}, {again.code}", "; ".join(wrong) + (f"\n{said.log}" if wrong else "")


def _is_of(path: Path, release: str) -> bool:
    return path.parent.name in (release, "channels")


def main() -> int:
    """Run, print what was wrong and a summary; 1 if anything was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    ended: Counter[str] = Counter()
    bad, begun = 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cuts-") as folder:
        mac, network, draw = Mac.make(Path(folder)), Network(), random.Random(given.seed)
        try:
            with serving(mac.publisher.site.folder, network) as url:
                mac.want(channel_url=url)
                mac.publisher.promote(mac.release("first", 1))
                mac.run("apply", expect=10)
                for number in range(1, given.runs + 1):
                    done, wrong = cut(mac, network, draw, number)
                    ended[f"{done.partition(' at ')[0]}, {done.rpartition(', ')[0].rpartition(', ')[2]}"] += 1
                    bad += bool(wrong)
                    print(f"{number:>3} {'WRONG ' + wrong if wrong else 'ok'}  {done}", flush=True)  # noqa: T201
        finally:
            mac.close()
    for key, count in sorted(ended.items()):
        print(f"{count:>4}  {key}")  # noqa: T201
    print(f"{given.runs} cuts, {bad} wrong, {time.monotonic() - begun:.0f} s")  # noqa: T201
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
