"""The runs of a tuning: those of the shares, a load at the context, and those of the settings to compare."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from ...core.cachetypes import grammar
from ...core.cachetypes.grammar import CacheTypes
from ...core.errors import ConfigError, DiskFull, VerificationFailed
from ...core.records import record, sha256_bytes, to_json
from ...core.run import Run
from ...host import machine as host
from ...models.memory.geometry import Geometry
from ...models.memory.kv import Setting, sizes
from ...models.memory.plan import GIB
from ...models.quality.divergence import Compared, Program, Reference
from ...models.quality.measure import Estimate
from ...serving.cachelog import Cache, agrees
from ...stages import CacheType
from ..store import Store
from ..trial import Progress
from . import room, shares
from .result import Row, mean, ratio


@record
class Measuring:
    """All that decides a run's figures; `id` names the folder."""

    model: Path
    model_sha256: str
    program: Path
    program_sha256: str
    share_text: str
    final_text: str
    share_context: int
    share_chunks: int
    final_context: int
    final_chunks: int
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The model's name and 10 digits of the digest."""
        parts = replace(self, model=Path(self.model.name), program=Path(self.program.name))
        name = "".join(c if c.isalnum() or c in "._" else "_" for c in self.model.stem[:40])
        return f"{name}-{sha256_bytes(to_json(parts).encode())[:10]}"


@record
class Loaded:
    """The caches that a log states."""

    caches: tuple[Cache, ...]


class Bench:
    """Runs the program; every run is a kept cell."""

    def __init__(
        self, run: Run, measuring: Measuring, store: Store, shape: Geometry, table: Mapping[str, CacheType]
    ) -> None:
        self._run, self._plan, self._store, self._shape, self._table = run, measuring, store, shape, table
        self._program = Program(
            path=measuring.program,
            model=measuring.model,
            log=store.logs / "llama-perplexity.log",
            environment=measuring.environment,
        )
        self._folders = [store.folder / "shares", store.folder / "final"]

    def losses(self, types: Sequence[CacheType], together: tuple[int, int]) -> shares.Losses:
        layers, spans = len(self._shape.cached), dict(zip(shares.SIDES, together, strict=True))
        if min(together) < 1:
            raise ConfigError("--together is one number from 1 on, or two for K and V", hint="--together 1:2")
        reference = self._reference(0, self._plan.share_text, self._plan.share_context, self._plan.share_chunks)
        with self._run.console.step(f"shares of {layers} layers") as step:
            return shares.measure(
                reference,
                self._store,
                layers=layers,
                together=spans,
                types=types,
                fine=all(head % 32 == 0 for one in self._shape.cached for head in (one.head_k, one.head_v)),
                progress=Progress(step, shares.runs(layers, spans, types)),
            )

    def proven(self, types: CacheTypes, setting: Setting, weights: int) -> bool:
        """Whether the log of the program, loaded at the context, states the planner's bytes; false when this machine
        has too little memory for that. Raises `VerificationFailed` when it states others."""
        planned = sizes(self._shape, types, setting, self._table)
        if planned.bytes + weights + GIB > host.look(self._run.config).ram:
            return False
        key = f"loaded/{setting.context}/{_digest(types)}"
        with self._run.console.step(f"caches of {setting.context} tokens"):
            found = self._store.kept(
                key, Loaded, lambda: Loaded(caches=self._program.allocated(str(types), setting.context))
            ).caches
        due = [(one.cells, one.layers, one.k, one.v) for one in planned.caches]
        for (cells, layers, k, v), cache in zip(due, found, strict=False):
            proof = cache.proof
            sized = agrees(proof.mib_k, k) and agrees(proof.mib_v, v)
            if not sized or (cells, layers) != (proof.cells, proof.layers):
                raise VerificationFailed(
                    f"planned {layers} layers of {cells} cells, {k} and {v} bytes; the log says {proof.line}",
                    hint="./inv memory plans for another version of llama.cpp",
                )
        if len(due) != len(found):
            raise VerificationFailed(f"planned {len(due)} caches, the log states {len(found)}")
        return True

    def rows(
        self, chosen: CacheTypes, against: Sequence[CacheTypes], losses: shares.Losses, setting: Setting
    ) -> tuple[Row, ...]:
        """The chosen setting, f16 and the others, on the text that the shares never saw."""
        reference = self._reference(1, self._plan.final_text, self._plan.final_context, self._plan.final_chunks)
        asked = list(dict.fromkeys([chosen, grammar.parse(shares.FLOAT), *against]))
        runs: list[Compared] = []
        with self._run.console.step(f"{len(asked)} settings on text that the shares never saw") as step:
            progress = Progress(step, len(asked))
            for one in asked:
                key = f"final/{_digest(one)}"
                measured = not self._store.has(key)
                runs.append(self._store.kept(key, Compared, lambda one=one: shares.compared(reference, str(one))))  # type: ignore[misc]
                progress.advance(str(one), measured=measured)
        return tuple(
            Row(
                setting=str(one),
                bytes=room.cache_bytes(self._shape, one, setting, self._table),
                bits_per_value=round(room.bits_of(self._shape, one, self._table), 4),
                predicted=self.predicted(one, losses),
                kl=replace(mean(found.chunks), mean=found.kl.mean),
                delta=found.delta,
                same_top=found.same_top,
                ratio=ratio(runs[0].chunks, found.chunks) if one not in asked[:2] else None,
            )
            for one, found in zip(asked, runs, strict=True)
        )

    def predicted(self, types: CacheTypes, losses: shares.Losses) -> Estimate | None:
        """By the shares; None for a type that has none."""
        layers = len(self._shape.cached)
        known = {shares.FLOAT, *(one.type for one in losses.factors)}
        return losses.predicted(types.k.each(layers), types.v.each(layers)) if known >= set(types.names()) else None

    def clear(self) -> None:
        """Delete the logits."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _reference(self, number: int, text: str, context: int, chunks: int) -> Reference:
        """Raises `DiskFull` when the logits have no room."""
        needed = chunks * context * self._shape.vocabulary
        if (free := shutil.disk_usage(self._store.folder).free) < needed + GIB:
            raise DiskFull(
                f"{self._store.folder}: the logits take {needed / GIB:.1f} GiB, {free / GIB:.1f} are free",
                hint="fewer --chunks and --final-chunks, or another --workspace",
            )
        return Reference(self._program, text.encode(), self._folders[number], context=context, chunks=chunks)


def _digest(types: CacheTypes) -> str:
    return sha256_bytes(str(types).encode())[:12]
