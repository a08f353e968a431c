"""What a model's attention computes on: queries, keys and values of each layer, as turbo-dump of a release writes them.

turbo-dump (patches/kernels/turbo-dump.cpp) runs the model with the release's libraries, by llama-server's arguments,
and records what each layer stores in the cache before it is quantized, and the queries that meet it: so scale, soft
cap, window and grouping are those of the model, whatever its architecture.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from ...build.quantizers import Floats
from ...core import temporary
from ...core.cachetypes import grammar
from ...core.errors import ModelLoadFailed, StateInvalid
from ...core.process import capture
from ...core.records import record, write_bytes
from ...serving.launcher import require_program
from ...serving.llama_server import own_environment

Integers: TypeAlias = npt.NDArray[np.int64]
PROGRAM = "lib/ollama/turbo-dump"
_ARRAYS = ("k", "v", "q", "out", "positions", "visible")
_FACTS = (
    "layer",
    "type_k",
    "id_k",
    "type_v",
    "id_v",
    "scale",
    "cap",
    "alibi",
    "sinks",
    "mask",
    "rope_dims",
    "rope_halves",
)

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionLayer:
    """One attention layer after a text was read.

    Numbers are those that the cache gets and gives, so keys, queries and values of a quantized cache are rotated.
    """

    layer: int
    """its number in the model"""
    k: Floats
    """(tokens, KV heads, size), behind RoPE, before they are quantized"""
    v: Floats | None
    """the same of V; None in a model that derives it from K"""
    type_k: str
    id_k: int
    """the type's number in ggml"""
    type_v: str
    id_v: int
    q: Floats
    """(queries, heads, size); heads i * heads / KV heads and following ask KV head i"""
    positions: Integers
    """of the queries' tokens"""
    visible: Integers
    """how many cells each query sees: the last ones, its own included"""
    scale: float
    cap: float
    """soft cap of the scores in nats; 0: none"""
    alibi: float
    """largest bias of ALiBi; 0: none"""
    sinks: bool
    """whether the softmax has a term that no cell stands for"""
    mask: int
    """the first layer with the same mask: layers with a window have another one than those without"""
    out: Floats
    """(queries, heads, size of V): what the attention gave"""
    rope_dims: int = 0
    """how many channels of a head RoPE turns, the first ones; 0: not known, or none"""
    rope_halves: bool = False
    """whether it pairs channel i with i + rope_dims / 2 instead of its neighbour"""


def dump(
    release_dir: Path,
    model: Path,
    tokens: Sequence[int],
    *,
    cache: str,
    context: int,
    stride: int,
    environment: Mapping[str, str],
    timeout_s: float,
) -> tuple[AttentionLayer, ...]:
    """The attention layers after `tokens`, with a cache of this setting; queries of every `stride`-th token.

    A layer that asks the cache of an earlier one is left out, and so is one without flash attention. Raises
    `ReleaseInvalid` without turbo-dump, `ModelLoadFailed` when the model does not run, `StateInvalid` for an output
    that cannot be read.
    """
    program = require_program(release_dir / PROGRAM, "./inv build makes it")
    types = grammar.parse(cache)
    with temporary.folder("attention") as folder:
        found = folder / "dump"
        argv = [str(program), str(found), str(stride), "--model", str(model.absolute())]
        argv += ["--ctx-size", str(context), "--parallel", "1"]
        argv += ["--cache-type-k", str(types.k), "--cache-type-v", str(types.v)]
        capture(
            argv,
            given=np.asarray(tokens, dtype="<i4").tobytes(),
            base=own_environment(),
            env=dict(environment),
            timeout=timeout_s,
            failure=ModelLoadFailed,
            what=f"{program.name} of {model.name} with {cache}",
        )
        return parse(found)


@record
class _Header:
    part: Literal["k", "v", "q", "out"]
    layer: _Count
    first: _Count
    step: _Count
    rows: _Count
    width: _Count
    bytes: _Count
    heads: _Count = 1
    type: str = ""
    id: int = -1
    attention: _Count = 0
    scale: float = 1.0
    cap: float = 0.0
    alibi: float = 0.0
    sinks: int = 0
    mask: int = 0
    rope_dims: _Count = 0
    rope_halves: int = 0
    visible: tuple[_Count, ...] = ()


def parse(path: Path) -> tuple[AttentionLayer, ...]:
    """Read turbo-dump's file. Raises `StateInvalid`."""
    pieces: dict[int, dict[str, list[tuple[_Header, Floats]]]] = defaultdict(lambda: defaultdict(list))
    owners: dict[tuple[int, int], int] = {}
    for header, values in _records(path):
        if header.part in "kv" or owners.setdefault((header.first, header.layer), header.attention) == header.attention:
            pieces[header.layer][header.part].append((header, values))
    return tuple(
        _layer(number, pieces[number]) for number in sorted(pieces) if {"k", "q", "out"} <= set(pieces[number])
    )


