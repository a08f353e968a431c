"""Where the service is, and what is said when it is nowhere: never that it is away while it answers."""

from __future__ import annotations

from ..service.manager import Instance, ServiceState
from ..stages import Deployment
from . import places, port, shim
from .context import Deploy
from .places import Places
from .prefix import Prefix


def nothing(deploy: Deploy, found: Places) -> Deployment:
    """What is left when there is neither a release nor a service."""
    left = [one.registration.file for one in found.definitions]
    if deploy.manager.digest() and places.owns_configured(deploy):
        left.insert(0, deploy.manager.registration.file)
    others = of_others(found)
    files = f"{', '.join(left)} would start the service at the next login; `./inv deploy.uninstall` deletes it"
    return Deployment(
        prefix=deploy.prefix.folder,
        active="",
        parent="",
        version="",
        pid=0,
        healthy=False,
        releases=(),
        reason=(f"no release is installed, but {files}" if left else "nothing is installed")
        + (f"; {others}" if others else ""),
    )


def of_others(found: Places) -> str:
    """That something else has the service's label, which is left alone; empty if nothing has."""
    told = "; ".join(found.foreign)
    return f"{told}, which is not of this prefix and is left alone" if told else ""


def serving(instances: tuple[Instance, ...], prefix: Prefix) -> Instance | None:
    """The instance that serves: a second one waits in the shim. Without a claim, one that runs."""
    holder = shim.holder(prefix)
    order = sorted(instances, key=lambda one: (not one.state.running, one.state.pid != holder))
    return order[0] if order else None


def loaded(instances: tuple[Instance, ...]) -> str:
    """Where it is loaded, and what it runs there."""
    return "".join(
        f"; {one.manager.target} is loaded{f', pid {one.state.pid}' if one.state.running else ''}"
        f"{f', and runs {one.state.program}' if one.state.program else ''}"
        for one in instances
    )


def not_running(deploy: Deploy, state: ServiceState, version: str) -> str:
    """Why, as far as the manager knows; `version` is the one that answers nevertheless."""
    if pid := port.stray(deploy.config.deploy, deploy.prefix):
        return port.unlisted(pid, deploy.config.deploy.port, deploy.prefix).message
    if version:
        return f"version {version} answers, but the service is loaded in no place that can be asked"
    end = f"; it ended with: {state.last_end}" if state.last_end else ""
    return f"the service is not running{end}" if state.loaded else "the service is not running: it is loaded nowhere"
