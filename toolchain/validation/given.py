"""Endpoints that run already: whether they serve the plan's model, and what their own log proves."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from ..core.config import Config
from ..core.errors import ConfigError, ServerFailed, ToolchainError, VerificationFailed, reason
from ..core.records import record, sha256_file
from ..core.validation_errors import WrongModelServed
from ..deploy.prefix import Prefix
from ..models import servable
from ..models.memory import geometry, gguf
from ..proofs import CacheProof
from ..serving import cachelog
from ..serving.llama_server import LlamaServer
from ..serving.ollama import OllamaClient
from .endpoint import Endpoint
from .llama_endpoint import LlamaEndpoint
from .ollama_endpoint import OllamaEndpoint
from .plan import Plan, Side

_MOST_LOG = 64 << 20
"""bytes of a log's end that are read"""


@record
class Named:
    """The two running servers that a user names; all empty for none."""

    baseline_url: str = ""
    candidate_url: str = ""
    baseline_log: Path | None = None
    candidate_log: Path | None = None


def named(config: Config, baseline_url: str, candidate_url: str, baseline_log: str, candidate_log: str) -> Named:
    """The flags, checked; the log of the installed service is found by its port. Raises `ConfigError`."""
    if bool(baseline_url) != bool(candidate_url):
        raise ConfigError("--baseline-url and --candidate-url go together", hint="give both, or none")
    if not baseline_url and (baseline_log or candidate_log):
        raise ConfigError(
            "--baseline-log and --candidate-log are of running servers", hint="--baseline-url and --candidate-url"
        )
    return Named(
        baseline_url=_url("--baseline-url", baseline_url),
        candidate_url=_url("--candidate-url", candidate_url),
        baseline_log=_log("--baseline-log", baseline_log),
        candidate_log=_log("--candidate-log", candidate_log) or _of_service(config, candidate_url),
    )


def _url(flag: str, text: str) -> str:
    try:
        parts = urlsplit(text)
        if text and (parts.scheme != "http" or not parts.hostname or parts.port == 0):
            raise ValueError
    except ValueError:  # also of the port
        raise ConfigError(f"{flag} {text!r}: expected the URL of a server", hint="http://127.0.0.1:8080") from None
    return text.rstrip("/")


def _log(flag: str, text: str) -> Path | None:
    path = Path(text).expanduser().absolute() if text else None
    if path and not path.is_file():
        raise ConfigError(f"{flag} {path}: no such file")
    return path


def _of_service(config: Config, url: str) -> Path | None:
    """The log of the service on this machine, if the URL is its own, and this user may read it."""
    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1") or parts.port != config.deploy.port:
        return None
    try:
        log = Prefix.of(config).log
        return log if log.is_file() and os.access(log, os.R_OK) else None
    except (ToolchainError, OSError):
        return None


def endpoint(plan: Plan, side: Side, context: int, *, folder: Path, timeout_s: float) -> Endpoint:
    """The running server of a side.

    Raises `WrongModelServed`, `ServerFailed`, and `ConfigError` when it has a smaller context.
    """
    url, log = plan.url(side), plan.log(side)
    if plan.backend == "llama-server":
        server = LlamaServer(url, folder, timeout_s)
        loaded = server.loaded()
        if loaded is None or loaded.key_refused:
            raise ServerFailed(f"{url}: its model is not loaded, or it wants an API key")
        if loaded.model and not _is_the_model(plan, loaded.model):
            raise WrongModelServed(
                f"{url} serves {Path(loaded.model).name}, not {plan.model.name}",
                hint="--model names the file that it serves",
            )
        if 0 < loaded.context < context:
            raise ConfigError(
                f"{url} serves a context of {loaded.context} tokens, {context} are asked for",
                hint=f"start it with --ctx-size {context} --parallel 1, or name smaller --contexts",
            )
        return LlamaEndpoint(server, context=context, log=log, template=has_template(plan.model))
    client = OllamaClient(url, timeout_s)
    names = client.names()
    wanted = plan.model_name if ":" in plan.model_name else f"{plan.model_name}:latest"
    if wanted not in names:
        raise WrongModelServed(f"{url} has no model {wanted}", hint=f"it has {', '.join(names) or 'none'}")
    if (digest := client.digest(wanted)) not in ("", plan.model_sha256):
        raise WrongModelServed(
            f"{url}: its {wanted} is another file than {plan.model}: SHA-256 {digest[:12]}, not "
            f"{plan.model_sha256[:12]}",
            hint="--model names the model as it is there",
        )
    return OllamaEndpoint(
        client, wanted, context=context, pid=0, log=log, options={}, template=has_template(plan.model)
    )


def unproven(plan: Plan, side: Side) -> str:
    """Why nothing proves the cache types of a running server; empty when its log does.

    An Ollama states them when it loads the model, so a request must have come before. Raises `VerificationFailed` when
    the log states other types.
    """
    url, log, flag = plan.url(side), plan.log(side), f"--{side}-log"
    if log is None:
        return f"{side}: {url}: nothing here states its cache type; {flag} names its log"
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _MOST_LOG))
            said = file.read().decode(errors="replace")
    except OSError as error:
        return f"{side}: {url}: its log {log}: {reason(error)}"
    found, layers = cachelog.stated(said), _cached_layers(plan.model)
    last = _last(found, layers)
    if not found and (why := cachelog.unstated(said)) != cachelog.unstated(""):
        return f"{side}: {url}: {log}: {why}"
    if not last:
        return f"{side}: {url}: its log {log} states no KV cache of the model (llama-server: --log-verbosity 4)"
    if wrong := cachelog.mismatch(last, plan.cache(side), sum(one.layers for one in last)):
        raise VerificationFailed(
            f"{url}: {wrong}\n  log: {log}", hint=f"--{side} names the cache type that it runs with"
        )
    return ""


def has_template(model: Path) -> bool:
    """Whether llama.cpp has a chat template for the file."""
    return servable.has_template(gguf.load(str(model)).metadata)


def _last(found: tuple[cachelog.Cache, ...], layers: int) -> list[CacheProof]:
    """The caches of the last load: from the end of the log until all layers of the model are there."""
    last: list[CacheProof] = []
    for one in reversed(found):
        last.insert(0, one.proof)
        if layers and sum(proof.layers for proof in last) >= layers:
            break
    return last if not layers or sum(proof.layers for proof in last) == layers else []


def _cached_layers(model: Path) -> int:
    try:
        return len(geometry.read(gguf.load(str(model))).cached)
    except ToolchainError:  # an unknown architecture: then all that the log states counts
        return 0


def _is_the_model(plan: Plan, served: str) -> bool:
    path = Path(served)
    if path.is_file():
        return path.samefile(plan.model) or sha256_file(path) == plan.model_sha256
    return path.name == plan.model.name or plan.model_sha256 in path.name