def _records(path: Path) -> Iterator[tuple[_Header, Floats]]:
    try:
        with path.open("rb") as file:
            while line := file.readline(1 << 24):
                header = msgspec.json.decode(line, type=_Header)
                raw = file.read(header.bytes)
                values = np.frombuffer(raw, dtype="<f4")
                yield header, values.reshape(header.rows, header.heads, header.width)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise StateInvalid(f"{path.name}: not what turbo-dump writes: {error}") from error


def _layer(number: int, parts: Mapping[str, list[tuple[_Header, Floats]]]) -> AttentionLayer:
    """A layer from its pieces, one for each batch of tokens."""
    asked = parts["q"][0][0]
    keys = parts["k"][0][0]
    values = parts["v"][0][0] if parts["v"] else None
    size = asked.width

    def joined(part: str) -> Floats:
        return np.concatenate([found for _, found in parts[part]])

    v = joined("v") if values else None
    kv_heads = keys.width // size
    if keys.width % size or asked.heads % kv_heads or (v is not None and v.shape[-1] % kv_heads):
        raise StateInvalid(f"layer {number}: {asked.heads} heads of {size} do not fit a row of {keys.width}")
    return AttentionLayer(
        layer=number,
        k=joined("k").reshape(-1, kv_heads, size),
        v=None if v is None else v.reshape(len(v), kv_heads, -1),
        type_k=keys.type,
        id_k=keys.id,
        type_v=values.type if values else "",
        id_v=values.id if values else -1,
        q=joined("q"),
        positions=np.concatenate([one.first + one.step * np.arange(one.rows) for one, _ in parts["q"]]),
        visible=np.concatenate([np.array(one.visible) for one, _ in parts["q"]]),
        scale=asked.scale,
        cap=asked.cap,
        alibi=asked.alibi,
        sinks=bool(asked.sinks),
        mask=asked.mask,
        out=joined("out"),
        rope_dims=keys.rope_dims,
        rope_halves=bool(keys.rope_halves),
    )


def save(path: Path, layers: Sequence[AttentionLayer]) -> None:
    """Write layers as an .npz file of NumPy, atomically: arrays named as in 3.k, 3.q, and 3.facts, a JSON document.

    Raises `DiskFull`.
    """
    arrays: dict[str, Any] = {}
    for one in layers:
        for part in _ARRAYS:
            if (array := getattr(one, part)) is not None:
                arrays[f"{one.layer}.{part}"] = array
        arrays[f"{one.layer}.facts"] = np.array(json.dumps({name: getattr(one, name) for name in _FACTS}))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def load(path: Path) -> Iterator[AttentionLayer]:
    """The layers that `save` wrote, read one at a time. Raises `StateInvalid`."""
    try:
        with np.load(path) as file:
            numbers = sorted(int(name.partition(".")[0]) for name in file.files if name.endswith(".facts"))
            for number in numbers:
                arrays = {part: file[f"{number}.{part}"] for part in _ARRAYS if f"{number}.{part}" in file.files}
                yield AttentionLayer(**{"v": None, **arrays, **json.loads(str(file[f"{number}.facts"]))})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StateInvalid(
            f"{path}: not a dump of attention layers: {error}", hint="delete it; it is made anew"
        ) from error


def weights(layer: AttentionLayer, query: int, keys: Floats, at: Integers) -> Floats:
    """The attention weights (heads, cells) of one query over the cells that it sees.

    `keys` (cells, KV heads, size) are of the tokens at the positions `at`. A sink of the softmax is left out: it
    changes the weights' sum, not their direction.
    """
    position = layer.positions[query]
    seen = (at <= position) & (at > position - layer.visible[query])
    return _softmax(layer, layer.q[query], keys[seen])


def _softmax(layer: AttentionLayer, q: Floats, keys: Floats) -> Floats:
    grouped = q.reshape(keys.shape[1], -1, q.shape[-1]).astype(np.float64)
    scores = layer.scale * np.einsum("ghd,cgd->ghc", grouped, keys.astype(np.float64), optimize=True)
    if layer.cap:
        scores = layer.cap * np.tanh(scores / layer.cap)
    found = np.exp(scores - scores.max(axis=-1, keepdims=True))
    found /= found.sum(axis=-1, keepdims=True)
    return np.asarray(found.reshape(len(q), -1))
