"""From the flags of `./inv memory` to a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ...core.cachetypes.grammar import parse
from ...core.cachetypes.table import own, type_table
from ...core.errors import ConfigError, ModelInvalid
from ...core.run import Run
from ...host import machine
from ...series.manifest import root_of
from .. import packaged
from . import geometry, gguf, pinned, plan, store
from .kv import Setting

_MAX_RAM_GIB, _MAX_CONTEXT, _MAX_SEQUENCES = 4096, 1 << 27, 256
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
    place, further = find_model(model, run)
    added = own(root_of(run.config))
    with run.console.step(f"header of {model}"):
        found = gguf.load(place, pinned.dialect(run.config, [kind.name for kind in added]))
    return plan.plan(
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
        further_bytes=further,
    )


def find_model(name: str, run: Run) -> tuple[str, int]:
    """The path or URL of the model that `--model` names: a URL, a GGUF file, a name in Ollama's store or a packaged
    model; and the bytes of what Ollama loads beside it. Raises `ModelInvalid` when it is none of these, and the errors
    of `packaged.find`."""
    root = store.default_root(run.config.deploy.models)
    if not name:
        raise ConfigError("--model is missing", hint="--model FILE.gguf, a URL, or a name that `ollama list` shows")
    if name.startswith(("http://", "https://")):
        return name, 0
    path = Path(name).expanduser()
    if path.is_file():
        return str(path), 0
    if stored := store.find(name, root):
        return str(stored.model), stored.further_bytes
    if fetched := packaged.find(name, run.config, run.console):
        return str(fetched), 0
    raise ModelInvalid(
        f"{name}: not a file, and not a model in {root}", hint=f"`ollama list` shows the models; {packaged.offered()}"
    )


def _machine(run: Run, ram: float) -> plan.Hardware:
    """This machine, or a Mac with `ram` GiB."""
    if ram:
        if not math.isfinite(ram) or not 0 < ram <= _MAX_RAM_GIB:
            raise ConfigError(f"--ram {ram:g}: expected GiB, up to {_MAX_RAM_GIB}", hint="--ram 36")
        size = int(ram * plan.GIB)
        return plan.Hardware(ram=size, gpu=machine.metal_limit(size))
    found = machine.look(run.config)
    if not found.ram:
        raise ConfigError("the memory of this machine is unknown", hint="--ram 36 names it, in GiB")
    return plan.Hardware(ram=found.ram, gpu=found.gpu_limit)


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
