"""Whether a release that was just started is worth keeping.

Three questions in a row: does the version answer that was installed (and not just any Ollama), does a real model
generate with the cache type that was asked for, and does the process then stay up.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path

from ..core.cachetypes import grammar
from ..core.config import DeployConfig
from ..core.console import Console
from ..core.errors import ServerFailed, ToolchainError, Unhealthy
from ..serving.ollama import OllamaClient
from ..stages import Release
from . import environment
from .service import Service, ServiceState

PROBE_NAME = "turboquant-probe"
PROBE_TOKENS = 4
_LAYERS = 2
_SIZES = {"head_size": 128, "heads": 2, "kv_heads": 1, "context": 512}
_CELLS = 256
"""context asked for: llama.cpp's own unit, so that the log states this very number"""
CRASHES = 2
"""ends of the process after which waiting longer is useless: one may be bad luck with the port, two are a loop"""
WRONG_VERSION_GRACE_S = 2.0
"""how long the instance before may still answer after it was told to end"""
_POLL_S = 0.05
_CALL_TIMEOUT_S = 5.0


def check(
    release: Release, release_dir: Path, log: Path, service: Service, config: DeployConfig, console: Console
) -> None:
    """Raises `Unhealthy` with the reason. Takes at most the health timeout twice, and the stability window.

    `log` is the service's: it states the cache of the model that generated.
    """
    url = environment.base_url(release_dir)
    with console.step(f"health of {release.id}") as step:
        step.update(detail="version")
        before = _await_version(release, url, service, config.health_timeout_s)
        step.update(detail="generation")
        mark = log.stat().st_size if log.exists() else 0
        asked = environment.read(release_dir)["OLLAMA_KV_CACHE_TYPE"]
        layers = max(_LAYERS, grammar.parse(asked).reach)
        _generate(OllamaClient(url, timeout=config.health_timeout_s), layers)
        _prove_cache(_since(log, mark), asked, layers, release, console)
        step.update(detail=f"stays up for {config.stability_s:g} s")
        _watch(before, service, config.stability_s)
        if (found := answer(url)) != release.version:
            raise Unhealthy(f"{url} answered at first, and now {f'with version {found!r}' if found else 'no more'}")


def answer(url: str) -> str:
    """The version that answers at `url` right now; empty when none does."""
    try:
        return OllamaClient(url, timeout=_CALL_TIMEOUT_S).version()
    except ServerFailed:
        return ""


def _await_version(release: Release, url: str, service: Service, timeout_s: float) -> ServiceState:
    started = time.monotonic()
    first: ServiceState | None = None
    while True:
        found = answer(url)
        state = service.inspect()
        first = first or state
        waited = time.monotonic() - started
        if found == release.version and state.running:
            return state
        if found and found != release.version and waited > WRONG_VERSION_GRACE_S:
            raise Unhealthy(f"{url} answers version {found!r}, not {release.version!r} of release {release.id}")
        if state.runs - first.runs >= CRASHES:
            raise Unhealthy(f"release {release.id} ends again and again, the last time with: {state.last_end}")
        if waited > timeout_s:
            last = f"; its last process ended with: {state.last_end}" if state.last_end and not state.running else ""
            raise Unhealthy(f"release {release.id} did not answer at {url} within {timeout_s:g} s{last}")
        time.sleep(_POLL_S)


def _generate(client: OllamaClient, layers: int) -> None:
    from ..serving.probe_model import write_probe  # NumPy and gguf take a while to load, and only this needs them

    try:
        with tempfile.TemporaryDirectory(prefix="turboquant-") as folder:
            path = Path(folder) / f"{PROBE_NAME}.gguf"
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


def _prove_cache(said: str, asked: str, layers: int, release: Release, console: Console) -> None:
    """Hold llama-server's own line on the probe's cache against the environment: no API of Ollama shows the type.

    Lines on other models, which clients may load meanwhile, are passed over: a draft model's cache may well be f16.
    """
    from ..serving import cachelog
    from ..serving.probe_model import Geometry

    geometry = Geometry(**_SIZES, layers=layers)
    found = [
        cache.proof
        for cache in cachelog.caches(said, geometry, release.cache_types)
        if (cache.proof.layers, cache.proof.cells) == (layers, _CELLS)
    ]
    for proof in found:
        if reason := cachelog.mismatch([proof], asked, layers):
            raise Unhealthy(f"the service was told to use the cache type {asked}, but: {reason}: {proof.line}")
        console.note(proof.line)
    if not found:
        console.warn(f"the log states no cache of the probe model, so it is not proven that {asked} is in use")


def _since(log: Path, mark: int) -> str:
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(mark)
        return file.read().decode(errors="replace")


def _watch(before: ServiceState, service: Service, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        state = service.inspect()
        if (state.pid, state.runs) != (before.pid, before.runs):
            raise Unhealthy(f"the release answered, but then its process ended with: {state.last_end or 'no status'}")
        if time.monotonic() >= deadline:
            return
        time.sleep(min(_POLL_S, seconds))
