"""From the flags of `./inv memory` to a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...core.cachetypes.grammar import parse
from ...core.cachetypes.table import own, type_table
from ...core.errors import ConfigError, ModelInvalid
from ...core.records import record
from ...core.run import Run
from ...host import machine
from ...series.manifest import root_of
from .. import packaged
from . import architectures, drafts, geometry, gguf, hardware, pinned, plan, store
from .kv import Setting

_MAX_RAM_GIB, _MAX_CONTEXT, _MAX_SEQUENCES = 4096, 1 << 27, 256
_MLX = "the store has the model for MLX as well, which Ollama prefers on a Mac, and on which cache types have no effect"
_UNITS = {"K": 1 << 10, "M": 1 << 20}


def plan_for(
    run: Run,
    model: str,
    context: Sequence[str] = (),
    types: Sequence[str] = (),
    ram: float = 0.0,
    parallel: int = 1,
    unified: bool = False,
    batch: int = 512,
) -> plan.MemoryPlan:
    """What fits of a model, on this machine or on a Mac with `ram` GiB. Raises `ConfigError`, `ModelInvalid`,
    `ArchitectureUnknown`."""
    named = find_model(model, run)
    added = own(root_of(run.config))
    dialect = pinned.dialect(run.config, [kind.name for kind in added])
    with run.console.step(f"header of {model}"):
        found = gguf.load(named.place, dialect)
        if kind := architectures.OTHER_KINDS.get(str(found.metadata.get("general.type", ""))):
            raise ModelInvalid(
                f"{model}: it is {kind}, and no model by itself", hint="--model names the model that it goes with"
            )
        draft = drafts.beside(gguf.load(str(named.draft), dialect)) if named.draft else None
        if named.drafts_itself:
            draft = drafts.within(found)
    planned = plan.plan(
        found,
        geometry.read(found),
        _machine(run, ram),
        types=[parse(text) for text in types or plan.usual_types(added)],
        table=type_table(added),
        contexts=[tokens(text) for text in context],
        setting=Setting(
            context=1,
            sequences=_checked("parallel", parallel, 1, _MAX_SEQUENCES),
            unified=unified,
            batch=_checked("batch", batch, 1, 1 << 16),
        ),
        further_bytes=named.further_bytes,
        calibrated=bool(run.config.deploy.calibration),
        draft=draft,
    )
    return replace(planned, notes=(*planned.notes, _MLX)) if named.mlx else planned


@record
class Named:
    """A model by its path or URL, and what Ollama loads beside it."""

    place: str
    further_bytes: int = 0
    draft: Path | None = None
    drafts_itself: bool = False
    mlx: bool = False
    """whether Ollama has the same model for MLX"""


def find_model(name: str, run: Run) -> Named:
    """The model that `--model` names: a URL, a GGUF file, a name in Ollama's store or a packaged model.

    Raises `ModelInvalid` when it is none of these, and the errors of `packaged.find`."""
    root = store.default_root(run.config.deploy.models)
    if not name:
        raise ConfigError("--model is missing", hint="--model FILE.gguf, a URL, or a name that `ollama list` shows")
    if name.startswith(("http://", "https://")):
        return Named(place=name)
    path = Path(name).expanduser()
    if path.is_file():
        return Named(place=str(path))
    if stored := store.find(name, root):
        return Named(
            place=str(stored.model),
            further_bytes=stored.further_bytes,
            draft=stored.draft,
            drafts_itself=stored.drafts_itself,
            mlx=stored.mlx,
        )
    if fetched := packaged.find(name, run.config, run.console):
        return Named(place=str(fetched))
    raise store.unknown(name, root, f"`ollama list` shows the models; {packaged.offered()}")


def _machine(run: Run, ram: float) -> plan.Hardware:
    """This machine, or a Mac with `ram` GiB."""
    if ram:
        if not math.isfinite(ram) or not 0 < ram <= _MAX_RAM_GIB:
            raise ConfigError(f"--ram {ram:g}: expected GiB, up to {_MAX_RAM_GIB}", hint="--ram 36")
        size = int(ram * plan.GIB)
        return hardware.a_mac(size)
    found = machine.look(run.config)
    if not found.ram:
        raise ConfigError("the memory of this machine is unknown", hint="--ram 36 names it, in GiB")
    return hardware.with_limit(found.ram, found.limit)


def tokens(text: str, flag: str = "--context") -> int:
    """A context, also as 64K or 1M. Raises `ConfigError`, with the flag."""
    number, unit = (text[:-1], _UNITS[text[-1].upper()]) if text[-1:].upper() in _UNITS else (text, 1)
    if not number.isascii() or not number.isdigit() or not 1 <= int(number) * unit <= _MAX_CONTEXT:
        raise ConfigError(f"{flag} {text!r}: expected a number of tokens, such as 65536 or 64K")
    return int(number) * unit


def _checked(flag: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise ConfigError(f"--{flag} {value}: expected {low} to {high}")
    return value
