"""The verification checklist: the verdicts on the built programs of a release, each with its evidence.

The evidence is numbers that the programs themselves produce (see `evidence`); here they are judged. Without numbers,
the verdicts that need them fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..build.release import is_go_alone, programs
from ..core.cachetypes.table import bits_per_value
from ..core.errors import ToolchainError
from ..core.records import record
from ..proofs import GpuProof, GpuStart, Verdict
from ..sources.eras.era import LLAMA_SERVER
from ..stages import CacheType, Release
from . import attention, engines, evidence, gpu, on_gpu
from .engines import EngineTest
from .evidence import GraphEvidence, Rotation
from .probed import Device, OperationEvidence, Probed, TypeEvidence

Fact: TypeAlias = tuple[bool | None, str]
"""whether something holds, and the figures; None: it could not be asked, and why"""

# The fit contains the noise of the quantized cache: 0.05 at 4 bits, 0.23 at 2; for a dense random matrix it is 0.64.
_MAX_DEVIATION, _MAX_SKEW = 0.35, 0.5
_MIN_TRANSFORM = 64
_MAX_TRANSFORM_ERROR = 1e-3
# With a wrong inverse, the next layer's relative error is about 1.
_MAX_GRAPH_ERROR, _MAX_GRAPH_EXCESS = 0.6, 1.2
# A full FP16 radius has an error below 2^-11; one whose low four bits are used otherwise, up to 2^-7. What that costs
# is a share of the values' energy, whatever the type's own error: even steps of 2^-6 would be 2^-12 / 12 = 2^-15.6.
_SPARE_BITS, _MAX_RADIUS_ERROR, _MAX_RADIUS_COST = 4, 2**-7 + 2**-10, 2**-16
# Levels of a uniform quantizer, rounded to integers, are within 0.5 of even steps.
_MIN_UNEVENNESS = 1.5
_MAX_EXCESS = 0.01
_MAX_LEVELS = 256
_MANTISSA_SHARE = (0.25, 0.75)
_MAX_FRACTION = 1e-3
_MAX_PRODUCT_ERROR = attention.MAX_ERROR
_MAX_ENCODER_RATIO = 1.01
_MOST_SHOWN = 5
_ENCODERS = ("SET_ROWS", "CPY to it")
_DECODERS = ("GET_ROWS", "CPY from it")
_NEEDED = ("SET_ROWS", "GET_ROWS", "MUL_MAT")


@record
class Unasked:
    """Why the release cannot be asked for a piece of evidence, for no fault of its own."""

    reason: str


@record
class Examined:
    """The evidence, or why there is none. `gpu_needed` is the reason why a GPU has to do all that a cache needs; empty:
    none has to. `gpu` is what llama-server did there."""

    probed: Probed | ToolchainError | Unasked
    graph: GraphEvidence | ToolchainError | None
    """none where the release has no llama-server"""
    kinds: tuple[CacheType, ...]
    engines: tuple[EngineTest, ...] | Unasked = ()
    """the tests in its tree, of a release without llama-server"""
    gpu_needed: str = ""
    gpu: GpuProof | ToolchainError | Unasked = GpuProof(starts=(), comparisons=())


Check: TypeAlias = Callable[[Examined], Iterable[Fact]]


def examine(
    release_dir: Path,
    release: Release,
    model: Path,
    head_size: int,
    *,
    folder: Path,
    timeout_s: float,
    gpu_needed: str = "",
    starts: tuple[GpuStart, ...] = (),
    tests: Callable[[], tuple[EngineTest, ...]] | None = None,
) -> Examined | None:
    """The evidence on a release's programs; None for a release that adds no types.

    `model` has heads of `head_size`, a power of two from 64 on; temporary files go to `folder`. `gpu_needed` as in
    `Examined`; `starts` were measured before. `tests` runs those of the release's tree, and is called for a release
    without llama-server; what it raises says why they were not run.
    """
    if not release.cache_types:
        return None
    finest = max(release.cache_types, key=bits_per_value)
    has_server = LLAMA_SERVER in programs(release)
    probed: Probed | ToolchainError | Unasked
    graph: GraphEvidence | ToolchainError | None = None
    tested: tuple[EngineTest, ...] | Unasked = ()
    measured: GpuProof | ToolchainError | Unasked = GpuProof(starts=(), comparisons=())
    if is_go_alone(release):
        probed = Unasked(reason=f"{release.id} has no turbo-probe: Go alone compiled it")
    else:
        try:
            probed = evidence.probe(release_dir, [kind.name for kind in release.cache_types])
        except ToolchainError as error:
            probed = error
    if not has_server:
        try:
            tested = tests() if tests else Unasked(reason="the tests of its tree were not run")
        except ToolchainError as error:
            tested = Unasked(reason=f"the tests of its tree were not run: {error.message}")
    if has_server:
        try:
            graph = evidence.examine_graph(
                release_dir, model, head_size, finest.name, folder=folder, timeout_s=timeout_s
            )
        except ToolchainError as error:
            graph = error
    if gpu_needed and not has_server:
        measured = Unasked(reason=f"{release.id} has no llama-server to compare the GPU with the CPU")
    elif gpu_needed:
        try:
            asked = gpu.caches(release.cache_types)
            compared = gpu.examine(release_dir, model, asked, folder=folder, timeout_s=timeout_s)
            measured = GpuProof(starts=starts, comparisons=compared)
        except ToolchainError as error:
            measured = error
    return Examined(
        probed=probed,
        graph=graph,
        kinds=release.cache_types,
        engines=tested,
        gpu_needed=gpu_needed,
        gpu=measured,
    )


def judge(found: Examined) -> tuple[Verdict, ...]:
    """The verdicts on this evidence; the last one only where a GPU is needed."""
    asked = _CHECKS if found.gpu_needed else _CHECKS[:-1]
    return tuple(_verdict(number, name, list(check(found))) for number, (name, check) in enumerate(asked, start=1))


def _verdict(number: int, name: str, facts: Sequence[Fact]) -> Verdict:
    """Failed if any fact is false, or without facts; unknown if none could be asked. False facts are listed first,
    then those that could not be asked."""
    found = [holds for holds, _ in facts]
    shown = [words for _, words in sorted(facts, key=lambda fact: (False, None, True).index(fact[0])) if words]
    return Verdict(
        number=number,
        name=name,
        ok=True in found and False not in found,
        evidence="; ".join(shown) or "no evidence",
        unknown=bool(found) and set(found) == {None},
    )


def _on_rotation(found: Examined) -> Iterator[Fact]:
    if isinstance(found.graph, ToolchainError):
        yield False, found.graph.message
    elif found.graph:
        yield from map(_is_transform, found.graph.rotations)
    if isinstance(found.probed, Probed):
        yield from _transforms(found.probed.devices)
    yield from _tested(found, engines.ROTATION)


def _on_way_back(found: Examined) -> Iterator[Fact]:
    if isinstance(found.graph, ToolchainError):
        yield False, found.graph.message
    elif found.graph:
        yield _returns(found.graph)
    if isinstance(found.probed, Probed):
        yield from _twice(found.probed.devices)
    yield from _tested(found, engines.ATTENTION)


def _tested(found: Examined, name: str) -> Iterator[Fact]:
    """The outcome of a test in the release's tree, with the figures of the release's types."""
    if isinstance(found.engines, Unasked):
        yield None, f"what Ollama's engine makes of it is unknown: {found.engines.reason}"
        return
    for one in found.engines:
        if one.name == name:
            shown = tuple(f"head {engines.HEAD_SIZE}, {kind}," for kind in _names(found.kinds))
            figures = [line for line in one.figures if line.startswith(shown)] if one.ok else one.wrong[:_MOST_SHOWN]
            said = "passes" if one.ok else "fails"
            yield one.ok, ": ".join(filter(None, (f"{name} {said} in the release's tree", ", ".join(figures))))


def _unknown(found: ToolchainError | Unasked) -> Fact:
    """The fact that there is no evidence: a failure, unless the release could not be asked."""
    return (None, found.reason) if isinstance(found, Unasked) else (False, found.message)


def _on_types(about: Callable[[TypeEvidence, CacheType], Fact]) -> Check:
    def check(found: Examined) -> Iterator[Fact]:
        if not isinstance(found.probed, Probed):
            yield _unknown(found.probed)
        else:
            yield from map(about, found.probed.types, found.kinds)

    return check


def _on_backends(found: Examined) -> Iterator[Fact]:
    if not isinstance(found.probed, Probed):
        yield _unknown(found.probed)
        return
    devices = found.probed.devices
    yield from (_agree(device, name) for device in devices for name in _names(found.kinds))
    yield from (_is_served(devices, name) for name in _names(found.kinds))


def _on_gpu(found: Examined) -> Iterator[Fact]:
    """Some GPU does all of it by itself, and llama-server uses it."""
    if not isinstance(found.probed, Probed):
        yield _unknown(found.probed)
    else:
        gpus = [device for device in found.probed.devices if not device.cpu]
        if not gpus:
            yield False, f"{found.gpu_needed}, and the built libraries find none"
        for name in _names(found.kinds) if gpus else ():
            lacking = [on_gpu.lacks(device, name) for device in gpus]
            yield (True, f"{gpus[lacking.index('')].name} does all of {name}") if "" in lacking else (False, lacking[0])
    if isinstance(found.gpu, Unasked):
        # no comparison is no proof, whatever the operations do
        yield None if isinstance(found.probed, Unasked) else False, found.gpu.reason
    elif isinstance(found.gpu, ToolchainError):
        yield False, found.gpu.message
    else:
        yield from map(on_gpu.computes_there, found.gpu.comparisons)
        yield from map(on_gpu.agrees_with_cpu, found.gpu.comparisons)
        if not found.gpu.comparisons:
            yield False, "llama-server was not compared"


def _names(kinds: Sequence[CacheType]) -> list[str]:
    return [kind.name for kind in kinds]


def _is_transform(found: Rotation) -> Fact:
    if found.n < _MIN_TRANSFORM:
        return False, f"llama-server caches {found.side} unrotated, or with a transform of at most {found.n} values"
    holds = found.deviation < _MAX_DEVIATION and found.skew < _MAX_SKEW and found.signs == 0 and found.leak < 1.0
    return holds, (
        f"{found.side} of heads of {found.head_size} is cached after a matrix with blocks of {found.n}: entries off "
        f"1/sqrt({found.n}) by {found.deviation:.0%}, {found.signs} signs not Walsh-Hadamard's, orthogonal within "
        f"{found.skew:.2f}"
    )


def _transforms(devices: Sequence[Device]) -> Iterator[Fact]:
    for device in devices:
        done = [one for one in device.rotations if one.done]
        if done:
            worst = max(max(one.entries, one.skew) for one in done)
            sizes = " and ".join(str(one.n) for one in done)
            yield worst < _MAX_TRANSFORM_ERROR, f"{device.name} transforms {sizes} values exact to {worst:.1e}"


def _returns(found: GraphEvidence) -> Fact:
    holds = found.rotated < _MAX_GRAPH_ERROR and found.plain < _MAX_GRAPH_ERROR
    holds = holds and found.rotated < _MAX_GRAPH_EXCESS * found.plain
    return holds, (
        f"behind attention over {found.cache_type}, K and V differ from those with f16 by {found.rotated:.1%} with the "
        f"rotation and {found.plain:.1%} without"
    )


def _twice(devices: Sequence[Device]) -> Iterator[Fact]:
    for device in devices:
        done = [one.twice for one in device.rotations if one.done]
        if done:
            yield max(done) < _MAX_TRANSFORM_ERROR, f"{device.name}: twice gives the identity within {max(done):.1e}"


def _is_lloyd_max(found: TypeEvidence) -> Fact:
    """Every level is the mean of the values assigned to it (else moving it there would reduce distortion), and the
    levels are not the even steps of a uniform quantizer. The second codebook is for blocks that are not Gaussian, and
    must have a better SNR on those than the first has on its own."""
    first, second = found.codebooks
    levels = np.array([one.level for one in first.levels], dtype=np.float64)
    counts = np.array([one.count for one in first.levels], dtype=np.float64)
    if len(levels) < 2 or first.distortion <= 0:
        return False, f"{found.name} decodes to {len(levels)} levels"
    means = np.array([one.mean for one in first.levels])
    excess = float((counts * (means - levels) ** 2).sum() / counts.sum() / first.distortion)
    steps = np.arange(len(levels))
    unevenness = float(np.abs(levels - np.polyval(np.polyfit(steps, levels, 1), steps)).max())
    holds = excess < _MAX_EXCESS and unevenness > _MIN_UNEVENNESS and len(levels) <= _MAX_LEVELS
    holds = holds and second.blocks > 0 and second.snr_db > first.snr_db
    return holds, (
        f"{found.name}: moving its {len(levels)} levels to the means of their {int(counts.sum())} values would save "
        f"{excess:.2%} of the squared error, they are up to {unevenness:.1f} from even steps, {first.snr_db:.2f} dB; "
        f"{second.blocks} blocks far from Gaussian take {len(second.levels)} levels of a second codebook, "
        f"{second.snr_db:.2f} dB"
    )


def _has_radius(found: TypeEvidence) -> Fact:
    """The radius is a whole FP16 number, separate from the levels except for its lowest bits, and near the best one."""
    low, high = _MANTISSA_SHARE
    first, second = found.codebooks
    used = sum(low * found.radii <= count <= high * found.radii for count in found.mantissa)
    shared = [bit for bit, blocks in enumerate(found.shared) if blocks]
    off = max(first.off, second.off)
    holds = used == len(found.mantissa) and found.doubled == 0 and first.inexact + second.inexact == 0
    holds = holds and all(bit < _SPARE_BITS for bit in shared)
    holds = holds and off < _MAX_RADIUS_ERROR and first.cost * 10 ** (-first.snr_db / 10) < _MAX_RADIUS_COST
    words = (
        f"{found.name}: {used} of the {len(found.mantissa)} bits of the radius' FP16 mantissa are in use, twice the "
        f"radius changes {found.values - found.doubled} of {found.values} values to exactly twice"
    )
    if shared:
        words += (
            f"; its bits {shared[0]} to {shared[-1]} also begin the path, so it is up to {off:.2%} from the best one, "
            f"for {first.cost:.2%} more squared error ({second.cost:.2%} with the second codebook)"
        )
    return holds, words


def _has_nothing_hidden(found: TypeEvidence, kind: CacheType) -> Fact:
    if (found.block, found.bytes) != (kind.block, kind.bytes):
        return False, (
            f"{found.name} takes {found.bytes} bytes for {found.block} values, the release states {kind.bytes} for "
            f"{kind.block}"
        )
    counts = {
        "decoded values that depend on earlier data": found.later,
        "on their place": found.moved,
        "encoded bytes that depend on the row": found.narrow,
        "on their place in it": found.turned,
        "values that are not 128ths of the radius times level": sum(one.inexact for one in found.codebooks),
    }
    holds = not any(counts.values())
    for one in found.codebooks:
        holds = holds and one.fraction < _MAX_FRACTION and len(one.levels) <= _MAX_LEVELS
    return holds, (
        f"{found.name}: {bits_per_value(kind):g} bits per value and nothing else; "
        + ", ".join(f"{count} {words}" for words, count in counts.items())
    )


def _agree(device: Device, name: str) -> Fact:
    operations = next((kind.operations for kind in device.types if kind.name == name), ())
    done = [one for one in operations if one.of]
    if not done:
        return True, f"{device.name} does not support {name}"
    wrong_attention = attention.wrong(device, name)
    wrong = [one for one in done if not _as_the_reference(one, device)]
    if wrong_attention:
        return False, wrong_attention
    if wrong:
        return False, f"{name} on {device.name}: " + ", ".join(
            f"{one.op}: {one.differs} of {one.of} differ, error {one.error:.2g}" for one in wrong
        )
    return True, f"{name} on {device.name}: {', '.join(one.op for one in done)} as the reference"


def _as_the_reference(one: OperationEvidence, device: Device) -> bool:
    """Bit-identical, except that devices may choose another radius that is as good, and that products are rounded."""
    if one.op in _DECODERS or (one.op in _ENCODERS and device.cpu):
        return one.differs == 0
    if one.op in _ENCODERS:
        return one.error <= _MAX_ENCODER_RATIO * one.reference
    return one.error <= _MAX_PRODUCT_ERROR


def _is_served(devices: Sequence[Device], name: str) -> Fact:
    """Some device must support all operations that a cache needs."""
    for device in devices:
        done = {one.op for kind in device.types if kind.name == name for one in kind.operations if one.of}
        if done.issuperset(_NEEDED):
            return True, ""
    return False, f"no backend supports {', '.join(_NEEDED)} with {name}"


_CHECKS: tuple[tuple[str, Check], ...] = (
    ("the rotation is a Walsh-Hadamard transform", _on_rotation),
    ("the same rotation on the way in and out", _on_way_back),
    ("the codebook is Lloyd-Max for what the encoder produces", _on_types(lambda found, _: _is_lloyd_max(found))),
    ("the radius is stored apart, at FP16 or better", _on_types(lambda found, _: _has_radius(found))),
    ("no hidden constants", _on_types(_has_nothing_hidden)),
    ("quantizing and dequantizing agree on every backend", _on_backends),
    ("the GPU does all that a cache needs, as the CPU does", _on_gpu),
)
NAMES = tuple(name for name, _ in _CHECKS)
"""of the verdicts; the last one is given where a GPU is needed"""
