"""What every step of a deploy works with."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..build import release as built
from ..core.config import Config
from ..core.console import Console
from ..core.errors import ReleaseInvalid
from ..service import units
from ..service.manager import Definition, Manager
from ..service.unit import Unit
from ..stages import Release
from . import environment, installed
from .journal import Journal
from .prefix import Prefix


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """The context of every step."""

    config: Config
    prefix: Prefix
    manager: Manager
    journal: Journal
    console: Console

    @property
    def log(self) -> Path:
        """stdout and stderr of the service."""
        return self.prefix.log

    @property
    def definition(self) -> Definition:
        """The service's definition. It changes only with the configuration, never with the release."""
        return Definition(program=self.prefix.shim, log=self.log)

    @property
    def unit(self) -> Unit:
        """The program of the active release; the configured one before there is any."""
        active = self.prefix.active()
        with contextlib.suppress(ReleaseInvalid):
            return self.unit_of(active) if active else units.configured(self.config.deploy)
        return units.choose({})

    def unit_of(self, identifier: str) -> Unit:
        """The program that an installed release was installed as. Raises `ReleaseInvalid`."""
        return units.choose(self.given(identifier))

    def given(self, identifier: str) -> Mapping[str, str]:
        """The variables of an installed release, with secrets masked for those who may not read its environment.

        Raises `ReleaseInvalid`.
        """
        try:
            return environment.read(self.prefix.release(identifier))
        except ReleaseInvalid as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            known = installed.read(self.prefix).find(identifier)
            if known and known.environment:
                return known.environment
            return units.choose({}).environment(self.manifest(identifier), self.config.deploy)  # of an earlier version

    def manifest(self, identifier: str) -> Release:
        """The manifest of an installed release."""
        return built.load(self.prefix.release(identifier))
