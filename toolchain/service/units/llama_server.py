"""llama-server as the service, with one model: the one in a release's lib/ollama, without Ollama.

All settings are variables of the environment file, so that a rollback restores them with the binary.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from ...core.cachetypes import grammar
from ...core.config import DeployConfig
from ...core.errors import ConfigError, ServerFailed, Unhealthy
from ...serving.llama_server import INFORMATIVE, LlamaServer
from ...stages import CacheProof, Release
from .. import address
from ..unit import Competitor, StartedUnit, UnitProof, Variables
from .further import further
from .supported import require_types

TOKENS = 4
_CALL_TIMEOUT_S = 5.0
_SETTLE_S = 3.0
"""how long a log line may come after its answer: llama-server logs from a separate thread"""
_POLL_S = 0.05

_VARIABLES = Variables(
    settings={
        "LLAMA_ARG_HOST": "deploy.host",
        "LLAMA_ARG_PORT": "deploy.port",
        "LLAMA_ARG_MODEL": "",
        "LLAMA_ARG_CTX_SIZE": "",
        "LLAMA_ARG_CACHE_TYPE_K": "deploy.kv_cache_type",
        "LLAMA_ARG_CACHE_TYPE_V": "deploy.kv_cache_type",
        "LLAMA_ARG_FLASH_ATTN": "deploy.kv_cache_type, which needs flash attention",
        "LLAMA_ARG_LOG_VERBOSITY": "",
    },
    paths=("LLAMA_ARG_MODEL",),
)


@dataclass(frozen=True, kw_only=True)
class LlamaServerUnit:
    """A `Unit` that serves the GGUF file `model`, with `context` tokens; 0: the model's trained context."""

    model: Path
    context: int = 0
    name: str = "llama-server"
    program: tuple[str, ...] = ("lib/ollama/llama-server",)
    log: str = "llama-server.log"
    competitors: tuple[Competitor, ...] = ()
    variables: Variables = _VARIABLES

    def environment(self, release: Release, config: DeployConfig) -> dict[str, str]:
        """llama-server's own variables for address, model, cache types and log, and further ones."""
        asked = grammar.parse(config.kv_cache_type)
        if not release.cache_types and asked.reach:
            raise ConfigError(
                f"deploy.kv_cache_type: {asked}: release {release.id} was built without the series",
                hint="a stock llama-server supports one type for all layers of K, and one for V",
            )
        require_types(release, asked)
        return {
            "LLAMA_ARG_HOST": config.host.strip("[]"),
            "LLAMA_ARG_PORT": str(config.port),
            "LLAMA_ARG_MODEL": str(self.model.expanduser().absolute()),
            "LLAMA_ARG_CTX_SIZE": str(self.context),
            "LLAMA_ARG_CACHE_TYPE_K": str(asked.k),
            "LLAMA_ARG_CACHE_TYPE_V": str(asked.v),
            "LLAMA_ARG_FLASH_ATTN": "on",
            "LLAMA_ARG_LOG_VERBOSITY": INFORMATIVE,
            **further(config, self.variables),
        }

    def version(self, release: Release) -> str:
        """The build of llama.cpp: b10488."""
        return f"b{release.llama_cpp_build}"

    def url(self, environment: Mapping[str, str]) -> str:
        """By LLAMA_ARG_HOST and LLAMA_ARG_PORT."""
        return address.base_url(environment["LLAMA_ARG_HOST"], environment["LLAMA_ARG_PORT"])

    def ready(self, environment: Mapping[str, str]) -> str:
        """The build from /props, once /health reports the model as loaded."""
        url = self.url(environment)
        if _get(f"{url}/health").get("status") != "ok":
            return ""
        return str(_get(f"{url}/props").get("build_info", "")).partition("-")[0]

    def proof(self, started: StartedUnit, timeout_s: float) -> UnitProof:
        """Generate, and compare the cache lines, logged at the start, with the environment."""
        asked = f"{started.environment['LLAMA_ARG_CACHE_TYPE_K']}:{started.environment['LLAMA_ARG_CACHE_TYPE_V']}"
        client = LlamaServer(self.url(started.environment), started.log.parent, timeout_s)
        body = {"prompt": "a b c", "n_predict": TOKENS, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        try:
            count = client.post("/completion", body).get("tokens_predicted")
        except ServerFailed as error:
            raise Unhealthy(f"the release answers, but does not generate: {error.message}") from error
        if count != TOKENS:
            raise Unhealthy(f"the release generated {count} tokens of {TOKENS}")
        return _prove_caches(started, asked)


def _prove_caches(started: StartedUnit, asked: str) -> UnitProof:
    from ...serving import cachelog  # slow to import (NumPy, gguf), and needed only here

    deadline = time.monotonic() + _SETTLE_S
    while not (stated := cachelog.stated(started.logged())) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    found: list[CacheProof] = list(dict.fromkeys(cache.proof for cache in stated))  # without repeats after a restart
    if reason := cachelog.mismatch(found, asked, sum(proof.layers for proof in found)) if found else "":
        raise Unhealthy(f"the service is configured for the cache types {asked}, but: {reason}: {found[0].line}")
    unproven = f"the log states no cache, so it is not proven that {asked} is in use"
    return UnitProof(lines=tuple(proof.line for proof in found), unproven="" if found else unproven)


def _get(url: str) -> dict[str, Any]:
    """The JSON object in the answer, with any status; empty if there is none."""
    try:
        with requests.Session() as session:
            session.trust_env = False  # never use a proxy for a local server
            found = session.get(url, timeout=_CALL_TIMEOUT_S).json()
    except (requests.RequestException, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
