"""Several models of one llama-server: how many are in memory at a time, and its files of presets.

The files lie beside the releases (see `beside`), each named by the digest of its text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..core.cachetypes import grammar
from ..core.cachetypes.table import type_table
from ..core.config import Config
from ..core.errors import ConfigError, ReleaseInvalid
from ..host import machine
from ..service import units
from ..service.unit import Served
from ..service.units import ROUTER, presets
from ..stages import DeployWarning, Edit, Release
from . import environment
from .prefix import Prefix

_LIBRARY = "libllama-server-impl.*"
_WITHOUT = b"subprocess is not enabled on this build"
"""what a llama-server says that can leave it out, in its program or in this library, built with it or without"""
_STARTS = re.compile(rb"\0_?(?:posix_spawn|fork|vfork|execv)")


def completed(served: Served, release: Release, config: Config) -> Served:
    """With the folder of the presets, and how many of the models fit into this machine's memory.

    Raises `ConfigError` for models that presets cannot hold, and `ModelInvalid`.
    """
    if len(served.models) < 2:
        return served
    from ..models.memory import plan, together  # slow to import (NumPy, gguf), and needed only here

    table, types = type_table(release.cache_types), grammar.parse(config.deploy.kv_cache_type)
    needs = [
        together.need(one.file, _size(one.projector), types, table, config.deploy.context)
        for one in presets.of(served.models)
    ]
    found = machine.look(config)
    most = together.fitting(needs, plan.Hardware(ram=found.ram, gpu=found.gpu_limit))
    return replace(served, folder=Prefix.of(config).presets, most=min(most, len(needs)))


def require_able(served: Served, folder: Path, release: Release) -> None:
    """Raises `ConfigError` where the release in `folder` cannot serve several models.

    Ollama's build leaves out what starts a llama-server for each model: it then imports no function for that.
    """
    if len(served.models) < 2:
        return
    program = folder / units.UNITS[ROUTER].program[0]
    files = [path for path in (program, *program.parent.glob(_LIBRARY)) if path.is_file() and not path.is_symlink()]
    contents = [path.read_bytes() for path in files]
    if any(_WITHOUT in data for data in contents) and not any(_STARTS.search(data) for data in contents):
        raise ConfigError(
            f"deploy.serve_models: the llama-server of release {release.id} was built to serve one model only",
            hint="build a release with this version of the toolkit, ./inv ship; or name one model",
        )


def advice(served: Served, given: Mapping[str, str]) -> tuple[DeployWarning, ...]:
    """What clients must know of several models, where these are the variables of the service."""
    if len(served.models) < 2:
        return ()
    count = len(presets.of(served.models))
    most = given.get("LLAMA_ARG_MODELS_MAX", "")
    which = "all" if most in ("0", str(count)) else f"at most {most} of {count}"
    return (
        DeployWarning(
            about="deploy.serve_models",
            message=f"a model is loaded when a client names it, and {which} are in memory at a time; /v1/models shows "
            "digests, with the names as their aliases",
            remedy="LLAMA_ARG_MODELS_MAX in deploy.environment sets another number",
        ),
    )


def edits(prefix: Prefix) -> tuple[Edit, ...]:
    """The active release's file, if somebody changed it by hand: its name has the digest of the text."""
    active = prefix.active()
    try:
        path = Path(environment.read(prefix.release(active)).get(presets.VARIABLE, "")) if active else Path()
        if path.parent != prefix.presets or not path.is_file():
            return ()  # what is missing is waited for, which health reports
        text = path.read_bytes().decode(errors="replace")
    except (ReleaseInvalid, OSError):
        return ()
    if presets.name_of(text) == path.name:
        return ()
    return (Edit(file=path, name="", change="changed", before="", after=""),)


def _size(file: Path | None) -> int:
    return file.stat().st_size if file and file.is_file() else 0
