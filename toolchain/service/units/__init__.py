"""Programs that can be the service, each in one file.

`configured` is the one to install, `choose` that of an installed release: so a rollback brings the program back, too.
"""

from collections.abc import Mapping

from ...core.config import DeployConfig
from ...core.errors import ReleaseInvalid
from ...core.variables import SERVE
from ..unit import Unit
from .llama_server import LlamaServerUnit
from .ollama import OllamaUnit
from .router import ROUTER, RouterUnit

__all__ = ["ROUTER", "UNITS", "choose", "configured"]

_OLLAMA = OllamaUnit()
UNITS: Mapping[str, Unit] = {"ollama": _OLLAMA, "llama-server": LlamaServerUnit(), ROUTER: RouterUnit()}
"""by the value of the variable of a release's environment that states it"""


def configured(config: DeployConfig) -> Unit:
    """The program that the configuration makes the service."""
    return UNITS[ROUTER if config.serve == "llama-server" and len(config.serve_models) > 1 else config.serve]


def choose(environment: Mapping[str, str]) -> Unit:
    """The program that a release was installed as. Raises `ReleaseInvalid` for one that is unknown here.

    Earlier versions of this toolkit knew Ollama alone, whose environment does not state it.
    """
    stated = environment.get(SERVE, "ollama")
    if stated not in UNITS:
        known = " or ".join(UNITS)
        raise ReleaseInvalid(f"{SERVE}={stated}: not {known}", hint="install the release again")
    return UNITS[stated]
