"""Which models of a whole store a cache type does not suit, from the beginnings of their files alone.

A model does not load where its heads are no whole blocks of the type, or where it runs without flash attention. Others
are known to lose more than most by a coarse type; whether one does, `verdict` measures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ...core.cachetypes.grammar import CacheTypes, parse
from ...core.cachetypes.table import type_table
from ...core.errors import ArchitectureUnknown, ConfigError, ModelInvalid, ToolchainError
from ...core.records import record
from ...stages import CacheType
from ..memory import architectures, geometry, gguf, kv, sensitivity, store
from ..memory.rotation import unrotated_heads

_TOLD_BY_TENSORS = frozenset({"gemma3"})
"""architectures whose tensors decide whether Ollama's compat layer makes them another one"""


@record
class Unsuited:
    """A model that the cache type does not suit."""

    models: tuple[str, ...]
    """its names in the store"""
    types: str
    """the cache type: its own, or the service's"""
    loads: bool
    """whether it loads at all; if so it is known to lose more than other models do"""
    reason: str
    instead: str
    """a cache type that suits it"""


@record
class StoreReport:
    """What a look through a store found."""

    unsuited: tuple[Unsuited, ...]
    looked: int
    """models whose files were read"""
    skipped: tuple[str, ...]
    """models that are damaged, or of an architecture that is unknown here; none without a GGUF file"""
    complete: bool
    """whether there was time for all"""


def survey(root: Path, asked: CacheTypes, added: Sequence[CacheType], seconds: float, option: str = "") -> StoreReport:
    """Look at every model of the store at `root` in at most `seconds`; `added` are the types of the series.

    `option` is the parameter of a model that overrides the type, if there is one.

    Raises nothing for damaged models, nor for a store that is not there. The disk may not answer at all: a thread
    reads, and is left behind when the time is up.
    """
    look = _Look(root, asked, added, time.monotonic() + seconds, option)
    reader = threading.Thread(target=look.run, daemon=True)
    reader.start()
    reader.join(seconds)
    return look.report()


def objection(model: Path, name: str, asked: CacheTypes, added: Sequence[CacheType]) -> Unsuited | None:
    """Why the cache type does not suit one model file, called `name`; None if it does, or nothing is known against it.

    Raises `ModelInvalid`, and `ArchitectureUnknown` where nothing can be said.
    """
    found = _Look(model.parent, asked, added, 0.0, "").examine(model, asked, name)
    if found is None:
        return None
    loads, reason, instead = found
    return Unsuited(models=(name,), types=str(asked), loads=loads, reason=reason, instead=instead)


class _Look:
    def __init__(self, root: Path, asked: CacheTypes, added: Sequence[CacheType], deadline: float, option: str) -> None:
        self._root, self._asked, self._deadline, self._option = root, asked, deadline, option
        self._added, self._table = added, type_table(added)
        self._lock = threading.Lock()
        self._names: dict[tuple[Path, CacheTypes], list[str]] = {}
        self._found: dict[tuple[Path, CacheTypes], tuple[bool, str, str] | None] = {}
        self._skipped: list[str] = []
        self._complete = False

    def run(self) -> None:
        try:
            for name in store.names(self._root):
                if time.monotonic() > self._deadline:
                    return
                self._take(name)
        except OSError:  # the store vanished meanwhile
            return
        self._complete = True

    def _take(self, name: str) -> None:
        try:
            if store.no_gguf(name, self._root):  # of the cloud, or of MLX: the cache type does not concern it
                return
            stored = store.find(name, self._root)
            if stored is None:
                return
            own = store.parameter(name, self._option, self._root) if self._option else ""
            key = (stored.model, parse(own) if own else self._asked)
            if key not in self._found:
                found = self.examine(*key, name)
                with self._lock:
                    self._found[key] = found
            with self._lock:
                self._names.setdefault(key, []).append(name)
        except (ToolchainError, OSError, ValueError, TypeError, ArithmeticError, LookupError):
            # whatever a file holds: this is advice, and must not stop an installation
            with self._lock:
                self._skipped.append(name)

    def report(self) -> StoreReport:
        with self._lock:
            unsuited = [
                Unsuited(
                    models=tuple(sorted(names)), types=str(key[1]), loads=found[0], reason=found[1], instead=found[2]
                )
                for key, names in self._names.items()
                if (found := self._found[key])
            ]
            return StoreReport(
                unsuited=tuple(sorted(unsuited, key=lambda one: (one.loads, one.models))),
                looked=len(self._found),
                skipped=tuple(sorted(self._skipped)),
                complete=self._complete,
            )

    def examine(self, model: Path, types: CacheTypes, name: str) -> tuple[bool, str, str] | None:
        """Whether it loads, why the type does not suit it, and a type that does; None where nothing is known."""
        try:
            shape = _read(model)
        except ArchitectureUnknown:
            architecture = str(gguf.load(str(model)).metadata.get("general.architecture"))
            if why := sensitivity.fails_quantized(architecture, types, self._table):
                return True, why, "f16"
            if architecture in architectures.UNSERVED:
                return None  # no KV cache, or no model of its own
            raise
        loads, why = self._objection(types, shape, name)
        if not why:
            return None
        for candidate in sensitivity.candidates(self._added):
            if not self._objection(parse(candidate), shape, name)[1]:
                return loads, why, candidate
        return loads, why, "f16"

    def _objection(self, types: CacheTypes, shape: geometry.Geometry, name: str) -> tuple[bool, str]:
        try:
            if why := kv.obstacle(shape, types, self._table):
                return False, why
        except ConfigError as error:  # a rule for layers that it does not have
            return False, error.message
        if not shape.cached:
            return True, ""
        if why := sensitivity.known_loss(shape, types, self._table, name):
            return True, why
        if sensitivity.coarse(types.k, shape, self._table) and (heads := unrotated_heads(shape, types, self._table)):
            listed = " and ".join(map(str, heads))
            return True, f"it has heads of {listed}, which llama.cpp does not rotate, so it loses more than others"
        return True, ""


def _read(model: Path) -> geometry.Geometry:
    first = gguf.beginning(model)
    if first.metadata.get("general.architecture") in architectures.KNOWN - _TOLD_BY_TENSORS:
        try:
            return geometry.read(first)
        except ModelInvalid:
            pass  # its metadata are in another order
    return geometry.read(gguf.load(str(model)))
