"""The checklist's evidence, from a release's own programs: turbo-probe reports what the libraries do with a type, and
llama-server saves its cache, which shows the rotation that was really applied.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from ..build.steps import PROBE
from ..core.errors import VerificationFailed
from ..core.process import capture
from ..core.records import UNREADABLE, record
from ..serving import slot
from ..serving.launcher import require_program
from ..serving.llama_server import own_environment, serve
from ..sources.eras.era import LLAMA_SERVER
from .probed import Probed, Started

PROBE_PATH = f"lib/ollama/{PROBE}"
SEED = 20260501
_TIMEOUT_S = 300.0
_SMALLEST_TRANSFORM = 16
_NOISE = 0.3
"""error of a fit, relative to the entries: 0.05 for 4 bits, 0.25 for 2"""
# Uses all tokens of the probe models' vocabulary: letters, and bytes that are not letters.
PROMPT = "".join(map(chr, (*range(33, 127), *range(0xC0, 0x100))))

R = TypeVar("R")
Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]


@record
class Rotation:
    """The matrix that llama-server multiplies one head of K or V with, before it is quantized.

    Fitted to what it caches; `n` is the size of the transform that it comes closest to. In units of an entry of that
    transform: `deviation` is the root mean square of |entry| - 1, `leak` the largest entry that should be zero.
    `signs` counts those that differ from a Walsh-Hadamard matrix with any rows and columns negated; `skew` is the
    largest error of the matrix times its transpose.
    """

    side: str
    head_size: int
    n: int
    deviation: float
    leak: float
    signs: int
    skew: float


@record
class GraphEvidence:
    """What llama-server caches of one text, against an f16 cache of it.

    `rotated` and `plain` are relative errors of K and V in the layer after the first, whose input comes from
    attention over the cache: with the rotation, and with it turned off.
    """

    cache_type: str
    rotations: tuple[Rotation, ...]
    rotated: float
    plain: float


def probe(release_dir: Path, names: Sequence[str]) -> Probed:
    """Run turbo-probe on the release's types. Raises `ReleaseInvalid` without turbo-probe, `VerificationFailed`."""
    return _stated(release_dir, [str(SEED), *names], Probed)


def start(release_dir: Path, name: str) -> Started:
    """How long the devices take in a new process, with a cache type. Raises as `probe`."""
    return _stated(release_dir, ["start", str(SEED), name], Started)


def decode(release_dir: Path, name: str, blocks: bytes) -> Floats:
    """The values of blocks of any type, as the release's libraries decode them. Raises as `probe`."""
    return np.frombuffer(_ask(release_dir, ["decode", name], blocks), dtype="<f4")


def examine_graph(
    release_dir: Path, model: Path, head_size: int, cache_type: str, *, folder: Path, timeout_s: float
) -> GraphEvidence:
    """Have the release's llama-server cache `PROMPT` in f16, in `cache_type`, and in `cache_type` without the rotation.

    Raises `ModelLoadFailed`, `ServerFailed`, `StateInvalid`, and what `probe` raises.
    """

    def cached(kind: str, environment: Mapping[str, str] | None = None) -> slot.SavedSlot:
        with (
            tempfile.TemporaryDirectory(prefix="slot-", dir=folder) as home,
            serve(
                release_dir / LLAMA_SERVER,
                model,
                home=Path(home),
                context=256,
                timeout_s=timeout_s,
                cache_type=kind,
                threads=1,
                environment=environment,
            ) as server,
        ):
            server.read(PROMPT)
            return slot.load(server.save(), decode=lambda _, blocks: decode(release_dir, cache_type, blocks))

    exact = cached("f16")
    rotated = cached(cache_type)
    plain = cached(cache_type, {"LLAMA_ATTN_ROT_DISABLE": "1"})
    fitted = [fit(_heads(exact, 0, side, head_size), _heads(rotated, 0, side, head_size)) for side in ("K", "V")]
    errors = []
    for found, matrices in ((rotated, fitted), (plain, [np.eye(head_size)] * 2)):
        pairs = [
            (_heads(found, 1, side, head_size) @ nearest(matrix), _heads(exact, 1, side, head_size))
            for side, matrix in zip("KV", matrices, strict=True)
        ]
        errors.append(float(np.mean([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs])))
    return GraphEvidence(
        cache_type=cache_type,
        rotations=tuple(describe(side, matrix) for side, matrix in zip("KV", fitted, strict=True)),
        rotated=errors[0],
        plain=errors[1],
    )


