"""A small language model with random weights, written as GGUF, for the built server to load and run.

Its text is meaningless, but it is a real llama-architecture model: grouped-query attention, RoPE, a SentencePiece
vocabulary. Its text at temperature 0 depends on every cached key and value, and it never ends by itself, so
that exactly the requested number of tokens is generated.
"""

from __future__ import annotations

import math
import string
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from ..core.errors import ToolchainError
from ..core.records import record

EMBEDDING = 128
"""width of the residual stream and of the feed-forward layers: small for any heads, to be fast"""

_SPACE = "\u2581"
_LETTERS = _SPACE + string.ascii_letters + string.digits
_BYTES = 256
_ROPE_BASE = 10000.0


@record
class ProbeGeometry:
    """The sizes of a model that determine its cache size. K and V hold `kv_heads * head_size` values per cell."""

    head_size: int
    heads: int
    kv_heads: int
    layers: int
    context: int

    @property
    def query_width(self) -> int:
        """Values in one row of Q."""
        return self.heads * self.head_size

    @property
    def kv_width(self) -> int:
        """Values in one row of K, or of V: one cell of one layer."""
        return self.kv_heads * self.head_size


def write_probe(
    path: Path, *, head_size: int, heads: int, kv_heads: int, layers: int, context: int, seed: int
) -> ProbeGeometry:
    """Write a random model to `path` and return its geometry. The same arguments give the same bytes.

    Matrices are F16 of shape (outputs, inputs), norms F32. Raises `ToolchainError` for a head count that `kv_heads`
    does not divide or a head size that is odd (RoPE turns pairs).
    """
    if min(head_size, heads, kv_heads, layers, context) < 1 or heads % kv_heads or head_size % 2:
        raise ToolchainError(
            f"no model has {heads} heads of {head_size}, {kv_heads} of K and V, {layers} layers, context {context}",
            hint="all positive, an even head size, and heads a multiple of the K and V heads",
        )
    geometry = ProbeGeometry(head_size=head_size, heads=heads, kv_heads=kv_heads, layers=layers, context=context)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"probe-{head_size}")
    writer.add_context_length(context)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(EMBEDDING)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(_ROPE_BASE)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(int(gguf.LlamaFileType.MOSTLY_F16))
    vocabulary = _add_tokenizer(writer)
    writer.add_vocab_size(vocabulary)
    _add_tensors(writer, geometry, vocabulary, np.random.default_rng(seed))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:  # also where a full disk ended it
        writer.close()
    return geometry


def _add_tokenizer(writer: gguf.GGUFWriter) -> int:
    """A SentencePiece vocabulary: three control tokens, 256 bytes, and one token for each letter. Returns its size."""
    kinds = gguf.TokenType
    tokens = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)]
    tokens += [(f"<0x{value:02X}>", kinds.BYTE) for value in range(_BYTES)]
    tokens += [(letter, kinds.NORMAL) for letter in _LETTERS]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([int(kind) for _, kind in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    return len(tokens)


def _add_tensors(writer: gguf.GGUFWriter, geometry: ProbeGeometry, vocabulary: int, rng: np.random.Generator) -> None:
    width, q_width, kv_width = EMBEDDING, geometry.query_width, geometry.kv_width

    def matrix(outputs: int, inputs: int, gain: float = 1.0) -> npt.NDArray[np.float16]:
        # Uniform numbers, which are made by shifts only: the same bits on every platform.
        # Variance gain^2 / inputs keeps the activations at unit size.
        flat = rng.random((outputs, inputs), dtype=np.float32) * 2 - 1
        return (flat * np.float32(gain * math.sqrt(3 / inputs))).astype(np.float16)

    ones = np.ones(width, dtype=np.float32)
    writer.add_tensor("token_embd.weight", matrix(vocabulary, width, gain=math.sqrt(width)))
    for layer in range(geometry.layers):
        block = f"blk.{layer}."
        writer.add_tensor(block + "attn_norm.weight", ones)
        # A gain above 1 makes the attention pick some cells over others, so that the text depends on the keys.
        writer.add_tensor(block + "attn_q.weight", matrix(q_width, width, gain=1.5))
        writer.add_tensor(block + "attn_k.weight", matrix(kv_width, width, gain=1.5))
        writer.add_tensor(block + "attn_v.weight", matrix(kv_width, width))
        writer.add_tensor(block + "attn_output.weight", matrix(width, q_width))
        writer.add_tensor(block + "ffn_norm.weight", ones)
        writer.add_tensor(block + "ffn_gate.weight", matrix(width, width))
        writer.add_tensor(block + "ffn_up.weight", matrix(width, width))
        writer.add_tensor(block + "ffn_down.weight", matrix(width, width))
    writer.add_tensor("output_norm.weight", ones)
    output = matrix(vocabulary, width)
    # Rows of zeros give a logit of 0, below that of some letter: never an end token, a blank or part of a UTF-8
    # character, so that every token is a letter or a digit of the text.
    output[: vocabulary - len(_LETTERS.removeprefix(_SPACE))] = 0
    writer.add_tensor("output.weight", output)
