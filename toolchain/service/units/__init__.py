"""Programs that can be the service, each in one file. `choose` selects the one to install."""

from ...core.config import DeployConfig
from ..unit import Unit
from .ollama import OllamaUnit

__all__ = ["choose"]


def choose(_config: DeployConfig) -> Unit:
    """The program that the configuration makes the service."""
    return OllamaUnit()
