"""What an installation is and does now, as `deploy.status` reports it."""

from __future__ import annotations

import os

from ..core.errors import ToolchainError, Unhealthy
from ..service.manager import ServiceState
from ..stages import Deployment, Edit
from . import crashloop, edits, installed, places, presence, processes, proof, several, shim
from .context import Deploy
from .places import Places


def look(deploy: Deploy) -> Deployment:
    """What is active, where it runs, and whether it is healthy. Raises `ManagerUnavailable`."""
    prefix = deploy.prefix
    known, active, found = installed.read(prefix), prefix.active(), places.look(deploy)
    if pending := crashloop.found(prefix, known):  # and not recorded, for want of space or rights
        active = pending.parent
    fallback = pending or known.fallback
    serving = presence.serving(found.instances, prefix)
    state = serving.state if serving else ServiceState(loaded=False)
    if not active and not found.instances and not known.releases:
        return presence.nothing(deploy, found)
    expected, version, reason = "", "", ""
    try:
        if active:
            unit = deploy.unit_of(active)
            expected, version = unit.version(deploy.manifest(active)), unit.ready(deploy.given(active))
        if not active:
            reason = f"no release is active{presence.loaded(found.instances)}"
        elif not state.running:
            reason = presence.not_running(deploy, state, version if version == expected else "")
        elif version != expected:
            reason = f"expected version {expected!r}, but {version!r} answers" if version else "it does not answer"
            reason += "" if version else _awaited(deploy, active)
        else:
            reason = _foreign(deploy, active, state.pid)
    except ToolchainError as error:
        reason = error.message
    if others := presence.of_others(found):
        deploy.console.warn(others)
        reason += f"; {others}" if reason else ""
    return Deployment(
        prefix=prefix.folder,
        active=active,
        parent=known.parent() if known.active == active else "",
        version=version,
        pid=state.pid,
        healthy=not reason,
        releases=tuple(one.id for one in known.releases),
        verified=bool(active) and proof.is_proven(prefix.release(active)),
        service=serving.manager.target if serving else "",
        also=tuple(one.manager.target for one in found.instances if one is not serving),
        reason=reason,
        fallback=crashloop.describe(fallback) if fallback and fallback.parent == active else "",
        edits=edits_of(deploy),
    )


def unhealthy(state: Deployment) -> Unhealthy | None:
    """What monitoring is told of a service that is not healthy or not installed; None of a healthy one."""
    if state.healthy:
        return None
    what = f"the service of release {state.active}" if state.active else str(state.prefix)
    return Unhealthy(f"{what}: {state.reason}", hint="./inv deploy.logs" if state.active else "./inv deploy.install")


def if_as_configured(found: Places) -> Deployment | None:
    """What `look` says if the active release is healthy and runs with the configured definition, and nowhere else."""
    deploy, prefix = found.deploy, found.deploy.prefix
    as_configured = (
        installed.read(prefix).active == prefix.active()
        and found.are_as_configured()
        and not found.others
        and not found.definitions
        and prefix.shim.is_file()
        and prefix.shim.read_bytes() == shim.render(prefix, deploy.manager, deploy.config.deploy)
    )
    state = look(deploy) if as_configured else None
    return state if state and state.healthy else None


def edits_of(deploy: Deploy) -> tuple[Edit, ...]:
    """What somebody changed by hand in the environment file, the file of presets and the definition."""
    definition = edits.of_definition(deploy.prefix, places.former(deploy) or deploy.manager, deploy.definition)
    return (*edits.of_environment(deploy.prefix), *several.edits(deploy.prefix), *definition)


def _foreign(deploy: Deploy, active: str, pid: int) -> str:
    """What the service's process runs, if it is no program of the active release, though the version is the same."""
    for process in processes.tree(pid)[:1]:
        if processes.is_foreign(process, deploy.prefix.release(active)):
            return f"{processes.describe(process)} serves, which is no program of {active}"
    return ""


def _awaited(deploy: Deploy, active: str) -> str:
    """What must exist before the shim starts the program, and does not."""
    values = deploy.given(active)
    missing = [path for name in deploy.unit_of(active).variables.paths if (path := values.get(name))]
    return "".join(f": it waits for {path}, which does not exist" for path in missing if not os.access(path, os.F_OK))
