"""Hosts in network namespaces of their own, within namespaces of the test's own: nothing of the machine changes.

Needs root, unshare and nsenter (util-linux), and ip (iproute2). Every host has a link to the controller alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_INSIDE = "TURBOQUANT_TEST_NAMESPACE"


def missing() -> str:
    """Why there can be no namespaces here; empty: there can."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    absent = [tool for tool in ("unshare", "nsenter", "ip") if not shutil.which(tool)]
    return f"needs {', '.join(absent)}" if absent else ""


def enter() -> None:
    """Run this program again in new network and mount namespaces, unless it is in them."""
    if os.environ.get(_INSIDE) == str(os.stat("/proc/self/ns/net").st_ino):  # noqa: PTH116
        return
    inner = f'export {_INSIDE}=$(stat -L -c %i /proc/self/ns/net); ip link set lo up; exec "$@"'
    words = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", inner, "sh", sys.executable]
    os.execvp(words[0], [*words, *sys.orig_argv[1:]])


def run(*words: str | Path) -> None:
    """Run a tool of the system, which must end well."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"


@dataclass
class Namespace:
    """A network namespace, which lives as long as a process that sleeps in it."""

    number: int
    holder: subprocess.Popen[bytes]

    @classmethod
    def make(cls, number: int) -> Namespace:
        """The host has 10.77.N.2, the controller 10.77.N.1."""
        made = cls(number, subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL))
        own = Path("/proc/self/ns/net").stat().st_ino
        while Path(f"/proc/{made.pid}/ns/net").stat().st_ino == own:
            assert made.holder.poll() is None
        link = f"host{number}"
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(made.pid))
        run("ip", "address", "add", f"10.77.{number}.1/30", "dev", link)
        run("ip", "link", "set", link, "up")
        made.inside("ip", "link", "set", "lo", "up")
        made.inside("ip", "address", "add", f"{made.address}/30", "dev", "eth0")
        made.inside("ip", "link", "set", "eth0", "up")
        return made

    @property
    def pid(self) -> int:
        return self.holder.pid

    @property
    def address(self) -> str:
        return f"10.77.{self.number}.2"

    def inside(self, *words: str) -> None:
        """Run a tool in it."""
        run(*self.prefix, *words)

    @property
    def prefix(self) -> Sequence[str]:
        """Words before a command that is to run in it."""
        return "nsenter", "--target", str(self.pid), "--net"

    def silence(self, *, silent: bool = True) -> None:
        """Drop all that the host sends to the controller, as a host that was switched off does."""
        self.inside("ip", "route", "add" if silent else "del", "blackhole", f"10.77.{self.number}.1/32")

    def close(self) -> None:
        """End it; its links go with it."""
        self.holder.kill()
        self.holder.wait()
