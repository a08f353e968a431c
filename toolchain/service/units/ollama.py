"""Ollama as the service: `ollama serve`, checked by its version and by generating with a small random model."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from ...core import temporary
from ...core.cachetypes import grammar
from ...core.config import DeployConfig
from ...core.errors import ConfigError, ServerFailed, ToolchainError, Unhealthy
from ...serving.ollama import DEFAULT_PORT, OllamaClient
from ...stages import Release
from .. import address, model_store
from ..unit import Competitor, StartedUnit, UnitProof, Variables
from .further import further
from .supported import require_types

PROBE_NAME = "turboquant-probe"
PROBE_TOKENS = 4
_LAYERS = 2
_SIZES = {"head_size": 128, "heads": 2, "kv_heads": 1, "context": 512}
_CELLS = 256
"""requested context: a multiple of llama.cpp's padding, so that the log states the same number"""
_CALL_TIMEOUT_S = 5.0

_VARIABLES = Variables(
    settings={
        "OLLAMA_HOST": "deploy.host and deploy.port",
        "OLLAMA_KV_CACHE_TYPE": "deploy.kv_cache_type",
        "OLLAMA_FLASH_ATTENTION": "deploy.kv_cache_type, which needs flash attention",
        "OLLAMA_MODELS": "deploy.models",
        "LLAMA_ARG_CACHE_TYPE_K": "deploy.kv_cache_type",
        "LLAMA_ARG_CACHE_TYPE_V": "deploy.kv_cache_type",
        "LLAMA_ARG_FLASH_ATTN": "deploy.kv_cache_type, which needs flash attention",
        "LLAMA_ARG_HOST": "",
        "LLAMA_ARG_PORT": "",
        "LLAMA_ARG_MODEL": "",
    },
    kinds={
        **dict.fromkeys(("OLLAMA_KEEP_ALIVE", "OLLAMA_LOAD_TIMEOUT"), "duration"),
        **dict.fromkeys(
            (
                "OLLAMA_CONTEXT_LENGTH",
                "OLLAMA_GPU_OVERHEAD",
                "OLLAMA_MAX_LOADED_MODELS",
                "OLLAMA_MAX_QUEUE",
                "OLLAMA_MAX_TRANSFER_STREAMS",
                "OLLAMA_NUM_PARALLEL",
            ),
            "number",
        ),
        **dict.fromkeys(
            (
                "OLLAMA_AUTH",
                "OLLAMA_DEBUG_LOG_REQUESTS",
                "OLLAMA_GO_TEMPLATE",
                "OLLAMA_IGPU_ENABLE",
                "OLLAMA_NOHISTORY",
                "OLLAMA_NOPRUNE",
                "OLLAMA_NO_CLOUD",
                "OLLAMA_SCHED_SPREAD",
                "OLLAMA_VULKAN",
            ),
            "switch",
        ),
        "OLLAMA_DEBUG": "level",
        "OLLAMA_ORIGINS": "origins",
        **dict.fromkeys(
            (
                "OLLAMA_API_KEY",
                "OLLAMA_CLOUD_BASE_URL",
                "OLLAMA_EDITOR",
                "OLLAMA_EXPERIMENT",
                "OLLAMA_LIBRARY_PATH",
                "OLLAMA_LLM_LIBRARY",
                "OLLAMA_REMOTES",
            ),
            "text",
        ),
    },
    prefix="OLLAMA_",
    paths=("OLLAMA_MODELS",),
)
"""Ollama's own, as of v0.33; it takes its default for a value that it cannot read, without a word"""


