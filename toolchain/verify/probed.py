"""The documents that turbo-probe prints: plain numbers on the built libraries, which `checklist` judges."""

from __future__ import annotations

from ..core.records import record


@record
class Level:
    """A decoded value in 128ths of its block's radius, with the number and the mean of the values assigned to it."""

    level: int
    count: int
    mean: float


@record
class Codebook:
    """The blocks whose radius has one sign, and their levels.

    `fraction` is the largest distance of a decoded value from a whole number of 128ths of the radius, `inexact` counts
    values that are not exact, `distortion` is the mean squared error in units of the levels. `off` is the largest
    relative difference between a radius and the best one for the levels of its block, and `cost` what all of
    these differences add to the squared error.
    """

    blocks: int
    levels: tuple[Level, ...]
    fraction: float
    inexact: int
    distortion: float
    snr_db: float
    cost: float
    off: float


@record
class TypeEvidence:
    """What ggml_quantize_chunk and to_float do with blocks of very different scales: Gaussian ones, and every eighth
    block with nearly equal magnitudes or with two dominating values.

    `codebooks` are that of the positive radii and that of the negative ones. For each bit of the radius' mantissa,
    `shared` counts the blocks whose levels depend on it, and `mantissa` those in which it is set, of `radii`. The other
    counts are of differences: decoded again after other data (`later`) or in another order (`moved`),
    encoded in rows of one block (`narrow`) or in another order (`turned`), and from twice the value when the radius is
    doubled (`doubled`).
    """

    name: str
    block: int
    bytes: int
    values: int
    codebooks: tuple[Codebook, Codebook]
    shared: tuple[int, ...]
    later: int
    moved: int
    narrow: int
    turned: int
    doubled: int
    radii: int
    mantissa: tuple[int, ...]


@record
class OperationEvidence:
    """An operation of a graph compared with the reference: `of` results (0: the device does not support it), how many
    are not bit-identical, and the relative error of those that need not be. For one that quantizes, this is the error
    of the decoded blocks, beside that of the `reference` quantizer."""

    op: str
    of: int
    differs: int
    error: float
    reference: float


@record
class AttentionEvidence:
    """FLASH_ATTN_EXT of one case compared with the reference: `of` results (0: the device does not support it), and
    their relative error. `mask` is none, causal, or empty: causal with tiles of cells, and with queries, that are
    masked completely."""

    k: str
    v: str
    head_size: int
    queries: int
    heads: int
    kv_heads: int
    mask: str
    of: int
    error: float


@record
class DeviceType:
    """A type on a device."""

    name: str
    operations: tuple[OperationEvidence, ...]
    attention: tuple[AttentionEvidence, ...] = ()


@record
class DeviceTransform:
    """A device's Hadamard transform of size `n`, as largest errors: of |entry| * sqrt(n) against 1, of the matrix times
    its transpose against the identity, and of the transform applied twice."""

    n: int
    done: bool
    entries: float
    skew: float
    twice: float


@record
class Device:
    """What one backend of the built libraries does."""

    name: str
    cpu: bool
    types: tuple[DeviceType, ...]
    rotations: tuple[DeviceTransform, ...]


@record
class Probed:
    """The document that turbo-probe prints."""

    types: tuple[TypeEvidence, ...]
    devices: tuple[Device, ...]


@record
class DeviceStart:
    """When a device of a new process had stored its first row of a cache, in seconds from the process' start."""

    name: str
    cpu: bool
    initialized_s: float
    stored: bool
    ready_s: float


@record
class Started:
    """The document that turbo-probe prints about a start."""

    loaded_s: float
    devices: tuple[DeviceStart, ...]
