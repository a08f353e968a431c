"""llama-server as the service, with one model: the one in a release's lib/ollama, without Ollama. `router` has several.

All settings are variables of the environment file, so that a rollback restores them with the binary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...core import variables
from ...core.cachetypes import grammar
from ...core.config import DeployConfig
from ...core.deadline import Deadline
from ...core.errors import ConfigError, ServerFailed, Unhealthy
from ...core.printable import printable
from ...core.variables import CALIBRATION, SERVE
from ...proofs import CacheProof
from ...serving.llama_server import INFORMATIVE, LlamaServer
from ...stages import Release
from .. import address
from ..unit import CALL_TIMEOUT_S, NOTHING, Served, StartedUnit, UnitProof, Variables
from .further import further
from .ollama import OllamaUnit
from .supported import require_proof, require_server, require_types

TOKENS = 4
DEFAULT_PORT = 8080
_SETTLE_S = 3.0
"""how long a log line may come after its answer: llama-server logs from a separate thread"""
_POLL_S = 0.05

_VARIABLES = Variables(
    settings={
        SERVE: "deploy.serve",
        "LLAMA_ARG_HOST": "deploy.host",
        "LLAMA_ARG_PORT": "deploy.port",
        "LLAMA_ARG_MODEL": "deploy.serve_models",
        "LLAMA_ARG_ALIAS": "deploy.serve_models",
        "LLAMA_ARG_CTX_SIZE": "deploy.context",
        CALIBRATION: "deploy.calibration",
        "LLAMA_ARG_CACHE_TYPE_K": "deploy.kv_cache_type",
        "LLAMA_ARG_CACHE_TYPE_V": "deploy.kv_cache_type",
        "LLAMA_ARG_FLASH_ATTN": "deploy.kv_cache_type, which needs flash attention",
        "LLAMA_ARG_LOG_VERBOSITY": "",
        "LLAMA_ARG_OFFLINE": "",
        "LLAMA_API_KEY": "deploy.api_key_file",
        "LLAMA_ARG_API_KEY_FILE": "deploy.api_key_file",
    },
    prefix="LLAMA_ARG_",
    paths=("LLAMA_ARG_MODEL", "LLAMA_ARG_MMPROJ"),
    refused={
        **dict.fromkeys(
            (
                "LLAMA_ARG_AGENT",
                "LLAMA_ARG_MCP_SERVERS_CONFIG",
                "LLAMA_ARG_MCP_SERVERS_JSON",
                "LLAMA_ARG_TOOLS",
                "LLAMA_ARG_TOOLS_RUNTIME",
                "LLAMA_ARG_UI_MCP_PROXY",
            ),
            "lets whoever reaches the service run programs or reach other servers",
        ),
        **dict.fromkeys(
            (
                "LLAMA_ARG_DOCKER_REPO",
                "LLAMA_ARG_HF_FILE",
                "LLAMA_ARG_HF_REPO",
                "LLAMA_ARG_MODELS_DIR",
                "LLAMA_ARG_MODELS_PRESET",
                "LLAMA_ARG_MODEL_URL",
            ),
            "makes it serve another model than deploy.serve_models",
        ),
        **dict.fromkeys(
            ("LLAMA_ARG_API_PREFIX", "LLAMA_ARG_SSL_CERT_FILE", "LLAMA_ARG_SSL_KEY_FILE"),
            "moves it to where neither the health check nor a client finds it",
        ),
        "LLAMA_ARG_EMBEDDINGS": "keeps it from generating, which the health check requires",
        "LLAMA_ARG_RERANKING": "keeps it from generating, which the health check requires",
    },
)
_CLOSED = {
    "LLAMA_ARG_CORS_ORIGINS": "localhost",
    "LLAMA_ARG_ENDPOINT_SLOTS": "0",
    "LLAMA_ARG_UI": "0",
}
"""unless deploy.environment says otherwise: by default pages of every origin may read answers, /slots tells what others
ask, and the pages of the UI ask for no key"""
_ANOTHER_KEY, _HIDDEN_KEY = "(one with another API key)", "(one with an API key that you may not read)"


class LlamaServerUnit:
    """A `Unit` that serves the one model of `Served`, with deploy.context tokens; 0: the model's trained context."""

    name = "llama-server"
    program = ("lib/ollama/llama-server",)
    reminded_after_s = 1.0
    competitors = OllamaUnit.competitors
    variables = _VARIABLES

    def environment(self, release: Release, config: DeployConfig, served: Served = NOTHING) -> dict[str, str]:
        """llama-server's own variables for address, model, cache types and log, and further ones."""
        asked = grammar.parse(config.kv_cache_type)
        if not release.cache_types and asked.reach:
            raise ConfigError(
                f"deploy.kv_cache_type: {asked}: release {release.id} was built without the series",
                hint="a stock llama-server supports one type for all layers of K, and one for V",
            )
        require_server(release)
        require_types(release, asked)
        return {
            "LLAMA_ARG_HOST": config.host.strip("[]"),
            "LLAMA_ARG_PORT": str(config.port),
            **self._models(served),
            "LLAMA_ARG_CTX_SIZE": str(config.context),
            "LLAMA_ARG_CACHE_TYPE_K": str(asked.k),
            "LLAMA_ARG_CACHE_TYPE_V": str(asked.v),
            "LLAMA_ARG_FLASH_ATTN": "on",
            "LLAMA_ARG_LOG_VERBOSITY": INFORMATIVE,
            "LLAMA_ARG_OFFLINE": "1",
            **({"LLAMA_API_KEY": ",".join([*served.keys, served.keys[-1]])} if served.keys else {}),  # see `key_of`
            **_CLOSED,
            **further(config, self.variables),
        }

    def files(self, served: Served) -> Mapping[Path, str]:  # noqa: ARG002
        """None: the environment says it all."""
        return {}

    def _models(self, served: Served) -> dict[str, str]:
        """The variables that say what it serves."""
        if len(served.models) != 1:
            names = ", ".join(one.name for one in served.models) or "none"
            raise ConfigError(f"deploy.serve_models: llama-server serves one model, not {names}", hint="name one model")
        (model,) = served.models
        return {
            SERVE: "llama-server",
            "LLAMA_ARG_MODEL": str(model.file),
            **({"LLAMA_ARG_MMPROJ": str(model.projector)} if model.projector else {}),
            "LLAMA_ARG_ALIAS": model.name,
        }

    def _stated(self, environment: Mapping[str, str]) -> str:
        """The file that /props must state."""
        return environment.get("LLAMA_ARG_MODEL", "")

    def version(self, release: Release) -> str:
        """The build of llama.cpp: b10488."""
        return f"b{release.llama_cpp_build}"

    def url(self, environment: Mapping[str, str]) -> str:
        """By LLAMA_ARG_HOST and LLAMA_ARG_PORT."""
        host = environment.get("LLAMA_ARG_HOST", "127.0.0.1")
        return address.base_url(host, environment.get("LLAMA_ARG_PORT", str(DEFAULT_PORT)))

    def ready(self, environment: Mapping[str, str], timeout_s: float = CALL_TIMEOUT_S) -> str:
        """The build from /props, once /health reports the model as loaded; with the model, if it is another one."""
        key, asked = key_of(environment), self._stated(environment)
        try:
            found = LlamaServer(self.url(environment), Path(), timeout_s, Deadline(timeout_s), key=key).loaded()
        except ServerFailed:
            return ""
        if found is None or found.key_refused:
            return "" if not found else _HIDDEN_KEY if variables.is_masked(key) else _ANOTHER_KEY
        other = f"{found.build} with the model {printable(found.model)}, not {asked}"
        return found.build if found.model == asked else other

    def runners(self, environment: Mapping[str, str], deadline: Deadline) -> int:  # noqa: ARG002
        """None: it is one process."""
        return 0

    def proof(self, started: StartedUnit, deadline: Deadline) -> UnitProof:
        """Generate, and compare the cache lines, logged at the start, with the environment."""
        given = started.environment
        client = LlamaServer(self.url(given), started.log.parent, deadline.seconds, deadline, key=key_of(given))
        generate(client)
        return prove_caches(started, started.logged, deadline)


