"""What llama-server is to serve: deploy.serve_models as files, and the keys of deploy.api_key_file."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..core.cachetypes import grammar
from ..core.config import DeployConfig
from ..core.errors import ArchitectureUnknown, ConfigError, ModelInvalid, ModelsUnavailable
from ..core.printable import printable
from ..service import account, address, managers, model_store
from ..service.account import Account
from ..service.unit import Served, ServedModel
from ..stages import DeployWarning, Release

_LEAST_KEY = 16
"""characters: a shorter one can be guessed"""
_MOST_BYTES = 8192
_KEY = re.compile(r"[!#-+\--~]+")
"""what llama-server reads back from its list of keys, and an HTTP header carries: ASCII without blank, quote, comma"""
_ONE_OF_THEM = "`openssl rand -hex 32` makes one"


def look(config: DeployConfig) -> Served:
    """The models and the keys; nothing where Ollama is the service.

    Raises `ConfigError`, also for a service without a key that other machines can reach, and `ModelInvalid` and
    `ModelNotServable` for a model.
    """
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
    try:
        return Served(models=tuple(_model(name, config) for name in config.serve_models), keys=keys)
    except OSError as error:
        file = printable(str(error.filename or "a file"))
        raise ModelInvalid(
            f"deploy.serve_models: {file}: {error.strerror}",
            hint="name one of `ollama list`, or a GGUF file that you may read",
        ) from error


def advice(served: Served, release: Release, config: DeployConfig, owner: Account) -> tuple[DeployWarning, ...]:
    """What clients of Ollama will miss, and what the cache type does to the models.

    Raises `ConfigError` for a model that does not load with it, and `ModelsUnavailable` for one that the service's
    account cannot read.
    """
    for model in served.models:
        for file in (model.file, *([model.projector] if model.projector else [])):
            if not model_store.allowed("-r", file, owner):
                raise ModelsUnavailable(
                    f"deploy.serve_models: {owner.name} cannot read {file}",
                    hint=f"let {owner.name} have it, with the folders above it",
                )
    found = [*_of_keys(served, owner), *_lost(served), *(_unread(config) if served.models else ())]
    for model in served.models:
        found += _suitability(model, release, config)
    return tuple(found)


def _model(name: str, config: DeployConfig) -> ServedModel:
    """A GGUF file by its path, else by its name in Ollama's store."""
    from ..models import servable  # slow to import (NumPy, gguf), and needed only here

    machine = managers.machine(config)
    path = account.expand(name, config, machine)
    if not path.is_file():
        root = account.expand(config.models or "~/.ollama/models", config, machine)
        return servable.find(name, root, config.environment)
    found = servable.find(str(path), path.parent, config.environment)
    return replace(found, name=path.stem.replace(",", "_"))  # a comma would begin another name


def _of_keys(served: Served, owner: Account) -> Iterator[DeployWarning]:
    if served.models and not served.keys:
        yield DeployWarning(
            about="deploy.api_key_file",
            message="llama-server does not look at the Host header: without a key, a web page may reach it by a name "
            "that its owner points to this machine",
            remedy=f"set deploy.api_key_file; {_ONE_OF_THEM}",
        )
    if served.keys and os.geteuid() == 0 and owner.uid != 0:
        yield DeployWarning(
            about="deploy.api_key_file",
            message=f"{owner.name} reads the key by its main group (gid {owner.gid}), as every member of it can",
            remedy="give that account a main group of its own",
        )


def _lost(served: Served) -> Iterator[DeployWarning]:
    names = ", ".join(model.name for model in served.models)
    chosen = f"; clients of /v1 get {names} whatever model they name" if len(served.models) == 1 else ""
    if names:
        yield DeployWarning(
            about="deploy.serve",
            message="llama-server has none of /api/*, so neither the `ollama` command nor Ollama's own clients work: "
            f"no pull, create or list{chosen}",
            remedy="deploy.serve=ollama serves all of it",
        )
    for model in served.models:
        for lost in model.lost:
            yield DeployWarning(about=model.name, message=lost, remedy="deploy.serve=ollama serves it with all that")


def _unread(config: DeployConfig) -> Iterator[DeployWarning]:
    for name in config.environment:
        if name.startswith("OLLAMA_"):
            remedy = "see `llama-server --help` for its own variables"
            yield DeployWarning(about=name, message="Ollama reads it, llama-server does not", remedy=remedy)


def _suitability(model: ServedModel, release: Release, config: DeployConfig) -> Iterator[DeployWarning]:
    from ..models.compatibility import stored  # slow to import

    asked = grammar.parse(config.kv_cache_type)
    try:
        found = stored.objection(model.file, model.name, asked, release.cache_types)
    except ArchitectureUnknown as error:
        yield DeployWarning(
            about=model.name,
            message=f"whether {asked} suits it is unknown: {error.message}",
            remedy="the health check shows whether it loads",
        )
        return
    if found and not found.loads:
        raise ConfigError(
            f"deploy.kv_cache_type: {model.name} does not load with {asked}: {found.reason}",
            hint=f"set deploy.kv_cache_type={found.instead}",
        )
    if found:
        yield DeployWarning(
            about=model.name,
            message=f"suffers from {found.types}: {found.reason}",
            remedy=f"set deploy.kv_cache_type={found.instead}",
        )


def _keys(config: DeployConfig) -> tuple[str, ...]:
    """One key a line; blank lines and those that begin with # do not count. Raises `ConfigError`, without a key."""
    machine = managers.machine(config)
    path, user = account.expand(config.api_key_file, config, machine), account.find(config, config.domain, machine)
    about = f"deploy.api_key_file: {path}"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        hint = f"name a file with a key, which is no link; {_ONE_OF_THEM}"
        raise ConfigError(f"{about}: {error.strerror}", hint=hint) from error
    try:
        _check_file(about, path, os.fstat(descriptor), user)
        data = os.read(descriptor, _MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{about}: more than {_MOST_BYTES} bytes", hint="one key a line")
    found: list[str] = []
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if not _KEY.fullmatch(key):
            wanted = "letters, digits and punctuation of ASCII, without blanks, quotes and commas"
            raise ConfigError(f"{about}: line {number}: a key is {wanted}", hint=_ONE_OF_THEM)
        if len(key) < _LEAST_KEY:
            raise ConfigError(
                f"{about}: line {number}: a key of {len(key)} characters can be guessed; {_LEAST_KEY} are the least",
                hint=_ONE_OF_THEM,
            )
        found.append(key)
    if not found:
        raise ConfigError(f"{about}: holds no key", hint=_ONE_OF_THEM)
    return tuple(dict.fromkeys(found))


def _check_file(about: str, path: Path, status: os.stat_result, user: Account | None) -> None:
    """The caller's own, or for root that of the service's user, and closed to others."""
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{about}: not a file", hint="name a file with a key")
    if status.st_uid not in (os.geteuid(), user.uid if user and account.is_root() else os.geteuid()):
        raise ConfigError(f"{about}: belongs to {account.name_of(status.st_uid)}", hint="name a file of yours")
    if status.st_mode & 0o077:
        raise ConfigError(
            f"{about}: mode {stat.S_IMODE(status.st_mode):04o}: others can read or change it", hint=f"chmod 600 {path}"
        )
