"""Ollama as the service: `ollama serve`, checked by its version and by generating with a small random model."""

from __future__ import annotations

import contextlib
import errno
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...core import temporary
from ...core.cachetypes import grammar
from ...core.config import DeployConfig
from ...core.deadline import Deadline
from ...core.errors import ConfigError, DiskFull, ModelLoadFailed, ServerFailed, ToolchainError, Unhealthy
from ...core.printable import printable
from ...core.records import record
from ...core.variables import CALIBRATION, SERVE
from ...serving.ollama import DEFAULT_PORT, OllamaClient
from ...stages import Release
from .. import address, model_store
from ..unit import CALL_TIMEOUT_S, NOTHING, Competitor, Served, StartedUnit, UnitProof, Variables
from .further import further
from .supported import require_proof, require_types

if TYPE_CHECKING:
    from ...serving.probe_model import ProbeGeometry

PROBE_NAME = "turboquant-probe"
PROBE_TOKENS = 4
_LAYERS = 2
_MORE_LAYERS = 4
_SIZES = {"head_size": 128, "heads": 2, "kv_heads": 1, "context": 2048}
_CELLS = 256
"""the requested context is a multiple of llama.cpp's padding, so that the log states the same number"""
_CLEANUP_S = 1.0
_SETTLE_S = 3.0
"""how long a log line may come after its answer: llama-server logs from a separate thread"""
_POLL_S = 0.05

_VARIABLES = Variables(
    settings={
        SERVE: "deploy.serve",
        "OLLAMA_HOST": "deploy.host and deploy.port",
        "OLLAMA_KV_CACHE_TYPE": "deploy.kv_cache_type",
        "OLLAMA_FLASH_ATTENTION": "deploy.kv_cache_type, which needs flash attention",
        "OLLAMA_MODELS": "deploy.models",
        CALIBRATION: "deploy.calibration",
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
    reminded_after_s = 0.0
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
        Competitor(
            manager="systemd",
            label="ollama",
            name="the service of Ollama's installer",
            port=DEFAULT_PORT,
            remedy="`sudo systemctl stop ollama`, and `sudo systemctl disable ollama` for the next boot",
        ),
    )

    def environment(self, release: Release, config: DeployConfig, served: Served = NOTHING) -> dict[str, str]:  # noqa: ARG002
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

    def files(self, served: Served) -> Mapping[Path, str]:  # noqa: ARG002
        """None: the environment says it all."""
        return {}

    def version(self, release: Release) -> str:
        """The version that it was built with."""
        return release.version

    def url(self, environment: Mapping[str, str]) -> str:
        """By OLLAMA_HOST."""
        host, _, port = environment.get("OLLAMA_HOST", f"127.0.0.1:{DEFAULT_PORT}").rpartition(":")
        return address.base_url(host, port)

    def ready(self, environment: Mapping[str, str], timeout_s: float = CALL_TIMEOUT_S) -> str:
        """The version from /api/version."""
        try:
            return OllamaClient(self.url(environment), timeout=timeout_s).version()
        except ServerFailed:
            return ""

    def runners(self, environment: Mapping[str, str], deadline: Deadline) -> int:
        """Those of the models in /api/ps."""
        return OllamaClient(self.url(environment), CALL_TIMEOUT_S, deadline).loaded()

    def proof(self, started: StartedUnit, deadline: Deadline) -> UnitProof:
        """Generate with a probe model that has enough layers for every rule of the cache type.

        Its sizes are drawn by lot, so that no line of the log fits that was not written for this very probe.
        """
        from ...serving.probe_model import ProbeGeometry  # slow to import (NumPy, gguf), and needed only here

        asked = started.environment["OLLAMA_KV_CACHE_TYPE"]
        layers = max(_LAYERS, grammar.parse(asked).reach) + secrets.randbelow(_MORE_LAYERS)
        probe = _Probe(
            geometry=ProbeGeometry(**_SIZES, layers=layers),
            cells=_CELLS * (1 + secrets.randbelow(_SIZES["context"] // _CELLS)),
            sequences=_number(started.environment.get("OLLAMA_NUM_PARALLEL", "")),
        )
        offset = _generate(self.url(started.environment), probe, started, deadline)
        return _prove_cache(started, offset, asked, probe, deadline)


@record
class _Probe:
    """A probe model's sizes, the context that is asked for, and how many sequences its cache may hold."""

    geometry: ProbeGeometry
    cells: int
    sequences: int


def _generate(url: str, probe: _Probe, started: StartedUnit, deadline: Deadline) -> int:
    """The size of the log right before the generation."""
    from ...serving.probe_model import write_probe

    client = OllamaClient(url, deadline.seconds, deadline)
    try:
        with temporary.folder("probe", started.temporary) as folder:
            path = folder / f"{PROBE_NAME}.gguf"
            write_probe(path, **_SIZES, layers=probe.geometry.layers, seed=1)
            try:
                client.create_from_gguf(PROBE_NAME, path)
                offset = started.log_size()
                done = client.generate(PROBE_NAME, "a b c", PROBE_TOKENS, {"num_ctx": probe.cells}, keep_alive=0)
            finally:
                with contextlib.suppress(ToolchainError):
                    OllamaClient(url, _CLEANUP_S).delete(PROBE_NAME)
    except (ServerFailed, ModelLoadFailed) as error:
        raise Unhealthy(f"the release answers, but does not generate: {error.message}") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, None):  # None: NumPy, of a file that it wrote in part
            raise
        raise DiskFull(f"{temporary.home()}: no space for the probe model", hint="free some space") from error
    if done.eval_count < PROBE_TOKENS:
        raise Unhealthy(f"the release generated {done.eval_count} tokens of {PROBE_TOKENS}")
    if not (done.text.isascii() and done.text.isalnum()):  # all that the probe model can say
        raise Unhealthy(f"the release generated {printable(done.text, 40)!r}, which is no text of the probe model")
    return offset


def _prove_cache(started: StartedUnit, offset: int, asked: str, probe: _Probe, deadline: Deadline) -> UnitProof:
    """Compare llama-server's line on the probe's cache with the environment.

    Lines on other models, which clients may load meanwhile, are skipped: a draft model's cache may be f16.
    """
    from ...serving import cachelog

    waiting = deadline.within(_SETTLE_S)
    while True:
        found = [
            cache
            for cache in cachelog.caches(started.logged(offset), probe.geometry, started.release.cache_types)
            if cache.proof.layers == probe.geometry.layers
            and cache.proof.cells in {probe.cells, probe.cells * probe.sequences}
        ]
        if found or waiting.passed:
            break
        time.sleep(_POLL_S)
    for cache in found:
        reason = cachelog.mismatch([cache.proof], asked, probe.geometry.layers) or cachelog.wrong_size(
            cache.proof, probe.geometry, started.release.cache_types, probe.sequences
        )
        if reason:
            raise Unhealthy(f"the service is configured for the cache type {asked}, but: {reason}: {cache.proof.line}")
    lines = tuple(cache.proof.line for cache in found)
    return UnitProof(
        lines=lines, unproven="" if found else require_proof(asked, "of the probe model", started.logged(offset))
    )


def _number(text: str) -> int:
    """A whole number from 1 on, as Ollama reads it."""
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 5 else 1
