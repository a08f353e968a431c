"""A connection to a host over SSH: by Fabric, with the host's key checked and a time limit on every step.

Fabric itself accepts any host key, reads no known_hosts, and follows ~/.ssh/config and ~/.fabric.yaml, which may name a
jump host whose key nobody checks. Here the inventory alone says how a host is reached.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import select
import shlex
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..core import extras
from ..core.deadline import Deadline
from ..core.delivery_errors import HostKeyRejected, InventoryInvalid
from ..core.printable import printable
from ..core.records import record
from .inventory import Host

_KEEPALIVE_S = 10
_SILENCE_MS = 30_000
"""after so long without an acknowledgement the connection counts as lost"""
_DARWIN_RXT_CONNDROPTIME = 0x80
_SLICE_S, _GRACE_S = 0.5, 1.0
_CHUNK, _MOST = 1 << 16, 4 << 20
"""bytes read at once, and kept at most of each stream"""


class Unreachable(Exception):
    """A host does not answer, refuses the login, or its connection broke. The text says which."""


class TimedOut(Exception):
    """A command took longer than it may. It may still run on the host."""


@record
class Answer:
    """A command's end. `code` is negative when a signal ended it."""

    code: int
    stdout: str
    stderr: str


class Remote:
    """The commands of one host, over one connection that opens at the first of them."""

    def __init__(self, host: Host, limit: Deadline, connect_s: float) -> None:
        self._host, self._limit, self._connect_s = host, limit, connect_s
        self._connection: Any = None

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the next command opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it may be broken already
                connection.close()

    def run(
        self,
        words: Sequence[str],
        *,
        given: bytes = b"",
        sudo: bool = False,
        timeout_s: float,
        on_line: Callable[[str], None] | None = None,
    ) -> Answer:
        """Run a program with `given` on its stdin; lines of its stderr go to `on_line` as they come.

        The host's login shell sees every word quoted. Raises `Unreachable`, `TimedOut`, `HostKeyRejected`.
        """
        words = ("sudo", "-n", "-H", *words) if sudo else words
        import paramiko

        try:
            return self._exchange(shlex.join(words), given, self._limit.within(timeout_s), on_line)
        except (paramiko.SSHException, OSError, EOFError) as error:
            self.close()
            raise Unreachable(f"the connection broke: {printable(str(error)) or type(error).__name__}") from error

    def _exchange(self, command: str, given: bytes, limit: Deadline, on_line: Callable[[str], None] | None) -> Answer:
        channel = self._opened().create_session()
        output, errors = bytearray(), _Lines(on_line)
        try:
            channel.settimeout(max(0.1, limit.left))
            channel.exec_command(command)
            channel.sendall(given)
            channel.shutdown_write()
            ended = 0.0
            while not (ended and time.monotonic() - ended > _GRACE_S):  # a service that it started may keep the streams
                if limit.passed:
                    raise TimedOut(f"no answer within {limit.seconds:.0f} s")
                select.select([channel], [], [], min(_SLICE_S, limit.left))
                while channel.recv_ready():
                    output += channel.recv(_CHUNK)[: _MOST - len(output)]
                while channel.recv_stderr_ready():
                    errors.add(channel.recv_stderr(_CHUNK))
                if channel.exit_status_ready() and not ended:
                    ended = time.monotonic()
                if (channel.eof_received or channel.closed) and not channel.recv_ready():
                    break
            if not channel.status_event.wait(min(_GRACE_S, limit.left)) or (
                channel.exit_status < 0 and not self._connection.transport.is_active()
            ):
                raise OSError("the host closed it")
            return Answer(
                code=int(channel.exit_status),
                stdout=output.decode(errors="replace"),
                stderr=errors.kept.decode(errors="replace"),
            )
        except TimeoutError as error:
            raise TimedOut(f"no answer within {limit.seconds:.0f} s") from error
        finally:
            channel.close()

    def _opened(self) -> Any:
        if self._connection is not None and self._connection.is_connected:
            return self._connection
        self.close()
        import paramiko

        connection = _connection(self._host, min(self._connect_s, max(1.0, self._limit.left)))
        try:
            connection.open()
        except HostKeyRejected:
            connection.client.close()
            raise
        except paramiko.BadHostKeyException as error:
            connection.client.close()
            raise _rejected(self._host, error.key) from error
        except paramiko.AuthenticationException as error:
            connection.client.close()
            raise Unreachable(f"login as {self._host.user} refused: {printable(str(error))}") from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            connection.client.close()
            first = next(iter(getattr(error, "errors", {}).values()), error)  # of several addresses of one name
            why = getattr(first, "strerror", "") or printable(str(first)) or type(first).__name__
            why = "no answer" if isinstance(first, TimeoutError) else why
            raise Unreachable(f"{self._host.address} port {self._host.port}: {why}") from error
        _notice_silence(connection.transport)
        self._connection = connection
        return connection


