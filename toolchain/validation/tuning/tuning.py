"""`validate.tune`: from the flags to the setting that loses least, measured.

WORKSPACE/tunings/ID/    ID: digest of all that decides a run's figures, but not the memory or the types
  cells/                 every run, so that an interrupted tuning goes on, and one for other memory has the shares
  shares/, final/        the text and f16 logits that the runs are compared with; deleted at the end
  CONTEXT-BYTES/         tuning.json and turboquant.yaml
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from ...core import records
from ...core.cachetypes import grammar
from ...core.cachetypes.table import own, type_table
from ...core.errors import ConfigError
from ...core.records import record, sha256_bytes, sha256_file
from ...core.run import Run
from ...host import machine as host
from ...models.memory import geometry, gguf
from ...models.memory.geometry import Geometry
from ...models.memory.hardware import GIB, a_mac, with_limit
from ...models.memory.kv import Setting
from ...models.named import find_model
from ...models.quality.choices import find_perplexity
from ...models.quality.samples import read_text
from ...series.manifest import root_of
from ...stages import CacheType
from .. import leftovers
from ..store import Store
from . import choice, room
from .bench import Bench, Measuring
from .profile import write_profile
from .result import Tuning

FOLDER = "tunings"


@record
class Wanted:
    """The memory, and what to choose from."""

    context: int
    ram: float = 0.0
    bits: float = 0.0
    like: str = ""
    types: tuple[str, ...] = ()
    together: tuple[int, int] = (1, 1)
    """adjacent layers whose K, and whose V, one run measures"""
    beside: tuple[str, ...] = ()
    """further settings to compare with"""


def plan_measuring(
    run: Run, *, model: str, text: str, program: str, share: tuple[int, int], final: tuple[int, int]
) -> Measuring:
    """`share` and `final`: tokens of a context, and contexts, of the shares and of the comparison. Raises
    `ConfigError`, `ModelInvalid`, `ReleaseInvalid` without a program."""
    if min(share[0], final[0]) < 64 or share[1] < 1 or final[1] < 2:
        raise ConfigError("contexts of 64 tokens or more, one for the shares, two to compare", hint="--final 512x16")
    path, found = find_model(model, run.config).absolute(), find_perplexity(run, program)
    words = read_text(text).encode()
    first, second = words[: len(words) // 2], words[len(words) // 2 :]
    return Measuring(
        model=path,
        model_sha256=sha256_file(path),
        program=found,
        program_sha256=sha256_file(found),
        share_text=_excerpts(first, *share),
        final_text=_excerpts(second, *final),
        share_context=share[0],
        share_chunks=share[1],
        final_context=final[0],
        final_chunks=final[1],
        environment=run.config.deploy.server_environment,
    )


def tune(run: Run, measuring: Measuring, wanted: Wanted) -> Tuning:
    """Measure what the kept cells do not hold yet, choose, and measure the choice.

    Raises `ConfigError` for a wrong flag, `NothingFits`, `TextTooShort`, `DiskFull`, `LockHeld`, `VerificationFailed`
    when the program allocates other caches than planned, and `CommandFailed`; what was measured is kept.
    """
    header = gguf.load(str(measuring.model))
    shape, added = geometry.read(header), own(root_of(run.config))
    if wanted.context > shape.context_length:
        raise ConfigError(
            f"--context {wanted.context}: the model was trained on {shape.context_length} tokens",
            hint=f"--context {shape.context_length}",
        )
    if (longest := max(measuring.share_context, measuring.final_context)) > shape.context_length:
        raise ConfigError(f"contexts of {longest} tokens: the model was trained on {shape.context_length}")
    table, metal = type_table(added), room.on_metal(wanted.ram)
    types = room.suited(shape, wanted.types or room.usual(added, metal=metal), table)
    setting = Setting(context=wanted.context)
    size, why = _room(run, shape, setting, wanted, table, header.tensor_bytes)
    if (whole := room.of_bits(shape, setting, 16)) <= size:
        raise ConfigError(
            f"f16 takes {whole / GIB:.3f} GiB and fits ({why}): there is nothing to choose",
            hint="a longer --context, or --like and --bits for less memory",
        )
    beside = [grammar.parse(text) for text in (*([wanted.like] if wanted.like else []), *wanted.beside)]
    for one in beside:
        room.cache_bytes(shape, one, setting, table)  # raises for a setting that the model cannot have
    folder = run.workspace / FOLDER / measuring.id
    records.make_folder(folder)
    with leftovers.locked(folder):
        store = Store(folder)
        store.tidy()
        records.write(folder / "plan.json", measuring)
        bench = Bench(run, measuring, store, shape, table)
        began = time.monotonic()
        losses = bench.losses(types, wanted.together)
        pairs = room.groups(shape, types, setting, metal=metal)
        chosen = choice.choose(pairs, losses, size)
        stated = bench.proven(chosen.types, setting, header.tensor_bytes)
        against = dict.fromkeys([*choice.uniform(pairs, losses, size), *beside])
        rows = bench.rows(chosen.types, list(against), losses, setting)
        within = [one for one in rows if one.bytes <= size]
        best = min(within, key=lambda one: one.kl.mean)
        out = folder / f"{wanted.context}-{size}"
        found = Tuning(
            id=measuring.id,
            model=measuring.model.name,
            model_sha256=measuring.model_sha256,
            text_sha256=sha256_bytes((measuring.share_text + measuring.final_text).encode()),
            context=wanted.context,
            room=size,
            why=why,
            types=tuple(kind.name for kind in types),
            share_context=measuring.share_context,
            share_chunks=measuring.share_chunks,
            final_context=measuring.final_context,
            final_chunks=measuring.final_chunks,
            losses=losses,
            setting=str(chosen.types),
            bytes=chosen.bytes,
            stated=stated,
            predicted=losses.predicted(*(side.each(losses.layers) for side in (chosen.types.k, chosen.types.v))),
            optimum=chosen.optimum,
            bound=chosen.bound,
            optimal=chosen.optimal,
            better=best.setting if best.setting != str(chosen.types) else "",
            rows=rows,
            seconds=round(time.monotonic() - began, 1),
            profile=write_profile(out / "turboquant.yaml", best.setting),
            ran_on=host.in_short(),
        )
        records.write(out / "tuning.json", found)
        bench.clear()
        return found


def _room(
    run: Run, shape: Geometry, setting: Setting, wanted: Wanted, table: Mapping[str, CacheType], weights: int
) -> tuple[int, str]:
    """Bytes for the caches, and where they come from."""
    if sum(map(bool, (wanted.ram, wanted.bits, wanted.like))) > 1:
        raise ConfigError("--ram, --bits and --like name the memory in three ways", hint="give one of them")
    if wanted.like:
        return room.cache_bytes(shape, grammar.parse(wanted.like), setting, table), f"that of {wanted.like}"
    if wanted.bits:
        return room.of_bits(shape, setting, wanted.bits), f"{wanted.bits:g} bits per value"
    if wanted.ram:
        size = int(wanted.ram * GIB)
        hardware, name = a_mac(size), f"a Mac of {wanted.ram:g} GiB"
    else:
        seen = host.look(run.config)
        hardware, name = with_limit(seen.ram, seen.limit), f"this machine, {seen.ram / GIB:.1f} GiB"
    return room.of_machine(shape, setting, hardware, weights), name


def _excerpts(text: bytes, context: int, chunks: int) -> str:
    """Parts of a text from its whole length, one more than there are contexts, of some 4 bytes for a token: a few
    contexts from its beginning would all be of one kind."""
    count, size = chunks + 1, 4 * context
    return b"".join(text[at * len(text) // count :][:size] for at in range(count)).decode(errors="ignore")
