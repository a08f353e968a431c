"""Looks for other services on the port, before anything is changed."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable
from dataclasses import replace

import psutil

from ..core.config import DeployConfig
from ..core.errors import ManagerUnavailable, PortInUse, ServiceConflict
from ..host.ports import answers, listeners
from ..service import address
from ..service.manager import Instance, Manager
from ..service.unit import Competitor
from . import processes
from .prefix import Prefix


def check(
    manager: Manager,
    instances: Iterable[Instance],
    competitors: tuple[Competitor, ...],
    config: DeployConfig,
    prefix: Prefix,
) -> None:
    """Raises `ServiceConflict` for a known competing service, `PortInUse` for any other listener.

    `instances` are all places where our own service is loaded.
    """
    for known in competitors:
        if config.port == known.port:
            _refuse(manager, known)
    own = {one.state.pid for one in instances if one.state.running}
    hint = f"stop it, or set deploy.port to another port than {config.port}"
    for pid in listeners(config.port, config.host):
        if pid and not own & lineage(pid):
            if _is_ours(pid, prefix):
                raise unlisted(pid, config.port, prefix)
            raise PortInUse(f"port {config.port} is taken by pid {pid} ({_program(pid)})", hint=hint)
    if not own and _taken(address.reachable(config.host), config.port):
        raise PortInUse(f"port {config.port} is taken by a process of another user", hint=hint)


def stray(config: DeployConfig, prefix: Prefix) -> int:
    """Pid of a listener on the port whose program is a release of this prefix; 0 without one."""
    return next((pid for pid in listeners(config.port, config.host) if pid and _is_ours(pid, prefix)), 0)


def unlisted(pid: int, port: int, prefix: Prefix) -> ManagerUnavailable:
    """The error for a process of ours that no manager knows."""
    return ManagerUnavailable(
        f"pid {pid} serves port {port} from {prefix.folder}, but the service is loaded in no place that can be asked",
        hint=f"log in as the user that installed it, or end it with `kill {pid}`; then try again",
    )


def _refuse(manager: Manager, known: Competitor) -> None:
    """Raises `ServiceConflict` if that service is loaded anywhere, or its program runs."""
    found = ""
    if manager.kind == known.manager and known.label != manager.registration.label:
        for one in manager.adopt(replace(manager.registration, label=known.label)).instances()[:1]:
            running = f", pid {one.state.pid}" if one.state.running else ""
            found = f"is loaded ({one.manager.target}{running})"
    if not found and known.program and (pid := _running(known.program)):
        found = f"is running (pid {pid})"
    if found:
        raise ServiceConflict(
            f"{known.name} {found} and serves port {known.port} too",
            hint=f"{known.remedy}, or set deploy.port to another one",
        )


def _running(part: str) -> int:
    """Pid of a process whose program has `part` in its path; 0 without one."""
    for process in psutil.process_iter(["exe", "cmdline"]):
        words = [process.info["exe"] or "", *(process.info["cmdline"] or ())[:1]]
        if any(part in word for word in words):
            return int(process.pid)
    return 0


def _is_ours(pid: int, prefix: Prefix) -> bool:
    """Whether a process, or one that started it, runs a program of a release in this prefix."""
    for one in lineage(pid):
        with contextlib.suppress(psutil.Error):
            if processes.runs_from(psutil.Process(one), processes.spellings(prefix.releases)):
                return True
    return False


def lineage(pid: int) -> set[int]:
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
    """Whether somebody whom we cannot see has the port. BSD allows a bind beside a wildcard: so we call, too."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return answers(port, host)
