"""What fits: contexts x cache types for one model on one machine.

    needed = weights + caches + working memory             must not exceed the budget
    budget = RAM - 5 GiB                                   for macOS and other programs

The weights are exact (every tensor of the file, and a projector's), so are the caches; the working memory is an
estimate. The largest context of each type is found by bisection over the steps in which llama.cpp allocates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...core.cachetypes.grammar import CacheTypes
from ...core.cachetypes.table import UPSTREAM, finer_keys
from ...core.records import record
from ...stages import CacheType
from .drafts import Draft
from .geometry import Geometry
from .gguf import ModelHeader
from .hardware import GIB as GIB
from .hardware import SYSTEM_BYTES as SYSTEM_BYTES
from .hardware import Hardware as Hardware
from .hardware import metal_notes
from .kv import PADDING, Setting, obstacle, sizes
from .rotation import note, unrotated_heads
from .sensitivity import gentler, known_loss
from .working import working_bytes

CONTEXTS = (8192, 16384, 32768, 65536, 131072)
PROMPT_CACHE_BYTES = 8 * GIB
"""llama-server's default limit for earlier prompts; --cache-ram (LLAMA_ARG_CACHE_RAM, in MiB) changes it"""

CALIBRATION_BYTES = 12
"""a channel of a layer's keys: a constant, a scale and its inverse, all f32"""


@record
class Cell:
    """One context with one type, in bytes. `fits` the budget; `gpu_fits` what Metal surely allows, `gpu_may_fit` what
    it may allow."""

    context: int
    kv: int
    working: int
    total: int
    fits: bool
    gpu_fits: bool
    gpu_may_fit: bool


@record
class TypePlan:
    """One cache type: its size at each context, and the largest context."""

    types: str
    obstacle: str
    """why llama.cpp would refuse it for this model; empty if supported"""
    kv_per_token: float
    """bytes, averaged over the longest context of the table"""
    cells: tuple[Cell, ...]
    largest_context: int
    """tokens; 0 when none fits, and never more than the model was trained on"""
    largest_gpu_context: int
    """the same within what Metal surely allows"""
    largest_gpu_context_at_most: int
    """the same within what it may allow"""


@record
class Recommendation:
    """The type with the most bits that reaches the goal; else the one with the largest context."""

    types: str
    context: int
    """the largest that fits"""
    reaches: bool
    reason: str
    """the goal is the longest requested context, up to the trained one"""


@record
class MemoryPlan:
    """The whole plan; sizes in bytes."""

    model: str
    architecture: str
    context_length: int
    """tokens that the model was trained on"""
    sequences: int
    batch: int
    weights: int
    ram: int
    budget: int
    gpu: int
    """what Metal surely allows"""
    gpu_most: int
    """what it may allow"""
    gpu_source: str
    types: tuple[TypePlan, ...]
    recommendation: Recommendation
    notes: tuple[str, ...]


def usual_types(added: Sequence[CacheType]) -> tuple[str, ...]:
    """The default types of a plan, with those that the series `added`."""
    return ("f16", "q8_0", *finer_keys(added), *(kind.name for kind in added))


def plan(
    model: ModelHeader,
    geometry: Geometry,
    machine: Hardware,
    *,
    types: Sequence[CacheTypes],
    table: Mapping[str, CacheType],
    contexts: Sequence[int] = (),
    setting: Setting | None = None,
    further_bytes: int = 0,
    calibrated: bool = False,
    draft: Draft | None = None,
) -> MemoryPlan:
    """Memory of `types` at `contexts` (tokens of one sequence; none: the usual ones up to the trained context).

    The context of `setting` is ignored. `further_bytes` are weights in other files (a projector), `draft` is what is
    loaded to draft tokens. With `calibrated`, a calibration of keys is counted, of all heads. `table` has the size of
    every type. Raises `ConfigError` for a type that is not in it, or rules beyond the model's layers.
    """
    setting = setting or Setting(context=PADDING)
    contexts = tuple(contexts) or _usual(geometry)
    weights = model.tensor_bytes + further_bytes
    if calibrated and not geometry.mla:
        weights += CALIBRATION_BYTES * sum(layer.k for layer in geometry.cached)
    costs = _TypeCosts(geometry, machine, table, setting, weights, draft)
    planned = tuple(_plan_type(costs, one, contexts) for one in types)
    return MemoryPlan(
        model=str(model.metadata.get("general.name") or model.name),
        architecture=geometry.architecture,
        context_length=geometry.context_length,
        sequences=setting.sequences,
        batch=setting.batch,
        weights=weights + (draft.weights if draft else 0),
        ram=machine.ram,
        budget=machine.budget,
        gpu=machine.gpu,
        gpu_most=machine.gpu_most or machine.gpu,
        gpu_source=machine.gpu_source,
        types=planned,
        recommendation=_recommend(planned, min(max(contexts), geometry.context_length)),
        notes=(
            *_notes(model, geometry, machine, planned),
            *([draft.note] if draft else []),
            *_unrotated(geometry, types, planned, table),
            *_sensitive(geometry, types, planned, table),
        ),
    )