def fit(plain: Floats, cached: Floats) -> Matrix:
    """The matrix R (size, size) with cached = plain @ R.T, by least squares over the rows of both."""
    solved: Matrix = np.linalg.lstsq(plain.astype(np.float64), cached.astype(np.float64), rcond=None)[0].T
    return solved


def describe(side: str, matrix: Matrix) -> Rotation:
    """How far a fitted matrix is from the Walsh-Hadamard transform that it comes closest to."""
    size = len(matrix)
    n = _transform_size(matrix)
    blocks = _blocks(size, n)
    scaled = matrix * np.sqrt(n)
    return Rotation(
        side=side,
        head_size=size,
        n=n,
        deviation=float(np.sqrt(np.mean((np.abs(scaled[blocks]) - 1) ** 2))),
        leak=float(np.abs(scaled[~blocks]).max(initial=0.0)),
        signs=sum(_wrong_signs(scaled[at : at + n, at : at + n]) for at in range(0, size, n)),
        skew=float(np.abs(matrix @ matrix.T - np.eye(size)).max()),
    )


def nearest(matrix: Matrix) -> Matrix:
    """A fitted matrix without the noise of the fit: the nearest orthogonal matrix, with exactly equal magnitudes where
    its entries have one magnitude in blocks."""
    left, _, right = np.linalg.svd(matrix)
    orthogonal: Matrix = left @ right
    n = _transform_size(matrix)
    even = np.where(_blocks(len(matrix), n), np.sign(matrix) / np.sqrt(n), 0.0)
    is_even = n > 1 and np.linalg.norm(even - matrix) < _NOISE * np.sqrt(len(matrix))
    return even if is_even else orthogonal


def _transform_size(matrix: Matrix) -> int:
    """Size of the blocks along the diagonal whose entries are most nearly of one magnitude; 1 for the identity."""
    size = len(matrix)
    sizes = [1, *(size >> shift for shift in range(size.bit_length()) if size >> shift >= _SMALLEST_TRANSFORM)]
    whole = [n for n in sizes if size % n == 0]
    return min(whole, key=lambda n: float(np.linalg.norm(np.abs(matrix) - _blocks(size, n) / np.sqrt(n))))


def _blocks(size: int, n: int) -> npt.NDArray[np.bool_]:
    index = np.arange(size) // n
    return np.equal.outer(index, index)


def _wrong_signs(block: Matrix) -> int:
    """Signs that no Walsh-Hadamard matrix has whose rows and columns may be negated: (-1)^(ones common to i and j)."""
    signs = np.where(block < 0, -1, 1)
    signs = signs * signs[:1] * signs[:, :1] * signs[0, 0]
    index = np.arange(len(block))
    common = np.bitwise_and.outer(index, index)
    parity = np.zeros_like(common)
    while common.any():
        parity ^= common & 1
        common >>= 1
    return int((signs != 1 - 2 * parity).sum())


def _heads(found: slot.SavedSlot, layer: int, side: str, head_size: int) -> Floats:
    """Rows of one head each, (cells * heads, head_size), of one layer."""
    values = found.layers[layer].k if side == "K" else found.layers[layer].v
    assert values is not None
    return values.reshape(-1, head_size)


def _stated(release_dir: Path, words: Sequence[str], kind: type[R]) -> R:
    answer = _ask(release_dir, words)
    try:
        return msgspec.json.decode(answer, type=kind)
    except UNREADABLE as error:
        raise VerificationFailed(f"{release_dir / PROBE_PATH}: unexpected output: {error}") from error


def _ask(release_dir: Path, words: Sequence[str], blocks: bytes = b"") -> bytes:
    program = require_program(release_dir / PROBE_PATH, "./inv build makes it")
    return capture(
        [str(program), *words],
        base=own_environment(),
        given=blocks,
        timeout=_TIMEOUT_S,
        failure=VerificationFailed,
        what=str(program),
    ).stdout