def _connection(host: Host, connect_s: float) -> Any:
    """Fabric's connection, which knows no more of this machine's configuration than its agent and keys."""
    extras.require("fleet", "a rollout")
    import fabric
    from paramiko import SSHConfig

    logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else it prints tracebacks of refused hosts
    login = {"key_filename": host.key, "look_for_keys": False, "allow_agent": False} if host.key else {}
    connection = fabric.Connection(
        host.address,
        user=host.user,
        port=host.port,
        connect_timeout=max(1, round(connect_s)),
        forward_agent=False,
        connect_kwargs={
            "banner_timeout": connect_s,
            "auth_timeout": connect_s,
            "channel_timeout": connect_s,
            **login,
        },
        config=fabric.Config(lazy=True, ssh_config=SSHConfig()),
    )
    connection.client.set_missing_host_key_policy(_Policy(host))
    if host.known_hosts:
        check_known_hosts(host)
        connection.client.load_system_host_keys(host.known_hosts)  # read only, unlike load_host_keys
    return connection


def check_known_hosts(host: Host) -> None:
    """Raise `InventoryInvalid` for a known_hosts that cannot be used: paramiko would pass over a revoked key's mark."""
    if not host.known_hosts:
        return
    try:
        lines = Path(host.known_hosts).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InventoryInvalid(f"{host.known_hosts}: {error.strerror}", hint="known_hosts names it") from error
    if any(line.startswith("@revoked") for line in lines):
        raise InventoryInvalid(
            f"{host.known_hosts}: @revoked is not understood here", hint="delete these lines, and those with their keys"
        )


class _Policy:
    """Called by paramiko for every key that known_hosts does not have, before anything is sent to log in."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def missing_host_key(self, _client: object, _name: str, key: Any) -> None:
        """Accept a key whose fingerprint the inventory states."""
        if fingerprint(key) not in self._host.fingerprints:
            raise _rejected(self._host, key)


def fingerprint(key: Any) -> str:
    """As `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _rejected(host: Host, key: Any) -> HostKeyRejected:
    stated = " or ".join(host.fingerprints) or f"what {host.known_hosts} has"
    return HostKeyRejected(
        f"{host.name} ({host.address} port {host.port}) answers with the key {key.get_name()} {fingerprint(key)}, "
        f"not with {stated}",
        hint="if the Mac was installed anew, read its key at its own screen: "
        "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
    )


def _notice_silence(transport: Any) -> None:
    """End the connection of a host that vanished, which TCP alone would notice after a quarter of an hour."""
    transport.set_keepalive(_KEEPALIVE_S)
    transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each command waits 40 ms for Nagle
    for option, value in (
        (getattr(socket, "TCP_USER_TIMEOUT", None), _SILENCE_MS),
        (_DARWIN_RXT_CONNDROPTIME if not hasattr(socket, "TCP_USER_TIMEOUT") else None, _SILENCE_MS // 1000),
    ):
        if option is not None:
            with suppress(OSError, AttributeError):
                transport.sock.setsockopt(socket.IPPROTO_TCP, option, value)


class _Lines:
    """The beginning of a stream, which is also passed on line by line."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line, self._part = on_line, b""
        self.kept = bytearray()

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        self.kept += data[: _MOST - len(self.kept)]
        if self._on_line:
            *lines, self._part = (self._part + data)[-_MOST:].split(b"\n")
            for line in lines:
                self._on_line(printable(line.decode(errors="replace")))
