"""The verification checklist: the verdicts on the built programs of a release, each with its evidence.

The evidence is numbers that the programs themselves produce (see `evidence`); here they are judged. Without numbers,
the verdicts that need them fail.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..core.cachetypes.table import bits_per_value
from ..core.errors import ToolchainError
from ..stages import CacheType, Release, Verdict
from . import evidence
from .evidence import Device, GraphEvidence, OperationEvidence, Probed, Rotation, TypeEvidence

NAMES = (
    "the rotation is a Walsh-Hadamard transform",
    "the same rotation on the way in and out",
    "the codebook is Lloyd-Max for what the encoder produces",
    "the radius is stored apart, at FP16 or better",
    "no hidden constants",
    "quantizing and dequantizing agree on every backend",
)

# The fit contains the noise of the quantized cache: 0.05 at 4 bits, 0.23 at 2; for a dense random matrix it is 0.64.
_MAX_DEVIATION, _MAX_SKEW = 0.35, 0.5
_MIN_TRANSFORM = 64
_MAX_TRANSFORM_ERROR = 1e-3
# With a wrong inverse, the next layer's relative error is about 1.
_MAX_GRAPH_ERROR, _MAX_GRAPH_EXCESS = 0.6, 1.2
# A full FP16 radius has an error below 2^-11; one whose low four bits are used otherwise, up to 2^-7.
_SPARE_BITS, _MAX_RADIUS_ERROR, _MAX_RADIUS_COST = 4, 2**-7 + 2**-10, 0.005
# Levels of a uniform quantizer, rounded to integers, are within 0.5 of even steps.
_MIN_UNEVENNESS = 1.5
_MAX_EXCESS = 0.01
_MAX_LEVELS = 256
_MANTISSA_SHARE = (0.25, 0.75)
_MAX_FRACTION = 1e-3
# A query is rounded to q8_0 or f16 before it is multiplied with a quantized key.
_MAX_PRODUCT_ERROR = 0.02
_MAX_ENCODER_RATIO = 1.01
_ENCODERS = ("SET_ROWS", "CPY to it")
_DECODERS = ("GET_ROWS", "CPY from it")
_NEEDED = ("SET_ROWS", "GET_ROWS", "MUL_MAT")
_NEEDED_ON_A_GPU = ("SET_ROWS", "FLASH_ATTN_EXT of 1", "FLASH_ATTN_EXT of many")
"""operations that a cache with flash attention needs"""


def examine(
    release_dir: Path,
    release: Release,
    model: Path,
    head_size: int,
    *,
    folder: Path,
    timeout_s: float,
    gpu_needed: str = "",
) -> tuple[Verdict, ...]:
    """The verdicts on a release's programs; none for a release that adds no types.

    `model` has heads of `head_size`, a power of two from 64 on; temporary files go to `folder`. `gpu_needed` as in
    `judge`.
    """
    if not release.cache_types:
        return ()
    finest = max(release.cache_types, key=bits_per_value)
    probed: Probed | ToolchainError
    graph: GraphEvidence | ToolchainError
    try:
        probed = evidence.probe(release_dir, [kind.name for kind in release.cache_types])
    except ToolchainError as error:
        probed = error
    try:
        graph = evidence.examine_graph(release_dir, model, head_size, finest.name, folder=folder, timeout_s=timeout_s)
    except ToolchainError as error:
        graph = error
    return judge(probed, graph, release.cache_types, gpu_needed)


def judge(
    probed: Probed | ToolchainError,
    graph: GraphEvidence | ToolchainError,
    kinds: Sequence[CacheType],
    gpu_needed: str = "",
) -> tuple[Verdict, ...]:
    """The verdicts on this evidence, or on why there is none.

    `gpu_needed` is the reason why a device other than the CPU must have been compared; empty: none is needed.
    """
    facts: list[list[tuple[bool, str]]] = [[] for _ in NAMES]
    if isinstance(graph, GraphEvidence):
        facts[0] += map(_is_transform, graph.rotations)
        facts[1].append(_returns(graph))
    else:
        facts[0].append((False, graph.message))
        facts[1].append((False, graph.message))
    if isinstance(probed, Probed):
        facts[0] += _transforms(probed.devices)
        facts[1] += _twice(probed.devices)
        for kind in probed.types:
            facts[2].append(_is_lloyd_max(kind))
            facts[3].append(_has_radius(kind))
        facts[4] += [_has_nothing_hidden(found, kind) for found, kind in zip(probed.types, kinds, strict=True)]
        facts[5] += [_agree(device, name) for device in probed.devices for name in _names(kinds)]
        facts[5] += [_is_served(probed.devices, name) for name in _names(kinds)]
        if gpu_needed:
            facts[5] += [_is_on_a_gpu(probed.devices, name, gpu_needed) for name in _names(kinds)]
    else:
        for found in facts[2:]:
            found.append((False, probed.message))
    return tuple(_verdict(number, found) for number, found in enumerate(facts, start=1))


def _verdict(number: int, facts: Sequence[tuple[bool, str]]) -> Verdict:
    """Failed if any fact is false, or without facts; false facts are listed first."""
    ok = bool(facts) and all(holds for holds, _ in facts)
    shown = [words for holds, words in sorted(facts, key=lambda fact: fact[0]) if words]
    return Verdict(number=number, name=NAMES[number - 1], ok=ok, evidence="; ".join(shown) or "no evidence")


def _names(kinds: Sequence[CacheType]) -> list[str]:
    return [kind.name for kind in kinds]


def _is_transform(found: Rotation) -> tuple[bool, str]:
    if found.n < _MIN_TRANSFORM:
        return False, f"llama-server caches {found.side} unrotated, or with a transform of at most {found.n} values"
    holds = found.deviation < _MAX_DEVIATION and found.skew < _MAX_SKEW and found.signs == 0 and found.leak < 1.0
    return holds, (
        f"{found.side} of heads of {found.head_size} is cached after a matrix with blocks of {found.n}: entries off "
        f"1/sqrt({found.n}) by {found.deviation:.0%}, {found.signs} signs not Walsh-Hadamard's, orthogonal within "
        f"{found.skew:.2f}"
    )


def _transforms(devices: Sequence[Device]) -> Iterator[tuple[bool, str]]:
    for device in devices:
        done = [one for one in device.rotations if one.done]
        if done:
            worst = max(max(one.entries, one.skew) for one in done)
            sizes = " and ".join(str(one.n) for one in done)
            yield worst < _MAX_TRANSFORM_ERROR, f"{device.name} transforms {sizes} values exact to {worst:.1e}"


def _returns(found: GraphEvidence) -> tuple[bool, str]:
    holds = found.rotated < _MAX_GRAPH_ERROR and found.plain < _MAX_GRAPH_ERROR
    holds = holds and found.rotated < _MAX_GRAPH_EXCESS * found.plain
    return holds, (
        f"behind attention over {found.cache_type}, K and V differ from those with f16 by {found.rotated:.1%} with the "
        f"rotation and {found.plain:.1%} without"
    )


def _twice(devices: Sequence[Device]) -> Iterator[tuple[bool, str]]:
    for device in devices:
        done = [one.twice for one in device.rotations if one.done]
        if done:
            yield max(done) < _MAX_TRANSFORM_ERROR, f"{device.name}: twice gives the identity within {max(done):.1e}"


def _is_lloyd_max(found: TypeEvidence) -> tuple[bool, str]:
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


def _has_radius(found: TypeEvidence) -> tuple[bool, str]:
    """The radius is a whole FP16 number, separate from the levels except for its lowest bits, and near the best one."""
    low, high = _MANTISSA_SHARE
    first, second = found.codebooks
    used = sum(low * found.radii <= count <= high * found.radii for count in found.mantissa)
    shared = [bit for bit, blocks in enumerate(found.shared) if blocks]
    off = max(first.off, second.off)
    holds = used == len(found.mantissa) and found.doubled == 0 and first.inexact + second.inexact == 0
    holds = holds and all(bit < _SPARE_BITS for bit in shared)
    holds = holds and off < _MAX_RADIUS_ERROR and first.cost < _MAX_RADIUS_COST
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


def _has_nothing_hidden(found: TypeEvidence, kind: CacheType) -> tuple[bool, str]:
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


def _agree(device: Device, name: str) -> tuple[bool, str]:
    operations = next((kind.operations for kind in device.types if kind.name == name), ())
    done = [one for one in operations if one.of]
    if not done:
        return True, f"{device.name} does not support {name}"
    wrong = [one for one in done if not _as_the_reference(one, device)]
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


def _is_served(devices: Sequence[Device], name: str) -> tuple[bool, str]:
    """Some device must support all operations that a cache needs."""
    for device in devices:
        done = {one.op for kind in device.types if kind.name == name for one in kind.operations if one.of}
        if done.issuperset(_NEEDED):
            return True, ""
    return False, f"no backend supports {', '.join(_NEEDED)} with {name}"


def _is_on_a_gpu(devices: Sequence[Device], name: str, why: str) -> tuple[bool, str]:
    """Some device other than the CPU was compared on all operations that a cache needs."""
    kinds = [kind for device in devices if not device.cpu for kind in device.types if kind.name == name]
    holds = any({one.op for one in kind.operations if one.of}.issuperset(_NEEDED_ON_A_GPU) for kind in kinds)
    return holds, "" if holds else f"{why}, and no GPU was compared on {', '.join(_NEEDED_ON_A_GPU)} of {name}"
