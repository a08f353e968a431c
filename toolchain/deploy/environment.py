"""The `environment` file of an installed release: the variables that the shim gives to Ollama.

It lies in the release directory, so that a rollback brings back the environment together with the binary: a
stock binary that finds a TurboQuant type in its environment fails every model load.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

from ..core.cachetypes import grammar
from ..core.cachetypes.table import type_table
from ..core.config import DeployConfig
from ..core.errors import ConfigError, ReleaseInvalid
from ..stages import Release

FILE_NAME = "environment"


def render(release: Release, config: DeployConfig) -> str:
    """KEY=VALUE lines for `release`. Raises `ConfigError`: it lacks the cache type, or a line cannot hold a value."""
    known = type_table(release.cache_types)
    asked = grammar.parse(config.kv_cache_type)
    if not release.cache_types and (asked.k != asked.v or asked.reach):
        raise ConfigError(
            f"deploy.kv_cache_type: {asked}: release {release.id} was built without the series",
            hint="stock Ollama takes one type for K and V and all layers",
        )
    for kind in asked.names():
        if kind not in known:
            raise ConfigError(
                f"deploy.kv_cache_type: release {release.id} has no cache type {kind!r}",
                hint=f"it has: {', '.join(sorted(known))}",
            )
    values = {
        "OLLAMA_HOST": f"{_bracketed(config.host)}:{config.port}",
        "OLLAMA_KV_CACHE_TYPE": config.kv_cache_type,
        "OLLAMA_FLASH_ATTENTION": "1",
    }
    if config.models:
        values["OLLAMA_MODELS"] = str(Path(config.models).expanduser().absolute())
    for key, value in values.items():
        if any(ord(letter) < ord(" ") for letter in value):
            raise ConfigError(f"{key}: {value!r} holds a control character")
    return "".join(f"{key}={value}\n" for key, value in values.items())


def read(release_dir: Path) -> dict[str, str]:
    """The variables of an installed release. Raises `ReleaseInvalid`."""
    path = release_dir / FILE_NAME
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseInvalid(f"{path}: {error}", hint="install the release again") from error
    return dict(line.split("=", 1) for line in lines if "=" in line)


def base_url(release_dir: Path) -> str:
    """Where that release listens, as seen from this machine."""
    host, _, port = read(release_dir).get("OLLAMA_HOST", "127.0.0.1:11434").rpartition(":")
    return f"http://{_bracketed(reachable(host))}:{port}"


def reachable(host: str) -> str:
    """The address to call a server at that listens on `host`: the loopback for a wildcard."""
    bare = host.strip("[]")
    if bare in ("", "0.0.0.0"):  # noqa: S104  compared, not bound
        return "127.0.0.1"
    return "::1" if bare == "::" else bare


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    bare = host.strip("[]")
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost"


def _bracketed(host: str) -> str:
    bare = host.strip("[]")
    try:
        return f"[{bare}]" if ipaddress.ip_address(bare).version == 6 else bare
    except ValueError:
        return bare
