"""The planner against a real llama-server: `python -m bench.kvbytes LLAMA_SERVER [MODEL.gguf...] [--types ...]`.

Starts the server on each model (when none is named, small ones of eight geometries, of Ollama's own converter and with
odd heads), at each context and with each cache type, and holds the planner's figures against
- the log: cells, layers and MiB of every cache, and of the recurrent state;
- the bytes of a row of K and of V in every layer, out of the saved slot: exact where the log is rounded;
- the log's compute buffers, which the planner estimates, and the memory that the process has in use.
Where the planner says that llama.cpp would refuse the types, it must. Exits with 1 when anything but estimates differs.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil

from tests.memory import models, ollama_models
from toolchain.build.quantizers import Floats
from toolchain.core.cachetypes import grammar
from toolchain.core.cachetypes import table as cachetypes
from toolchain.core.errors import ModelLoadFailed
from toolchain.models.memory import geometry, gguf, kv, working
from toolchain.serving import cachelog, slot
from toolchain.serving.llama_server import serve
from toolchain.stages import CacheType
from toolchain.verify import planned as planned_caches

TYPES = (
    "f16",
    "q8_0",
    "q8_0:turbo4",
    "turbo4",
    "turbo3:turbo2",
    "turbo2,first=1:q8_0,last=1:f16",
    "q8_0:turbo2,layers=1:f16",
)
CONTEXTS = (512, 4096, 10000, 32768)
_PROMPT = list(range(3, 20))
_STATE = re.compile(r"llama_memory_recurrent: size = +([\d.]+) MiB")
_COMPUTE = re.compile(r"compute buffer size = +([\d.]+) MiB")
_GIVEN = {name: value for name, value in os.environ.items() if name.startswith("LLAMA_ARG_")}
"""passed on, such as LLAMA_ARG_REPACK=0"""
Table = dict[str, CacheType]


def main() -> None:
    """Print one line for each run."""
    parser = argparse.ArgumentParser(prog="python -m bench.kvbytes", description=__doc__)
    parser.add_argument("server", type=Path)
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--types", default=" ".join(TYPES), help="settings, divided by blanks")
    parser.add_argument("--contexts", default=" ".join(map(str, CONTEXTS)))
    asked = parser.parse_args()
    table = cachetypes.type_table(cachetypes.own())
    runs = wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        made = models.TINY | ollama_models.OLLAMA | ollama_models.HEADS
        del made["qwen25vl"]  # all its weights are zero, which its second layer makes NaN: the slot is refused
        paths = asked.models or [models.write(Path(folder) / f"{name}.gguf", make()) for name, make in made.items()]
        for path in paths:
            for setting in grammar.split_settings(asked.types):
                for context in map(int, asked.contexts.split()):
                    said = compare(asked.server, path, grammar.parse(setting), context, table, Path(folder))
                    sys.stdout.write(f"{path.stem:<14} {setting:<30} {context:>6}  {said}\n")
                    sys.stdout.flush()
                    runs += 1
                    wrong += said.startswith("DIFFERS")
    sys.stdout.write(f"{runs} runs, {wrong} differ\n")
    sys.exit(bool(wrong))


def compare(server: Path, path: Path, types: grammar.CacheTypes, context: int, table: Table, folder: Path) -> str:
    """One run: what differs, or the figures that agree."""
    found = gguf.load(str(path))
    sized = geometry.read(found)
    if why := kv.obstacle(sized, types, table):
        return _refused(server, path, types, context, folder, why)
    setting = kv.Setting(context=context)
    planned = kv.sizes(sized, types, setting, table)
    with tempfile.TemporaryDirectory(dir=folder) as home:
        with serve(
            server, path, home=Path(home), context=context, timeout_s=120, cache_type=str(types), threads=1,
            environment={**_GIVEN, "LLAMA_ARG_UBATCH": str(setting.batch)},
        ) as running:  # fmt: skip
            running.read(_PROMPT)
            used = sum(child.memory_info().rss for child in psutil.Process(os.getpid()).children())
            saved = slot.load(running.save(), has_v=not sized.mla, decode=_as_bytes)
        log = (Path(home) / "server.log").read_text(errors="replace")
    caches = cachelog.stated(log)
    if why := planned_caches.complaint(caches, planned) or _state_complaint(log, planned):
        return f"DIFFERS: {why}"
    if why := _row_complaint(saved, sized, types, table):
        return f"DIFFERS: {why}"
    reserved = sum(map(float, _COMPUTE.findall(log))) * cachelog.MIB
    estimated = working.working_bytes(sized, setting, planned) - working.PROCESS_BYTES - 4 * sized.vocabulary
    total = found.tensor_bytes + planned.bytes + working.working_bytes(sized, setting, planned)
    return (
        f"{planned.bytes:>11} bytes of caches and state, as stated; compute {reserved / cachelog.MIB:8.2f} MiB, "
        f"estimate {estimated / reserved - 1:+.1%}; in use {used / cachelog.MIB:7.0f} of {total / cachelog.MIB:.0f} MiB"
    )


def _refused(server: Path, path: Path, types: grammar.CacheTypes, context: int, folder: Path, why: str) -> str:
    with tempfile.TemporaryDirectory(dir=folder) as home:
        try:
            with serve(server, path, home=Path(home), context=context, timeout_s=120, cache_type=str(types)):
                return f"DIFFERS: loads, although {why}"
        except ModelLoadFailed:
            return f"refused by both: {why}"


def _as_bytes(_: int, raw: bytes) -> Floats:
    """A float for each byte, so that the width of a layer is the bytes of its rows."""
    return np.zeros(len(raw), dtype=np.float32)


def _state_complaint(log: str, planned: kv.CacheSizes) -> str:
    stated = [float(size) for size in _STATE.findall(log)]
    if abs(sum(stated) - planned.state / cachelog.MIB) > 0.0051:
        return f"the planner gives a state of {planned.state / cachelog.MIB:.3f} MiB, the log says {stated}"
    return ""


def _row_complaint(saved: slot.SavedSlot, sized: geometry.Geometry, types: grammar.CacheTypes, table: Table) -> str:
    """Rows of the saved slot, in the order of the caches, against the planner's; in bytes."""
    order = [layer for windowed in (False, True) for layer in sized.cached if layer.windowed is windowed]
    if len(saved.layers) != len(order):
        return f"the slot has {len(saved.layers)} layers, the planner {len(order)}"
    each_k, each_v = types.k.each(len(order)), types.v.each(len(order))
    for layer, rows in zip(order, saved.layers, strict=True):
        number = sized.cached.index(layer)
        for side, name, values, stored in (
            ("K", each_k[number], layer.k, rows.k),
            ("V", each_v[number], layer.v, rows.v),
        ):
            if stored is not None:
                width = stored.shape[1] * {"f32": 4, "f16": 2}.get(name, 1)
                if width != cachetypes.row_bytes(table[name], values):
                    return f"a row of {side} in layer {layer.index} has {width} bytes"
    return ""


if __name__ == "__main__":
    main()
