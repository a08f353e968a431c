"""llama-server as the service, with one model: the one in a release's lib/ollama, without Ollama.

All settings are variables of the environment file, so that a rollback restores them with the binary.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...core.cachetypes import grammar
from ...core.config import DeployConfig
from ...core.deadline import Deadline
from ...core.errors import ConfigError, ServerFailed, Unhealthy
from ...serving.llama_server import INFORMATIVE, LlamaServer
from ...stages import CacheProof, Release
from .. import address
from ..unit import CALL_TIMEOUT_S, Competitor, StartedUnit, UnitProof, Variables
from .further import further
from .supported import require_proof, require_types

TOKENS = 4
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

    def ready(self, environment: Mapping[str, str], timeout_s: float = CALL_TIMEOUT_S) -> str:
        """The build from /props, once /health reports the model as loaded."""
        try:
            return LlamaServer(self.url(environment), Path(), timeout_s, Deadline(timeout_s)).build()
        except ServerFailed:
            return ""

    def runners(self, environment: Mapping[str, str], deadline: Deadline) -> int:  # noqa: ARG002
        """None: it is one process."""
        return 0

    def proof(self, started: StartedUnit, deadline: Deadline) -> UnitProof:
        """Generate, and compare the cache lines, logged at the start, with the environment."""
        asked = f"{started.environment['LLAMA_ARG_CACHE_TYPE_K']}:{started.environment['LLAMA_ARG_CACHE_TYPE_V']}"
        client = LlamaServer(self.url(started.environment), started.log.parent, deadline.seconds, deadline)
        body = {"prompt": "a b c", "n_predict": TOKENS, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        try:
            done = client.complete(body)
        except ServerFailed as error:
            raise Unhealthy(f"the release answers, but does not generate: {error.message}") from error
        if done.tokens_predicted != TOKENS:
            raise Unhealthy(f"the release generated {done.tokens_predicted} tokens of {TOKENS}")
        if not done.content:
            raise Unhealthy("the release generated no text")
        return _prove_caches(started, asked, deadline)


def _prove_caches(started: StartedUnit, asked: str, deadline: Deadline) -> UnitProof:
    from ...serving import cachelog  # slow to import (NumPy, gguf), and needed only here

    waiting = deadline.within(_SETTLE_S)
    while not (stated := cachelog.stated(started.logged())) and not waiting.passed:
        time.sleep(_POLL_S)
    found: list[CacheProof] = list(dict.fromkeys(cache.proof for cache in stated))  # without repeats after a restart
    if reason := cachelog.mismatch(found, asked, sum(proof.layers for proof in found)) if found else "":
        raise Unhealthy(f"the service is configured for the cache types {asked}, but: {reason}: {found[0].line}")
    return UnitProof(
        lines=tuple(proof.line for proof in found), unproven="" if found else require_proof(asked, "at all")
    )
