"""What llama-server's log proves: the type, size and rotation of each KV cache, and the context shifts.

No API of Ollama shows the type of a cache. llama-server prints one line for each cache that it has allocated,
with the tensors' actual sizes; that line is the proof. Sizes are printed in MiB with two decimals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ..core.cachetypes import grammar
from ..core.cachetypes.table import row_bytes, type_table
from ..core.printable import printable
from ..core.records import record
from ..core.variables import CALIBRATION as CALIBRATION
from ..proofs import CachePart, CacheProof
from ..stages import CacheType
from .probe_model import ProbeGeometry

MIB = 1 << 20
CELL_PADDING = 256
"""llama.cpp rounds the cells of a context up to a multiple of this"""

# Every repetition is bounded: a log may hold anything, and lines of any length.
_NUMBER = r"(\d{1,9}(?:\.\d{1,6})?)"
_NAME = r"([\w+]{1,200})"
_GAP = " {1,20}"
_MOST_CHARACTERS = 4096
"""of a line that is looked at"""
_FLOATS = frozenset(("f32", "f16", "bf16"))
_MOST_PARTS = 1000
"""of one cache: K and V of every layer at most"""
_CACHE = re.compile(
    rf"o?llama_kv_cache\w{{0,40}}: size ={_GAP}{_NUMBER} MiB \( {{0,20}}(\d{{1,9}}) cells,{_GAP}(\d{{1,4}}) layers,"
    rf"{_GAP}\d{{1,4}}/\d{{1,4}} seqs\), K \({_NAME}\):{_GAP}{_NUMBER} MiB, V \({_NAME}\):{_GAP}{_NUMBER} MiB"
)
_PART = re.compile(
    r"llama_kv_cache: ([KV]) of attention layers (\d{1,4}(?:[,-]\d{1,4})*) \(of (\d{1,4})\): (\w{1,40}), "
    rf"{_NUMBER} MiB"
)
_ROTATION = re.compile(r"attn_rot_([kv]) = (\d)")
_CALIBRATION_LINE = "calibration of keys is "
_CALIBRATED = re.compile(r"calibration of keys is on: (\d{1,4}) layers")
SHIFT_LINES = ("slot context shift", "context limit hit - shifting")
"""how lines on a context shift start: llama-server's, and those of Ollama's own runners"""
_SHIFT = re.compile(
    rf"{SHIFT_LINES[0]}, n_keep = \d+, n_left = \d+, n_discard = [1-9]\d*"
    rf'|{SHIFT_LINES[1]}" (?:\w{{1,20}}=\d{{1,9}} ){{0,9}}discard=[1-9]\d*'
)
WORDING = "b10488"
"""the llama.cpp whose wording is read; older ones say the same"""
_SIZE_SOMEHOW = re.compile(r"(?=.*kv)(?=.*cache)(?!.*buffer size).*\d (?:[KMG]i?B|bytes)\b", re.IGNORECASE)
_SHIFT_SOMEHOW = re.compile(r".*context.{0,20}shift|.*shift.{0,20}context", re.IGNORECASE)
_BUILD = re.compile(r"\bbuild (\d{1,7}) \(|\bbuild(?:_info)?: (b?\d[\w.-]{0,60})|\bversion: (v?\d[\w.-]{0,60})")


@record
class Cache:
    """One KV cache of the log; whether K and V are rotated before they are quantized (None: the log does not say)."""

    proof: CacheProof
    rotated_k: bool | None
    rotated_v: bool | None


def cache_bytes(kind: CacheType, geometry: ProbeGeometry, *, cells: int, layers: int) -> int:
    """Bytes of K (or of V) in a cache: rows of `kv_width` values, packed in blocks, for each cell and layer."""
    return row_bytes(kind, geometry.kv_width) * cells * layers


def stated(log: str) -> tuple[Cache, ...]:
    """The KV caches that a log states, in its order (a model with a sliding window has several); their
    `expected_bytes` are 0. Prefixes of a logger and all other lines are ignored.
    """
    found: list[Cache] = []
    for line in log.splitlines():
        if len(line) > _MOST_CHARACTERS:
            continue
        if match := _CACHE.search(line):
            found.append(Cache(proof=_proof(match), rotated_k=None, rotated_v=None))
        elif found and (match := _PART.search(line)) and (part := _part(match)):
            proof = found[-1].proof
            if len(proof.parts) < _MOST_PARTS:
                found[-1] = replace(found[-1], proof=replace(proof, parts=(*proof.parts, part)))
        elif found and (match := _ROTATION.search(line)):
            on = match[2] != "0"
            found[-1] = replace(found[-1], rotated_k=on) if match[1] == "k" else replace(found[-1], rotated_v=on)
    return tuple(found)


def caches(log: str, geometry: ProbeGeometry, added: Iterable[CacheType]) -> tuple[Cache, ...]:
    """The KV caches that a log states, with their exact bytes.

    `expected_bytes` follows from the line's cells and layers, the model's `geometry` and the size of the stated types,
    layer by layer if there are rules; it is 0 for a type that is neither upstream's nor `added` by the series.
    """
    types = type_table(added)
    return tuple(
        replace(cache, proof=replace(cache.proof, expected_bytes=_bytes(cache.proof, geometry, types)))
        for cache in stated(log)
    )


def context_shifts(log: str) -> int:
    """How often a server dropped half of a full context and moved the rest."""
    return len(_SHIFT.findall(log))


def calibrated_layers(log: str) -> int | None:
    """The number of layers whose keys are calibrated; None if the log does not say that there are any.

    A model with a sliding window has a line for each of its two caches.
    """
    found = [int(match[1]) for line in log.splitlines() if (match := _CALIBRATED.search(line[:_MOST_CHARACTERS]))]
    return sum(found) if found else None


def objection(log: str, asked: str, environment: Mapping[str, str]) -> str:
    """Why a server's log does not prove the requested cache types, or knows nothing of the calibration that
    `environment` names; empty if it proves them."""
    found = [one.proof for one in stated(log)]
    wrong = mismatch(found, asked, sum(one.layers for one in found)) if found else unstated(log)
    return wrong or uncalibrated(log, environment)


def uncalibrated(log: str, environment: Mapping[str, str]) -> str:
    """That a server with quantized keys knows nothing of the calibration that `environment` names; empty if it does.

    A model without a file in that folder is calibrated no more, but the log says so.
    """
    quantized = any(not _FLOATS.issuperset(one.proof.type_k.split("+")) for one in stated(log))
    if not environment.get(CALIBRATION) or not quantized or _CALIBRATION_LINE in log:
        return ""
    return f"{CALIBRATION} is set, but the log does not mention a calibration of keys: the release is too old for one"


def unstated(log: str) -> str:
    """Why `stated` finds no cache in a log, for a message: it states none, or another version words the line anew."""
    return f"the log states no KV cache{_worded_anew(log, _SIZE_SOMEHOW)}"


def unshifted(log: str) -> str:
    """Why `context_shifts` finds none in a log, for a message."""
    return f"the log states no context shift{_worded_anew(log, _SHIFT_SOMEHOW)}"


def _worded_anew(log: str, mention: re.Pattern[str]) -> str:
    """What the log says of it in other words, with both versions; empty where it says nothing."""
    lines = [line for line in log.splitlines() if len(line) <= _MOST_CHARACTERS]
    said = next((line for line in reversed(lines) if mention.match(line)), "")
    if not said:
        return ""
    build = next((found for line in lines if (found := _BUILD.search(line))), None)
    theirs = f"llama.cpp {next(filter(None, build.groups()))}" if build else "a llama.cpp that does not name its build"
    return (
        f" in the words of llama.cpp {WORDING}, which are read here; it is of {theirs} and says: {printable(said, 200)}"
    )


def complaint(
    found: Sequence[Cache], kv_cache_type: str, geometry: ProbeGeometry, num_ctx: int, added: Sequence[CacheType]
) -> str:
    """How the caches of one model differ from the request; empty if all is proven.

    Checks that every layer has K and V of `kv_cache_type` and room for `num_ctx` tokens, that sizes agree with the
    types' bytes within the log's rounding, and that K and V of types `added` by the series are rotated.
    """
    if not found:
        return "the log states no KV cache"
    if (layers := sum(cache.proof.layers for cache in found)) != geometry.layers:
        return f"the caches hold {layers} layers, the model has {geometry.layers}"
    if reason := mismatch([cache.proof for cache in found], kv_cache_type, geometry.layers):
        return reason
    types = type_table(added)
    for cache in found:
        proof = cache.proof
        if not num_ctx <= proof.cells < num_ctx + CELL_PADDING:
            return f"asked for {num_ctx} cells, the cache has {proof.cells}"
        for side, name, layers, stated in portions(proof):
            if name not in types:
                return f"the size of {name} is not known: the release's manifest does not list it"
            expected = cache_bytes(types[name], geometry, cells=proof.cells, layers=layers)
            if not agrees(stated, expected):
                return f"{side} as {name} takes {expected / MIB:.3f} MiB, the log says {stated:.2f}"
            rotated = cache.rotated_k if side == "K" else cache.rotated_v
            if any(name == kind.name for kind in added) and not rotated:
                return f"{side} is {name}, and the log does not say that it is rotated before it is quantized"
        if not agrees(proof.mib, proof.expected_bytes):
            return f"K and V take {proof.expected_bytes / MIB:.3f} MiB, the log says {proof.mib:.2f}"
    return ""


def mismatch(found: Sequence[CacheProof], kv_cache_type: str, layers: int) -> str:
    """How the types in the caches of a model with `layers` attention layers differ from the request; empty if equal.

    If rules give single layers another type, the log must state the type of each of them.
    """
    asked = grammar.parse(kv_cache_type)
    parts = [part for proof in found for part in proof.parts]
    if asked.reach == 0:
        for proof in found:
            if (proof.type_k, proof.type_v) != (asked.k.base, asked.v.base):
                wanted = f"K {asked.k.base} and V {asked.v.base}"
                return f"asked for {wanted}, the cache has K {proof.type_k} and V {proof.type_v}"
        return ""
    for side, types in (("K", asked.k.each(layers)), ("V", asked.v.each(layers))):
        held = sorted((layer, part.type) for part in parts if part.side == side for layer in part.layers)
        if [layer for layer, _ in held] != list(range(layers)) or any(part.of != layers for part in parts):
            return f"asked for {side} of {layers} attention layers, the log states the layers {held}"
        for layer, name in held:
            if name != types[layer]:
                return f"asked for {side} of attention layer {layer} as {types[layer]}, the log says {name}"
    return ""


def wrong_size(proof: CacheProof, geometry: ProbeGeometry, added: Iterable[CacheType], sequences: int = 1) -> str:
    """How the sizes of a cache contradict its types' bytes; empty if they agree. There may be a copy of it for each of
    `sequences`.
    """
    types = type_table(added)
    for side, name, layers, stated in portions(proof):
        if name not in types:
            return f"the size of {name} is not known: the release's manifest does not list it"
        expected = cache_bytes(types[name], geometry, cells=proof.cells, layers=layers)
        if not any(agrees(stated, expected * copies) for copies in range(1, sequences + 1)):
            return f"{side} as {name} takes {expected / MIB:.3f} MiB, the log says {stated:.2f}"
    return ""


def portions(proof: CacheProof) -> Iterator[tuple[str, str, int, float]]:
    """The parts of a cache: side, type, number of layers, and the stated MiB."""
    for side, name, mib in (("K", proof.type_k, proof.mib_k), ("V", proof.type_v, proof.mib_v)):
        parts = [part for part in proof.parts if part.side == side]
        yield from ((side, part.type, len(part.layers), part.mib) for part in parts)
        if not parts:
            yield side, name, proof.layers, mib


def _proof(match: re.Match[str]) -> CacheProof:
    total, cells, layers, type_k, size_k, type_v, size_v = match.groups()
    return CacheProof(
        line=match[0],
        cells=int(cells),
        layers=int(layers),
        type_k=type_k,
        type_v=type_v,
        mib=float(total),
        mib_k=float(size_k),
        mib_v=float(size_v),
        expected_bytes=0,
    )


def _part(match: re.Match[str]) -> CachePart | None:
    """The part that a line states; None for one that names more layers than the model has."""
    side, spans, of, name, size = match.groups()
    layers: list[int] = []
    for span in spans.split(","):
        low, _, high = span.partition("-")
        layers += range(int(low), int(high or low) + 1)
        if len(layers) > int(of):
            return None
    return CachePart(side=side, layers=tuple(layers), of=int(of), type=name, mib=float(size))


def _bytes(proof: CacheProof, geometry: ProbeGeometry, types: Mapping[str, CacheType]) -> int:
    held = list(portions(proof))
    if not all(name in types for _, name, _, _ in held):
        return 0
    return sum(cache_bytes(types[name], geometry, cells=proof.cells, layers=n) for _, name, n, _ in held)


def agrees(stated_mib: float, exact_bytes: int) -> bool:
    """Whether a size printed with two decimals, from a 32-bit float, agrees with `exact_bytes`."""
    exact = exact_bytes / MIB
    return abs(stated_mib - exact) <= 0.005 + 1e-6 * exact + 1e-9
