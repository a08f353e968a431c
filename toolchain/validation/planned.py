"""What the memory planner says of a validation's sides."""

from __future__ import annotations

from ..core.cachetypes import grammar
from ..core.cachetypes.table import type_table
from ..core.errors import ConfigError
from ..core.records import record
from ..host import machine
from ..models.memory import geometry, gguf
from ..models.memory.kv import CacheSize, Setting, sizes
from ..models.memory.plan import SYSTEM_BYTES, Cell, Hardware, plan
from ..serving.cachelog import MIB, agrees, stated
from .plan import Side
from .trial import Trial


@record
class Planned:
    """Bytes at one context."""

    context: int
    weights: int
    kv: int
    working: int
    total: int


class Planner:
    """The plan of a trial's model on this machine. Raises `ArchitectureUnknown`, `ModelInvalid`; each method
    `ConfigError` for a type that llama.cpp refuses for the model."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._header = gguf.load(str(trial.plan.model))
        self._geometry = geometry.read(self._header)
        self._table = type_table(trial.added)
        found = machine.look(trial.config)
        self.hardware = Hardware(ram=found.ram, gpu=found.gpu_limit)

    @property
    def budget(self) -> int:
        """Bytes that the server may take: RAM without the system's share."""
        return self.hardware.budget

    def at(self, side: Side, context: int) -> Planned:
        """What a side needs with this context."""
        cell, _ = self._plan(side, context, self.hardware)
        weights = self._header.tensor_bytes
        return Planned(context=context, weights=weights, kv=cell.kv, working=cell.working, total=cell.total)

    def largest(self, side: Side, factor: float = 1.0) -> int:
        """The largest context within the budget, were everything `factor` times as large as planned."""
        ram = int(self.budget / factor) + SYSTEM_BYTES
        return self._plan(side, 256, Hardware(ram=ram))[1]

    def caches(self, side: Side, context: int) -> tuple[CacheSize, ...]:
        """The caches in the order of the log."""
        types = grammar.parse(self._trial.plan.cache(side))
        return sizes(self._geometry, types, Setting(context=context), self._table).caches

    def contradiction(self, side: Side, context: int, log: str) -> str:
        """How the caches that the log states last differ from the planned ones, in cells, layers or bytes; empty if
        they are equal."""
        planned = [one for one in self.caches(side, context) if one.layers]
        found = [one.proof for one in stated(log)][-len(planned) :]
        if len(found) != len(planned):
            return f"{len(planned)} caches planned, the log states {len(found)}"
        for one, proof in zip(planned, found, strict=True):
            if (one.cells, one.layers) != (proof.cells, proof.layers):
                return f"{one.cells} cells of {one.layers} layers planned, the log states {proof.cells}, {proof.layers}"
            for name, size, mib in (("K", one.k, proof.mib_k), ("V", one.v, proof.mib_v)):
                if not agrees(mib, size):
                    return f"{name}: {size / MIB:.3f} MiB planned, the log states {mib:.2f}"
        return ""

    def _plan(self, side: Side, context: int, hardware: Hardware) -> tuple[Cell, int]:
        types = grammar.parse(self._trial.plan.cache(side))
        found = plan(
            self._header, self._geometry, hardware, types=[types], table=self._table, contexts=[context]
        ).types[0]
        if found.obstacle:
            raise ConfigError(f"{types}: {found.obstacle}", hint="./inv memory says which types the model can have")
        return found.cells[0], found.largest_context