class _TypeCosts:
    def __init__(
        self,
        geometry: Geometry,
        machine: Hardware,
        table: Mapping[str, CacheType],
        setting: Setting,
        weights: int,
        draft: Draft | None,
    ) -> None:
        self.geometry = geometry
        self.table = table
        self._machine = machine
        self._setting = setting
        self._weights = weights
        self._draft = draft

    def at(self, types: CacheTypes, context: int) -> Cell:
        own = self._setting
        setting = Setting(context=context, sequences=own.sequences, unified=own.unified, batch=own.batch)
        caches = sizes(self.geometry, types, setting, self.table)
        working = working_bytes(self.geometry, setting, caches)
        total = self._weights + caches.bytes + working
        if self._draft:
            total += self._draft.bytes_at(setting, self.table)
        sure, most = self._machine.metal
        return Cell(
            context=context,
            kv=caches.bytes,
            working=working,
            total=total,
            fits=total <= self._machine.budget,
            gpu_fits=total <= sure,
            gpu_may_fit=total <= most,
        )


def _usual(geometry: Geometry) -> tuple[int, ...]:
    shorter = [context for context in CONTEXTS if context <= geometry.context_length]
    return tuple(shorter) or (geometry.context_length,)


def _plan_type(costs: _TypeCosts, types: CacheTypes, contexts: Sequence[int]) -> TypePlan:
    if why := obstacle(costs.geometry, types, costs.table):
        return TypePlan(
            types=str(types), obstacle=why, kv_per_token=0, cells=(),
            largest_context=0, largest_gpu_context=0, largest_gpu_context_at_most=0,
        )  # fmt: skip
    cells = tuple(costs.at(types, context) for context in contexts)
    longest = max(cells, key=lambda cell: cell.context)
    return TypePlan(
        types=str(types),
        obstacle="",
        kv_per_token=round(longest.kv / longest.context, 1),
        cells=cells,
        largest_context=_largest(costs, types, lambda cell: cell.fits),
        largest_gpu_context=_largest(costs, types, lambda cell: cell.fits and cell.gpu_fits),
        largest_gpu_context_at_most=_largest(costs, types, lambda cell: cell.fits and cell.gpu_may_fit),
    )


def _largest(costs: _TypeCosts, types: CacheTypes, fits: Callable[[Cell], bool]) -> int:
    """The most tokens that fit, up to the trained context. Memory grows with the context, in steps of llama.cpp's
    padding."""
    trained = costs.geometry.context_length
    low, high = 0, -(-trained // PADDING)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(costs.at(types, min(middle * PADDING, trained))):
            low = middle
        else:
            high = middle - 1
    return min(low * PADDING, trained)


def _recommend(planned: Sequence[TypePlan], goal: int) -> Recommendation:
    """More bits are more bytes for each token. Contexts that need a higher Metal limit come second."""
    possible = [one for one in planned if not one.obstacle]
    rooms: tuple[tuple[Callable[[TypePlan], int], str], ...] = (
        (lambda one: one.largest_gpu_context, ""),
        (lambda one: one.largest_gpu_context_at_most, ", where Metal's limit is that of newer macOS"),
        (lambda one: one.largest_context, ", with Metal's limit raised"),
    )
    for room, how in rooms:
        if reaching := [one for one in possible if room(one) >= goal]:
            best = max(reaching, key=lambda one: one.kv_per_token)
            reason = f"the type with the most bits that fits {goal} tokens{how}"
            return Recommendation(types=best.types, context=room(best), reaches=True, reason=reason)
    if not possible or not any(one.largest_context for one in possible):
        reason = "the weights leave no memory for a cache" if possible else "llama.cpp supports none of these types"
        return Recommendation(types="", context=0, reaches=False, reason=reason)
    best = max(possible, key=lambda one: (one.largest_context, one.kv_per_token))
    reason = f"none of these types fits {goal} tokens; this one has the largest context"
    return Recommendation(types=best.types, context=best.largest_context, reaches=False, reason=reason)


def _notes(model: ModelHeader, geometry: Geometry, machine: Hardware, planned: Sequence[TypePlan]) -> list[str]:
    notes = [geometry.assumed] if geometry.assumed else []
    if not all(cell.fits for one in planned for cell in one.cells):
        notes.append("! does not fit")
    if model.header_only:
        notes.append("the file has only a header; the size of the weights is taken from it")
    notes += metal_notes(machine, [cell.total for one in planned for cell in one.cells if cell.fits])
    if not machine.gpu:
        notes.append(
            "not counted: a CPU may keep a second, repacked copy of quantized weights; the first can be dropped"
        )
    notes.append(
        f"not counted: llama-server may keep up to {PROMPT_CACHE_BYTES / GIB:g} GiB of earlier prompts; "
        "LLAMA_ARG_CACHE_RAM=0 in the environment turns that off"
    )
    return notes


def _unrotated(
    geometry: Geometry, types: Sequence[CacheTypes], planned: Sequence[TypePlan], table: Mapping[str, CacheType]
) -> list[str]:
    loading = [one for one, plan in zip(types, planned, strict=True) if not plan.obstacle]
    heads = {head for one in loading for head in unrotated_heads(geometry, one, table)}
    return [note(sorted(heads))] if heads else []


def _sensitive(
    geometry: Geometry, types: Sequence[CacheTypes], planned: Sequence[TypePlan], table: Mapping[str, CacheType]
) -> list[str]:
    """A note for each kind of loss that is known, with its types and one that does better."""
    losing: dict[str, list[str]] = {}
    for one, plan in zip(types, planned, strict=True):
        if geometry.cached and not plan.obstacle and (why := known_loss(geometry, one, table, "MODEL")):
            losing.setdefault(why, []).append(str(one))
    better = gentler(geometry, [kind for kind in table.values() if kind not in UPSTREAM])
    return [f"{', '.join(names)}: {why}; better: {better}" for why, names in losing.items()]
