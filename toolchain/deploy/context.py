"""What every step of a deploy works with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..build import release as built
from ..core.config import Config
from ..core.console import Console
from ..service.manager import Definition, Manager
from ..service.unit import Unit
from ..stages import Release
from .journal import Journal
from .prefix import Prefix


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """The context of every step."""

    config: Config
    prefix: Prefix
    manager: Manager
    unit: Unit
    journal: Journal
    console: Console

    @property
    def log(self) -> Path:
        """stdout and stderr of the service."""
        return self.prefix.logs / self.unit.log

    @property
    def definition(self) -> Definition:
        """The service's definition. It changes only with the configuration, never with the release."""
        return Definition(program=self.prefix.shim, log=self.log)

    def manifest(self, identifier: str) -> Release:
        """The manifest of an installed release."""
        return built.load(self.prefix.release(identifier))
