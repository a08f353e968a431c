"""Who else would fight over the port: looked for before anything is changed."""

from __future__ import annotations

import errno
import socket

import psutil

from ..core.config import DeployConfig
from ..core.errors import PortInUse, ServiceConflict
from ..host.ports import OLLAMA_PORT, listeners
from . import environment
from .service import Service

_OTHERS = {
    "com.ollama.ollama": ("Ollama.app", "quit it from the menu bar and remove it from the login items"),
    "homebrew.mxcl.ollama": ("Homebrew's Ollama", "`brew services stop ollama`"),
}


def check(service: Service, former: Service | None, config: DeployConfig) -> None:
    """Raises `ServiceConflict` for another Ollama service on the same port, `PortInUse` for any other listener.

    `former` is our own service under the label that it had before.
    """
    ours = [service, former] if former else [service]
    if config.port == OLLAMA_PORT:
        for label, (name, remedy) in _OTHERS.items():
            if label != service.label and (state := service.inspect(label)).loaded:
                running = f", pid {state.pid}" if state.pid else ""
                raise ServiceConflict(
                    f"{name} is loaded ({service.domain}/{label}{running}) and serves port {config.port} too",
                    hint=f"{remedy}, or set deploy.port to another one",
                )
    own = {state.pid for one in ours if (state := one.inspect()).running}
    hint = f"stop it, or set deploy.port to another port than {config.port}"
    for pid in listeners(config.port):
        if pid and not own & _lineage(pid):
            raise PortInUse(f"port {config.port} is taken by pid {pid} ({_program(pid)})", hint=hint)
    if not own and _taken(environment.reachable(config.host), config.port):
        raise PortInUse(f"port {config.port} is taken by a process of another user", hint=hint)


def _lineage(pid: int) -> set[int]:
    """A process and those that started it."""
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
