"""Real keys and values: a model reads a text on llama-server, whose cache is then saved and read back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...core import temporary
from ...core.config import Config
from ...core.console import Console
from ...core.errors import ConfigError, ModelInvalid, ModelLoadFailed, TextTooShort
from ...core.records import record
from ...serving import slot
from ...serving.llama_server import LlamaServer, serve
from ..memory import gguf
from .samples import SMALLEST_ROTATION, Sample, rotation_size

FEWEST_TOKENS = 128
_ROOM = 16  # free tokens of the context: a full one is refused


@record
class Heads:
    """A model's head sizes; `has_v` is false for models that derive V from K."""

    key_size: int
    value_size: int
    context: int
    has_v: bool


def dump(server: Path, model: Path, text: str, tokens: int, config: Config, console: Console) -> tuple[Sample, ...]:
    """The f16 cache of `model` after the first `tokens` tokens of `text`: samples dump.k.0, dump.v.0, dump.k.1 ...

    They are numbered in attention layers, those with full attention before windowed ones. They are not rotated.
    Raises `ReleaseInvalid` without a server, `ModelLoadFailed`, `ServerFailed`, `TextTooShort`, `StateInvalid`, and
    `ConfigError` for a head size that llama.cpp does not rotate.
    """
    heads = read_heads(model)
    rotation_size(heads.key_size)
    tokens = min(tokens, heads.context - _ROOM)
    with console.step(f"keys and values of {model.name}"), temporary.folder("dump") as home:
        context, timeout_s = tokens + _ROOM, config.verify.timeout_s
        with serve(server, model, home=home, context=context, timeout_s=timeout_s) as running:
            found = running.tokens(text)
            if len(found) < FEWEST_TOKENS:
                raise TextTooShort(
                    f"the text has {len(found)} tokens, {FEWEST_TOKENS} are needed", hint="--text names a longer one"
                )
            running.read(found[:tokens])
            return saved(running, heads)


def saved(running: LlamaServer, heads: Heads) -> tuple[Sample, ...]:
    """The server's f16 cache, as returned by `dump`. Raises `StateInvalid`."""
    return tuple(_samples(slot.load(running.save(), has_v=heads.has_v), heads))


def read_heads(model: Path) -> Heads:
    """The head sizes in a GGUF file. Raises `ModelLoadFailed` when it is not GGUF, or has no attention."""
    try:
        metadata = gguf.load(str(model)).metadata
        arch = metadata["general.architecture"]

        def number(key: str, default: int = 0) -> int:
            value = metadata.get(f"{arch}.{key}", default)
            value = max(value) if isinstance(value, tuple) else value
            if not isinstance(value, int):
                raise TypeError(f"{arch}.{key} is {value!r}")
            return int(value)

        shared = number("embedding_length") // max(number("attention.head_count"), 1)
        key_size = number("attention.key_length", shared)
        return Heads(
            key_size=key_size,
            value_size=number("attention.value_length", shared) or key_size,
            context=number("context_length", 2**31),
            has_v=number("attention.kv_lora_rank") == 0,
        )
    except (ModelInvalid, TypeError, ValueError, KeyError) as error:
        why = error.message if isinstance(error, ModelInvalid) else error
        raise ModelLoadFailed(f"{model}: not a GGUF model: {why}", hint="--model names a GGUF file") from error


def _samples(found: slot.SavedSlot, heads: Heads) -> Iterator[Sample]:
    for index, layer in enumerate(found.layers):
        # upstream takes the largest transform for K and the smallest for V
        parts = [("k", layer.k, heads.key_size, rotation_size(heads.key_size))]
        if layer.v is not None:
            parts.append(("v", layer.v, heads.value_size, SMALLEST_ROTATION))
        for kind, values, size, rotation in parts:
            if values.shape[1] % size or size % SMALLEST_ROTATION:
                raise ConfigError(
                    f"layer {index} stores {values.shape[1]} values for {kind.upper()}: no multiple of heads of {size}",
                    hint="models whose head size varies, or is not a multiple of 64, are not supported",
                )
            shaped = values.reshape(len(values), -1, size)
            yield Sample(name=f"dump.{kind}.{index}", values=shaped, rotation=rotation, keys=kind == "k")
