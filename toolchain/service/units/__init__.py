"""Programs that can be the service, each in one file. What is chosen here is installed."""

from ...core.config import DeployConfig
from ..unit import Unit
from .ollama import OllamaUnit

__all__ = ["choose"]


def choose(_config: DeployConfig) -> Unit:
    """The program that the configuration makes the service."""
    return OllamaUnit()
