"""The listeners on a TCP port of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil


def listeners(port: int) -> tuple[int, ...]:
    """Process ids of the listeners on a port, ascending; 0 for one that we have no permission to see."""
    try:
        return tuple(sorted({link.pid or 0 for link in psutil.net_connections(kind="tcp") if _listens(link, port)}))
    except psutil.AccessDenied:  # macOS shows all processes to root only
        return tuple(sorted(_visible(port)))


def _visible(port: int) -> Iterator[int]:
    for process in psutil.process_iter():
        try:
            if any(_listens(link, port) for link in process.net_connections(kind="tcp")):
                yield process.pid
        except psutil.Error:
            continue


def _listens(link: Any, port: int) -> bool:
    return bool(link.status == psutil.CONN_LISTEN and link.laddr and link.laddr.port == port)
