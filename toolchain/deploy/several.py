"""Several models of one llama-server: how many are in memory at a time, and its files of presets.

The files lie beside the releases, whose environments name them. Each is named by the digest of its text and never
changes, so that a rollback, or the restore of an environment, needs nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..core import records
from ..core.cachetypes import grammar
from ..core.cachetypes.table import type_table
from ..core.config import Config
from ..host import machine
from ..service.unit import Served
from ..service.units import presets
from ..stages import DeployWarning, Release
from . import environment
from .prefix import Prefix


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


def write(files: Mapping[Path, str]) -> None:
    """Write what an environment is about to name. The service's user reads it, and there are no secrets in it."""
    for path, text in files.items():
        records.write_bytes(path, text.encode())


def are_there(files: Mapping[Path, str]) -> bool:
    """Whether all of them are, with their text."""
    try:
        return all(path.read_bytes() == text.encode() for path, text in files.items())
    except OSError:
        return False


def sweep(prefix: Prefix) -> None:
    """Delete the files that no environment names, of an installed release or of a restore point."""
    if not prefix.presets.is_dir() or prefix.presets.is_symlink():
        return
    texts = [prefix.before / environment.FILE_NAME]
    texts += [release / environment.FILE_NAME for release in prefix.releases.glob("*/")]
    named = b"\n".join(path.read_bytes() for path in texts if path.is_file())
    for path in prefix.presets.iterdir():
        if path.name.encode() not in named and not path.is_dir():
            path.unlink()
    with contextlib.suppress(OSError):  # there are some
        prefix.presets.rmdir()


def _size(file: Path | None) -> int:
    return file.stat().st_size if file and file.is_file() else 0
