"""Looks for other services on the port, before anything is changed."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace

import psutil

from ..core.config import DeployConfig
from ..core.errors import PortInUse, ServiceConflict
from ..host.ports import listeners
from ..service import address
from ..service.manager import Manager
from ..service.unit import Competitor


def check(manager: Manager, former: Manager | None, competitors: tuple[Competitor, ...], config: DeployConfig) -> None:
    """Raises `ServiceConflict` for a known competing service, `PortInUse` for any other listener.

    `former` is our own service under its previous registration.
    """
    ours = [manager, former] if former else [manager]
    for known in competitors:
        if (manager.kind, config.port) == (known.manager, known.port) and known.label != manager.registration.label:
            _refuse(manager.adopt(replace(manager.registration, label=known.label)), known)
    own = {state.pid for one in ours if (state := one.inspect()).running}
    hint = f"stop it, or set deploy.port to another port than {config.port}"
    for pid in listeners(config.port):
        if pid and not own & _lineage(pid):
            raise PortInUse(f"port {config.port} is taken by pid {pid} ({_program(pid)})", hint=hint)
    if not own and _taken(address.reachable(config.host), config.port):
        raise PortInUse(f"port {config.port} is taken by a process of another user", hint=hint)


def _refuse(other: Manager, known: Competitor) -> None:
    if (state := other.inspect()).loaded:
        running = f", pid {state.pid}" if state.pid else ""
        raise ServiceConflict(
            f"{known.name} is loaded ({other.target}{running}) and serves port {known.port} too",
            hint=f"{known.remedy}, or set deploy.port to another one",
        )


def _lineage(pid: int) -> set[int]:
    """A process and its ancestors."""
    try:
        return {pid, *(parent.pid for parent in psutil.Process(pid).parents())}
    except psutil.Error:
        return {pid}


def _program(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return " ".join(process.cmdline()[:3]) or process.name()
    except psutil.Error:
        return "unknown program"


def _taken(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
