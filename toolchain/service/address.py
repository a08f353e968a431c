"""Addresses that a server listens on, and the URLs to call it."""

from __future__ import annotations

import ipaddress
import socket

from ..core.errors import ConfigError


def reachable(host: str) -> str:
    """The address to call a server at that listens on `host`: the loopback for a wildcard."""
    bare = host.strip("[]")
    if bare in ("", "0.0.0.0"):  # noqa: S104  compared, not bound
        return "127.0.0.1"
    return "::1" if bare == "::" else bare


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    bare = host.strip("[]")
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost"


def check_local(host: str) -> None:
    """Check that a server can listen on `host`. Raises `ConfigError` for what is no address of this machine."""
    why = "it has no address"
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of more than 63 letters
        found, why = [], str(error)
    for family, kind, protocol, _, place in found:  # one is enough: localhost may have an address that is switched off
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(place)  # at any free port: works for addresses of this machine alone
                return
        except OSError as error:
            why = str(error)
    raise ConfigError(
        f"deploy.host: {host[:80]!r} is no address of this machine: {why}",
        hint="127.0.0.1, or 0.0.0.0 to be reachable from others",
    )


def bracketed(host: str) -> str:
    """`host` as written before a port: an IPv6 address in brackets."""
    bare = host.strip("[]")
    try:
        return f"[{bare}]" if ipaddress.ip_address(bare).version == 6 else bare
    except ValueError:
        return bare


def base_url(host: str, port: int | str) -> str:
    """The URL of a server that listens on `host` and `port`."""
    return f"http://{bracketed(reachable(host))}:{port}"
