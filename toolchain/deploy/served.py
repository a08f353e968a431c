"""What llama-server is to serve: deploy.serve_models as files, and the keys of deploy.api_key_file."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ..core.config import DeployConfig
from ..core.errors import ConfigError
from ..models.memory import store
from ..service import account, address, managers
from ..service.account import Account
from ..service.unit import Served, ServedModel

_LEAST_KEY = 16
"""characters: anybody who reaches the port can guess"""
_MOST_BYTES = 8192
_KEY = re.compile(r"[!#-+\--~]+")
"""what llama-server reads back from its list of keys, and an HTTP header carries: ASCII without blank, quote, comma"""


def look(config: DeployConfig) -> Served:
    """The models and the keys. Raises `ConfigError`, and `ModelInvalid` for a store that is damaged."""
    if config.serve == "ollama":
        return Served()
    if not config.serve_models:
        raise ConfigError(
            "deploy.serve_models: llama-server needs a model",
            hint="name one of `ollama list`, or a GGUF file: --set deploy.serve_models=[NAME]",
        )
    keys = _keys(config) if config.api_key_file else ()
    if not keys and not address.is_loopback(config.host):
        raise ConfigError(
            f"deploy.host: {config.host} is reachable from other machines, and deploy.api_key_file is not set",
            hint="set deploy.api_key_file to a file with a key, or deploy.host to 127.0.0.1",
        )
    return Served(models=tuple(_model(name, config) for name in config.serve_models), keys=keys)


def _model(name: str, config: DeployConfig) -> ServedModel:
    """A GGUF file by its path, else by its name in Ollama's store."""
    machine = managers.machine(config)
    path = account.expand(name, config, machine)
    if path.is_file():
        return ServedModel(name=path.stem.replace(",", "_"), file=path)  # a comma would begin another name
    root = account.expand(config.models or "~/.ollama/models", config, machine)
    found = store.find(name, root)
    if found is None:
        raise ConfigError(
            f"deploy.serve_models: {name}: no such model: not a file, and not in {root}",
            hint="`ollama list` shows the names; deploy.models names another store",
        )
    return ServedModel(name=name, file=found.model)


def _keys(config: DeployConfig) -> tuple[str, ...]:
    """One key a line; blank lines and those that begin with # do not count."""
    machine = managers.machine(config)
    path, user = account.expand(config.api_key_file, config, machine), account.find(config, config.domain, machine)
    about = f"deploy.api_key_file: {path}"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(
            f"{about}: {error.strerror}", hint="name a file with a key; a link is not followed"
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        _check_file(about, path, os.fstat(descriptor), user)
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{about}: more than {_MOST_BYTES} bytes", hint="one key a line")
    lines = [line.strip() for line in data.decode("utf-8", "surrogateescape").split("\n")]
    keys = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not keys:
        raise ConfigError(f"{about}: holds no key", hint="`openssl rand -hex 32` makes one")
    for number, key in enumerate(lines, 1):
        if key in keys and not _KEY.fullmatch(key):
            raise ConfigError(
                f"{about}: line {number}: a key is letters, digits and punctuation of ASCII, without blanks, quotes "
                "and commas",
                hint="`openssl rand -hex 32` makes one",
            )
        if key in keys and len(key) < _LEAST_KEY:
            raise ConfigError(
                f"{about}: line {number}: a key of {len(key)} characters can be guessed; use {_LEAST_KEY} or more",
                hint="`openssl rand -hex 32` makes one",
            )
    return keys


def _check_file(about: str, path: Path, status: os.stat_result, user: Account | None) -> None:
    """The caller's own, or for root that of the service's user, and closed to others."""
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{about}: not a file", hint="name a file with a key")
    if status.st_uid not in (os.geteuid(), user.uid if user and account.is_root() else os.geteuid()):
        raise ConfigError(f"{about}: belongs to {account.name_of(status.st_uid)}", hint="name a file of yours")
    if status.st_mode & 0o077:
        raise ConfigError(
            f"{about}: mode {stat.S_IMODE(status.st_mode):04o}: others can read or change it",
            hint=f"chmod 600 {path}",
        )
