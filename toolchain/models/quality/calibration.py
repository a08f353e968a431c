"""From a model and a text to its file of offsets: `./inv quality.offsets`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...build import find_release
from ...core import temporary
from ...core.errors import ConfigError, OffsetsUnsound, TextTooShort
from ...core.records import record, sha256_bytes, sha256_file
from ...core.run import Run
from ...serving.llama_server import serve
from ...sources.eras.era import LLAMA_SERVER
from ..memory import geometry, gguf
from ..named import find_model
from . import offsets, queries
from .dump import read_heads
from .offsets import OffsetsOrigin
from .samples import read_text

_ROOM = 16
"""free tokens of the context: a full one is refused"""
CONTEXT = 4096
"""tokens: the offsets gain up to here, by little up to twice as many, and may lose beyond that"""
_HINT = "run it without offsets: they serve models whose scores are plain products of queries and keys"


@record
class LayerGain:
    """What a layer's offset is good for."""

    layer: int
    gain_db: float
    """of the signal to noise of quantized keys, on a text that it was not fitted to; 0: none is used"""


@record
class Calibration:
    """A file of offsets, and what it gains."""

    file: str
    bytes: int
    origin: OffsetsOrigin
    layers: tuple[LayerGain, ...]
    gain_db: float
    """mean over layers"""


def calibrate(run: Run, model: str, text: str, context: int, release: str, out: str) -> Calibration:
    """Fit the offsets of a model's keys to the halves of a text, and write their file.

    Heads get none where those of one half do not pay on the other. Layers of such heads alone are not in the file.
    Raises `OffsetsUnsound` for a model whose attention feels a constant, `ModelInvalid` for one that llama.cpp could
    not tell, `TextTooShort`, and what llama-server and turbo-dump raise.
    """
    path = find_model(model, run.config, run.console)
    wanted = min(context, read_heads(path).context - _ROOM)
    if wanted < offsets.SHORTEST:
        raise ConfigError(
            f"{wanted} tokens of context: at least {offsets.SHORTEST} are needed",
            hint="--context is the length of a conversation; the model's own context is the limit",
        )
    header = gguf.load(str(path))
    shape = geometry.read(header)
    if shape.mla or shape.indexer:
        raise OffsetsUnsound(f"{path.name}: its cache holds latent keys, of which V is made, too", hint=_HINT)
    key, words = offsets.model_key(header), read_text(text)
    with run.console.step(f"keys of {path.name}"):
        halves, tokens = _halves(run, find_release(run, release), path, words, wanted)
    layers, again = halves
    if why := next(filter(None, map(offsets.why_not, layers)), ""):
        raise OffsetsUnsound(f"{path.name}: {why}: softmax would feel a constant of the keys", hint=_HINT)
    if not layers:
        raise OffsetsUnsound(f"{path.name}: no layer computes flash attention over a cache of its own", hint=_HINT)
    fitted = {one.layer: offsets.fit_tested(one.k, other.k) for one, other in zip(layers, again, strict=True)}
    gains = tuple(LayerGain(layer=number, gain_db=gain) for number, (_, gain) in fitted.items())
    origin = OffsetsOrigin(
        model=path.name,
        model_sha256=sha256_file(path),
        text_sha256=sha256_bytes(words.encode()),
        tokens=2 * tokens,
        lengths=offsets.lengths(tokens),
    )
    used = [(number, offset) for number, (offset, _) in fitted.items() if offset.any()]
    file = offsets.save(run.output(out, "offsets"), key, used, origin)
    run.console.note(f"offsets: {file}; {offsets.VARIABLE}={file.parent} in the server's environment turns them on")
    return Calibration(
        file=str(file),
        bytes=file.stat().st_size,
        origin=origin,
        layers=gains,
        gain_db=sum(one.gain_db for one in gains) / len(gains),
    )


def _halves(
    run: Run, release: Path, model: Path, text: str, wanted: int
) -> tuple[tuple[tuple[queries.AttentionLayer, ...], ...], int]:
    """The layers' keys of the text's first `wanted` tokens and of as many next ones, each from position 0 on, as an f16
    cache gets them; and how many tokens they are. Of a short text both are halves."""
    timeout_s, environment = run.config.validate.timeout_s, run.config.deploy.environment
    given: Mapping[str, str] = {name: value for name, value in environment.items() if name != offsets.VARIABLE}
    with (
        temporary.folder("offsets") as home,
        serve(
            release / LLAMA_SERVER, model, home=home, context=offsets.SHORTEST, timeout_s=timeout_s, environment=given
        ) as running,
    ):
        tokens = running.tokens(text)
    half = min(wanted, len(tokens) // 2)
    if half < offsets.SHORTEST:
        raise TextTooShort(
            f"the text has {len(tokens)} tokens, {2 * offsets.SHORTEST} are needed", hint="--text names a longer one"
        )
    return tuple(
        queries.dump(
            release,
            model,
            part,
            cache="f16",
            context=half + _ROOM,
            stride=half,
            environment=given,
            timeout_s=timeout_s,
        )
        for part in (tokens[:half], tokens[half : 2 * half])
    ), half