class OllamaUnit:
    """A `Unit`. Its cache type is proven by llama-server's own line in the log: no API of Ollama shows it."""

    name = "Ollama"
    program = ("bin/ollama", "serve")
    log = "ollama.log"
    variables = _VARIABLES
    competitors = (
        Competitor(
            manager="launchd",
            label="com.ollama.ollama",
            name="Ollama.app",
            port=DEFAULT_PORT,
            remedy="quit it from the menu bar and remove it from the login items",
            program="/Ollama.app/",
        ),
        Competitor(
            manager="launchd",
            label="homebrew.mxcl.ollama",
            name="Homebrew's Ollama",
            port=DEFAULT_PORT,
            remedy="`brew services stop ollama`",
        ),
    )

    def environment(self, release: Release, config: DeployConfig) -> dict[str, str]:
        """OLLAMA_HOST, the cache type with flash attention, the model store, if one is set, and further ones."""
        asked = grammar.parse(config.kv_cache_type)
        if not release.cache_types and (asked.k != asked.v or asked.reach):
            raise ConfigError(
                f"deploy.kv_cache_type: {asked}: release {release.id} was built without the series",
                hint="stock Ollama supports one type for K and V and all layers",
            )
        require_types(release, asked)
        values = {
            "OLLAMA_HOST": f"{address.bracketed(config.host)}:{config.port}",
            "OLLAMA_KV_CACHE_TYPE": config.kv_cache_type,
            "OLLAMA_FLASH_ATTENTION": "1",
        }
        if config.models:
            values["OLLAMA_MODELS"] = str(model_store.named(config))
        return values | further(config, self.variables)

    def version(self, release: Release) -> str:
        """The version that it was built with."""
        return release.version

    def url(self, environment: Mapping[str, str]) -> str:
        """By OLLAMA_HOST."""
        host, _, port = environment.get("OLLAMA_HOST", f"127.0.0.1:{DEFAULT_PORT}").rpartition(":")
        return address.base_url(host, port)

    def ready(self, environment: Mapping[str, str]) -> str:
        """The version from /api/version."""
        try:
            return OllamaClient(self.url(environment), timeout=_CALL_TIMEOUT_S).version()
        except ServerFailed:
            return ""

    def proof(self, started: StartedUnit, timeout_s: float) -> UnitProof:
        """Generate with a probe model that has enough layers for every rule of the cache type."""
        asked = started.environment["OLLAMA_KV_CACHE_TYPE"]
        layers = max(_LAYERS, grammar.parse(asked).reach)
        offset = started.log_size()
        _generate(OllamaClient(self.url(started.environment), timeout=timeout_s), layers, started.temporary)
        return _prove_cache(started.logged(offset), asked, layers, started.release)


def _generate(client: OllamaClient, layers: int, within: Path | None) -> None:
    from ...serving.probe_model import write_probe  # slow to import (NumPy, gguf), and needed only here

    try:
        with temporary.folder("probe", within) as folder:
            path = folder / f"{PROBE_NAME}.gguf"
            write_probe(path, **_SIZES, layers=layers, seed=1)
            try:
                client.create_from_gguf(PROBE_NAME, path)
                done = client.generate(PROBE_NAME, "a b c", PROBE_TOKENS, {"num_ctx": _CELLS}, keep_alive=0)
            finally:
                with contextlib.suppress(ToolchainError):
                    client.delete(PROBE_NAME)
    except ToolchainError as error:
        raise Unhealthy(f"the release answers, but does not generate: {error.message}") from error
    if done.eval_count < PROBE_TOKENS:
        raise Unhealthy(f"the release generated {done.eval_count} tokens of {PROBE_TOKENS}")


def _prove_cache(logged: str, asked: str, layers: int, release: Release) -> UnitProof:
    """Compare llama-server's line on the probe's cache with the environment.

    Lines on other models, which clients may load meanwhile, are skipped: a draft model's cache may be f16.
    """
    from ...serving import cachelog
    from ...serving.probe_model import ProbeGeometry

    geometry = ProbeGeometry(**_SIZES, layers=layers)
    found = [
        cache.proof
        for cache in cachelog.caches(logged, geometry, release.cache_types)
        if (cache.proof.layers, cache.proof.cells) == (layers, _CELLS)
    ]
    for proof in found:
        if reason := cachelog.mismatch([proof], asked, layers):
            raise Unhealthy(f"the service is configured for the cache type {asked}, but: {reason}: {proof.line}")
    unproven = f"the log states no cache of the probe model, so it is not proven that {asked} is in use"
    return UnitProof(lines=tuple(proof.line for proof in found), unproven="" if found else unproven)
