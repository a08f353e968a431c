"""How much of a quantizer's precision reaches a model's attention scores, from the weights of queries and keys alone.

The rotation spreads a key's error evenly over the channels it mixes (a run). So a score's error
depends on the run's total energy, while what distinguishes tokens may be in channels of little energy: a
constant offset is the same for all keys, and softmax ignores it; a large channel with small queries has no more weight
than others. Per K/V head, for channels c with mean squares q2 of the queries and k2 of the keys, and content of the
keys (k2 without the part that all keys share),

    loss = sum_c q2[c] * mean of k2 over c's run  /  sum_c q2[c] * content[c]

is the factor between the relative error of the keys and that of the scores: 1 for even channels without an offset.

The mean squares follow from the rows of the projections, taking their input as white: with gain g of the norm before,
k2[c] = sum_j (W[c,j] g[j])^2 + b[c]^2, of which the bias b is offset and the rest content. Where queries and keys are
normalised by head, the norm's weights set the scale. Both are exact for extremes in the weights, and do not see
those that only activations have; `keys` does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import gguf
import numpy as np
import numpy.typing as npt
from gguf.quants import dequantize

from ...core.errors import ModelInvalid
from ..memory import geometry as memory
from ..memory.dialect import BUILT_IN, Dialect
from ..memory.gguf import ModelHeader, TensorInfo, load

Doubles: TypeAlias = npt.NDArray[np.float64]

COLUMNS = 2048
"""maximum number of a projection's inputs that are read: enough for a row's norm"""
_UNROTATED_BLOCK = 32
_MATRICES = frozenset({"attn_q.weight", "attn_k.weight", "attn_qkv.weight"})
_NAME = re.compile(r"blk\.(\d{1,3})\.(attn_(?:q|k|qkv|norm|q_norm|k_norm)\.(?:weight|bias))")
_KINDS = gguf.GGMLQuantizationType.__members__


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """Mean squares of one attention layer, (K/V heads, head size) each; None if unknown from the file."""

    index: int
    """of the layer in the model"""
    windowed: bool
    queries: Doubles | None
    """mean over the query heads that share a K/V head"""
    keys: Doubles | None
    content: Doubles | None

    def loss(self) -> float | None:
        """Mean over heads of the factor above."""
        if self.queries is None or self.keys is None or self.content is None:
            return None
        return loss(self.queries, self.keys, self.content)


def loss(queries: Doubles, keys: Doubles, content: Doubles) -> float:
    """The factor above from mean squares of shape (heads, head size); mean over heads, infinite without content."""
    run = run_length(keys.shape[1])
    with np.errstate(all="ignore"):
        spread = np.repeat(keys.reshape(len(keys), -1, run).mean(axis=2), run, axis=1)
        noise, signal = np.sum(queries * spread, axis=1), np.sum(queries * content, axis=1)
        return float(np.mean(np.where(noise > 0, noise / signal, 1.0)))


def run_length(head_size: int) -> int:
    """Number of channels that share an error: those of a rotation, or of a block if the head size is not rotated."""
    if head_size % 64 == 0:
        return head_size & -head_size
    return _UNROTATED_BLOCK if head_size % _UNROTATED_BLOCK == 0 else head_size


def read(model: Path, dialect: Dialect = BUILT_IN) -> tuple[Layer, ...]:
    """The attention layers of a GGUF file, in order; only its header and the tensors of queries and keys are read.

    Raises `ModelInvalid` for a file that is not a model or ends with its header, and `ArchitectureUnknown`.
    """
    header = load(str(model), dialect)
    shape = memory.read(header)
    if header.header_only:
        raise ModelInvalid(f"{model}: it has only a header", hint="download the whole file")
    stated = header.metadata.get(f"{shape.architecture}.attention.head_count")
    blocks = _blocks(header)
    found = []
    for layer in shape.cached:
        profile = None
        heads = stated[layer.index] if isinstance(stated, tuple) else stated
        if isinstance(heads, int) and heads > 0 and layer.k and not shape.mla:
            # a type that gguf does not decode, or weights that are no numbers
            with contextlib.suppress(NotImplementedError), np.errstate(all="ignore"):
                profile = _profile(blocks.get(layer.index, {}), int(heads), layer)  # a file may state true
        queries, keys, content = profile or (None, None, None)
        found.append(
            Layer(
                index=layer.index,
                windowed=layer.windowed,
                queries=queries,
                keys=keys,
                content=content,
            )
        )
    return tuple(found)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Tensor:
    file: str
    info: TensorInfo

    def raw(self) -> npt.NDArray[np.uint8]:
        try:
            return np.memmap(self.file, np.uint8, "r", self.info.at, (self.info.bytes,))
        except (OSError, ValueError) as error:
            raise ModelInvalid(f"{self.file}: {self.info.name} cannot be read: {error}") from error


def _blocks(header: ModelHeader) -> dict[int, dict[str, _Tensor]]:
    """The tensors of queries and keys of each layer, by their names in it."""
    found: dict[int, dict[str, _Tensor]] = {}
    for tensor in header.tensors:
        match = _NAME.fullmatch(tensor.name)
        if match and tensor.bytes and len(tensor.shape) == 1 + (match[2] in _MATRICES) and tensor.type in _KINDS:
            block = found.setdefault(int(match[1]), {})
            block[match[2]] = _Tensor(file=header.parts[tensor.part], info=tensor)
    return found


def _profile(
    block: Mapping[str, _Tensor], heads: int, layer: memory.CachedLayer
) -> tuple[Doubles, Doubles, Doubles] | None:
    """Queries, keys and content, or None for an unknown layout."""
    size, width = layer.head_k, layer.k
    kv_heads = width // size
    gain = _vector(block, "attn_norm.weight")
    if "attn_qkv.weight" in block:
        energy = _row_energy(block["attn_qkv.weight"], gain)
        bias = _vector(block, "attn_qkv.bias")
        if energy.size < heads * size + width:
            return None
        query, key = energy[: heads * size], energy[heads * size : heads * size + width]
        query_bias, key_bias = (None, None) if bias is None else (bias[: query.size], bias[query.size :][:width])
    elif "attn_q.weight" in block and "attn_k.weight" in block:
        query, key = _row_energy(block["attn_q.weight"], gain), _row_energy(block["attn_k.weight"], gain)
        query_bias, key_bias = _vector(block, "attn_q.bias"), _vector(block, "attn_k.bias")
    else:
        return None
    if query.size == 2 * heads * size:  # each query head is followed by its gate
        query = query.reshape(heads, 2, size)[:, 0].reshape(-1)
        query_bias = None if query_bias is None else query_bias.reshape(heads, 2, size)[:, 0].reshape(-1)
    if query.size != heads * size or key.size != width or heads % kv_heads:
        return None
    queries = query + (0 if query_bias is None else query_bias**2)
    keys = key + (0 if key_bias is None else key_bias**2)
    queries, keys, content = (part.reshape(-1, size) for part in (queries, keys, key))
    queries = _normalised(queries, _vector(block, "attn_q_norm.weight"), queries)
    content = _normalised(content, _vector(block, "attn_k_norm.weight"), keys)
    keys = _normalised(keys, _vector(block, "attn_k_norm.weight"), keys)
    return queries.reshape(kv_heads, -1, size).mean(axis=1), keys, content


def _normalised(energy: Doubles, weight: Doubles | None, whole: Doubles) -> Doubles:
    """Mean squares after a norm over each head (`weight` of a head's size) or over all heads (`whole`)."""
    if weight is None:
        return energy
    if weight.size == energy.shape[1]:
        return np.asarray(energy / np.maximum(whole.mean(axis=1, keepdims=True), 1e-30) * weight**2)
    if weight.size == energy.size:
        return np.asarray(energy / max(float(whole.mean()), 1e-30) * weight.reshape(energy.shape) ** 2)
    return energy


def _vector(block: Mapping[str, _Tensor], name: str) -> Doubles | None:
    if name not in block:
        return None
    tensor = block[name]
    return np.asarray(dequantize(tensor.raw(), _KINDS[tensor.info.type]), dtype=np.float64).reshape(-1)


def _row_energy(tensor: _Tensor, gain: Doubles | None) -> Doubles:
    """Sum of squares of each row, its columns times `gain`; of long rows a sample, spread evenly by blocks."""
    kind = _KINDS[tensor.info.type]
    values, size = gguf.GGML_QUANT_SIZES[kind]
    columns, rows = tensor.info.shape
    raw = tensor.raw().reshape(rows, columns // values, size)
    step = max(1, -(-columns // COLUMNS))
    some = np.ascontiguousarray(raw[:, ::step])
    weights = np.asarray(dequantize(some.reshape(rows, -1), kind), dtype=np.float64)
    if gain is not None and gain.size == columns:
        weights = weights * gain.reshape(-1, values)[::step].reshape(-1)
    return np.asarray(np.sum(weights * weights, axis=1) * (columns / weights.shape[1]))
