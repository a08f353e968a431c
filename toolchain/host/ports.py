"""The listeners on a TCP port of this machine."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import psutil


def listeners(port: int, host: str = "") -> tuple[int, ...]:
    """Process ids of the listeners on a port, ascending; 0 for one that we have no permission to see.

    With `host`, only those that take the port from a server on that address: a listener on a wildcard does, although
    BSD lets both bind; one on another address does not.
    """
    addresses = _addresses(host)
    try:
        links = psutil.net_connections(kind="tcp")
        return tuple(sorted({link.pid or 0 for link in links if _listens(link, port, addresses)}))
    except psutil.AccessDenied:  # macOS shows all processes to root only
        return tuple(sorted(_visible(port, addresses)))


def free() -> int:
    """A port of 127.0.0.1 that nobody uses now. Raises `OSError` when there is none."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, host: str) -> bool:
    """Whether somebody accepts a connection on that address now."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def _visible(port: int, addresses: frozenset[str]) -> Iterator[int]:
    for process in psutil.process_iter():
        try:
            if any(_listens(link, port, addresses) for link in process.net_connections(kind="tcp")):
                yield process.pid
        except psutil.Error:
            continue


def _listens(link: Any, port: int, addresses: frozenset[str]) -> bool:
    if link.status != psutil.CONN_LISTEN or not link.laddr or link.laddr.port != port:
        return False
    return not addresses or any(_takes(link.laddr.ip, address) for address in addresses)


def _takes(listening: str, address: str) -> bool:
    """Whether a listener gets the connections to an address. One on [::] gets those over IPv4, too."""
    if _is_wildcard(listening):
        return ":" in listening or ":" not in address
    return _plain(listening) == address


def _addresses(host: str) -> frozenset[str]:
    """The addresses that a server on `host` listens on; empty for all, and for a name that nobody resolves."""
    bare = host.strip("[]")
    if not bare or _is_wildcard(bare):
        return frozenset()
    try:
        return frozenset({_plain(bare)})
    except ValueError:
        pass
    try:
        return frozenset(_plain(str(found[4][0])) for found in socket.getaddrinfo(bare, None))
    except (OSError, UnicodeError):
        return frozenset()


def _plain(address: str) -> str:
    """One spelling of an address; an IPv4 address as IPv6 has it is the IPv4 address."""
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def _is_wildcard(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return False
