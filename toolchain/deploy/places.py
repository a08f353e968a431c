"""Where something is loaded or defined under the service's label, and which of it is this prefix's own service."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ..core import records
from ..core.errors import ConfigError, ServiceConflict
from ..service import managers
from ..service.manager import Instance, Manager
from . import installed
from .context import Deploy
from .prefix import SHIM_NAME


@dataclass(frozen=True, kw_only=True)
class Places:
    """What one look found: what is `loaded` under the label, as configured and as registered, whatever it runs.

    After a change of what is loaded, look again.
    """

    deploy: Deploy
    loaded: tuple[Instance, ...]

    @cached_property
    def instances(self) -> tuple[Instance, ...]:
        """Every place where this prefix's service is loaded."""
        return tuple(one for one in self.loaded if _is_ours(self.deploy, one.state.program))

    @property
    def others(self) -> tuple[Instance, ...]:
        """Those that are not the configured place: loaded by a login, or by an earlier configuration."""
        return tuple(one for one in self.instances if not _is_at(one, self.deploy.manager))

    @cached_property
    def _defined(self) -> tuple[Manager, ...]:
        """Every definition file of the label, as the service that it defines, whatever it runs."""
        found = {
            file.resolve(): one.adopt(replace(one.registration, file=str(file)))
            for one in (self.deploy.manager, former(self.deploy))
            if one
            for file in one.definitions()
        }
        return tuple(found.values())

    @cached_property
    def definitions(self) -> tuple[Manager, ...]:
        """Every definition file of this prefix's service but the configured one, as the service that it defines."""
        own = _file(self.deploy.manager).resolve()
        return tuple(one for one in self._defined if _file(one).resolve() != own and _is_ours(self.deploy, _runs(one)))

    @property
    def foreign(self) -> dict[str, str]:
        """What has the label and is not this prefix's service: what is said of it, with its program."""
        found = {f"{one.manager.target} is loaded and": one.state.program for one in self.loaded}
        found |= {str(_file(one)): _runs(one) for one in self._defined}
        return {f"{what} runs {runs}": runs for what, runs in found.items() if not _is_ours(self.deploy, runs)}

    def check_label(self) -> None:
        """Raises `ServiceConflict` when the label belongs to another service, as to that of another prefix."""
        if not (found := self.foreign):
            return
        program = Path(next(iter(found.values())))
        removal = "remove it"
        if program.name == SHIM_NAME:
            removal = f"remove it with --set deploy.prefix={shlex.quote(str(program.parents[1]))} deploy.uninstall"
        raise ServiceConflict(
            f"the label belongs to another service: {'; '.join(found)}, not {self.deploy.prefix.shim}",
            hint=f"set deploy.label to another one, or {removal}",
        )

    def require_rights(self) -> None:
        """Raises `ConfigError` when the caller may not change all that an operation would change."""
        loaded = tuple(one.manager for one in self.instances)
        for one in (self.deploy.manager, *loaded, *self.definitions):
            one.require_rights()

    def are_as_configured(self) -> bool:
        """Whether the definition is installed and loaded, so that nothing new is asked of the manager."""
        manager, known = self.deploy.manager, installed.read(self.deploy.prefix)
        wanted = records.sha256_bytes(manager.render(self.deploy.definition))
        if former(self.deploy) or not manager.digest() == wanted == known.unit_sha256:
            return False
        return any(_is_at(one, manager) for one in self.instances)

    def leave_only(self, manager: Manager) -> None:
        """Unload the service wherever it is loaded, but for the place of `manager`."""
        for one in self.instances:
            if not _is_at(one, manager):
                self.deploy.console.note(f"{one.manager.target} is replaced by {manager.target}")
                one.manager.unload()


def look(deploy: Deploy) -> Places:
    """Ask the managers. Raises `ManagerUnavailable` when none of the domains can be asked."""
    old = former(deploy)
    found = (*deploy.manager.instances(), *(old.instances() if old else ()))
    return Places(deploy=deploy, loaded=tuple({one.place: one for one in reversed(found)}.values())[::-1])


def former(deploy: Deploy, state: installed.InstallState | None = None) -> Manager | None:
    """The service as it was registered, if it is configured otherwise now: label, domain, file or manager.

    `state` is the one to look at instead of the present one.
    """
    known, ours = (state or installed.read(deploy.prefix)).registration(), deploy.manager.registration
    if not known or known == replace(ours, manager=known.manager and ours.manager):
        return None
    try:
        return managers.registered(known, deploy.config.deploy, deploy.prefix.folder)
    except ConfigError:
        return None  # a manager that this machine does not have


def owns_configured(deploy: Deploy) -> bool:
    """Whether the configured definition file, if there is one, is not another service's."""
    return _is_ours(deploy, _runs(deploy.manager))


def delete_configured(deploy: Deploy) -> None:
    """Delete the configured definition file, unless it is another service's."""
    if owns_configured(deploy):
        deploy.manager.delete()


def _is_ours(deploy: Deploy, program: str) -> bool:
    """Whether a program is the shim, or one that a manager does not tell, so that nothing contradicts it."""
    return not program or os.path.realpath(program) == os.path.realpath(deploy.prefix.shim)


def _is_at(one: Instance, manager: Manager) -> bool:
    return one.place == (manager.registration.manager, manager.target)


def _file(one: Manager) -> Path:
    return Path(one.registration.file)


def _runs(one: Manager) -> str:
    return one.runs(_file(one))