def key_of(environment: Mapping[str, str]) -> str:
    """An API key that the service takes; empty if it asks for none.

    The last one is in the list twice, since llama-server logs the end of a single key.
    """
    given = environment.get("LLAMA_API_KEY", "")
    return given if variables.is_masked(given) else given.partition(",")[0]


def generate(client: LlamaServer, model: str = "") -> None:
    """Generate some text, with that model of several. Raises `Unhealthy`."""
    body: dict[str, Any] = {"prompt": "a b c", "n_predict": TOKENS, "temperature": 0}
    body |= {"ignore_eos": True, "cache_prompt": False} | ({"model": model} if model else {})
    try:
        done = client.complete(body)
    except ServerFailed as error:
        raise Unhealthy(f"the release answers, but does not generate: {error.message}") from error
    if done.tokens_predicted != TOKENS:
        raise Unhealthy(f"the release generated {done.tokens_predicted} tokens of {TOKENS}")
    if not done.content:
        raise Unhealthy("the release generated no text")


def prove_caches(started: StartedUnit, logged: Callable[[], str], deadline: Deadline) -> UnitProof:
    """Compare the caches of one model, which `logged` states, with the environment. Raises `Unhealthy`."""
    from ...serving import cachelog  # slow to import (NumPy, gguf), and needed only here

    given = started.environment
    asked = f"{given.get('LLAMA_ARG_CACHE_TYPE_K', 'f16')}:{given.get('LLAMA_ARG_CACHE_TYPE_V', 'f16')}"
    waiting = deadline.within(_SETTLE_S)
    while not (stated := cachelog.stated(logged())) and not waiting.passed:
        time.sleep(_POLL_S)
    found: list[CacheProof] = list(dict.fromkeys(cache.proof for cache in stated))  # without repeats after a restart
    if reason := cachelog.mismatch(found, asked, sum(proof.layers for proof in found)) if found else "":
        raise Unhealthy(f"the service is configured for the cache types {asked}, but: {reason}: {found[0].line}")
    return UnitProof(
        lines=tuple(proof.line for proof in found), unproven="" if found else require_proof(asked, "at all", logged())
    )
