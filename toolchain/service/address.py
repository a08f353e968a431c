"""Addresses that a server listens on, and the URLs to call it."""

from __future__ import annotations

import ipaddress


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
