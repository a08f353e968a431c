"""From a model and a text to the file of how its keys are stored: `./inv quality.calibrate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...build import find_release
from ...core import temporary
from ...core.errors import CalibrationUnsound, ConfigError, ModelInvalid, StateInvalid, TextTooShort
from ...core.records import record, sha256_bytes, sha256_file
from ...core.run import Run
from ...serving.cachelog import CALIBRATION
from ...serving.llama_server import serve
from ...sources.eras.era import LLAMA_SERVER
from ...stages import Release
from ..memory import geometry, gguf
from ..named import find_model
from . import calibration_file, offsets, queries, scales
from .calibration_file import Origin, Stored
from .dump import read_heads
from .queries import AttentionLayer
from .samples import read_text

FOLDER = "calibration"
"""in the workspace"""
_SETTING = "deploy.calibration"
_ROOM = 16
"""free tokens of the context: a full one is refused"""
_STRIDE = 16
"""every so many tokens a query is read"""
CONTEXT = 4096
"""tokens: offsets gain up to here, by little up to twice as many, and may lose beyond that"""


@record
class LayerGain:
    """What is done to a layer's keys, and what it is good for, on a text that it was not fitted to."""

    layer: int
    offset_db: float
    """less energy of the keys without their constant; 0: none is taken off"""
    scales_db: float
    """less error of the scores with scaled pairs; 0: none is scaled"""
    constant: str = ""
    """why no constant is taken off, where attention would feel it"""


@record
class Calibration:
    """A model's calibration, and what it gains."""

    file: str
    bytes: int
    origin: Origin
    layers: tuple[LayerGain, ...]
    offset_db: float
    """mean over layers"""
    scales_db: float
    """mean over layers"""


def calibrate(run: Run, model: str, text: str, context: int, release: str, out: str) -> Calibration:
    """Fit offsets and scales to a model's keys and queries of the halves of a text, and write their file.

    Heads get none where those of one half do not pay on the other. Layers of such heads alone are not in the file, and
    layers whose attention would feel a constant get no offset. Raises `CalibrationUnsound` for a model whose keys are
    values, too, `ModelInvalid` for one that llama.cpp could not tell, `TextTooShort`, and what llama-server and
    turbo-dump raise.
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
        raise CalibrationUnsound(
            f"{path.name}: its cache holds latent keys, of which V is made, too", hint="run it without a calibration"
        )
    key, words = calibration_file.model_key(header), read_text(text)
    with run.console.step(f"keys of {path.name}"):
        halves, tokens = _halves(run, find_release(run, release), path, words, wanted)
    if not halves[0]:
        raise CalibrationUnsound(
            f"{path.name}: no layer computes flash attention over a cache of its own",
            hint="run it without a calibration",
        )
    fitted = [_fit(*both) for both in zip(*halves, strict=True)]
    origin = Origin(
        model=path.name,
        model_sha256=sha256_file(path),
        text_sha256=sha256_bytes(words.encode()),
        tokens=2 * tokens,
        lengths=offsets.lengths(tokens),
    )
    used = {gain.layer: stored for stored, gain in fitted if not stored.plain}
    file = calibration_file.save(run.output(out, FOLDER), key, used, origin)
    run.console.note(f"calibration: {file}; --set {_SETTING}={file.parent} has the service use it")
    gains = tuple(gain for _, gain in fitted)
    return Calibration(
        file=str(file),
        bytes=file.stat().st_size,
        origin=origin,
        layers=gains,
        offset_db=sum(one.offset_db for one in gains) / len(gains),
        scales_db=sum(one.scales_db for one in gains) / len(gains),
    )


def for_service(run: Run, release: Release, folder: Path) -> Run:
    """The run with a calibration of `verify.model`, fitted on the release in `folder`, or one that was fitted before.

    The run itself where no model is named, where somebody chose a calibration or none, and where the model or the
    release cannot have one, which is noted.
    """
    config, console = run.config, run.console
    programs = (LLAMA_SERVER, queries.PROGRAM)
    if not config.verify.model or run.chosen(_SETTING) or not release.cache_types:
        return run
    if not all((folder / program).is_file() for program in programs):
        return run
    try:
        path = find_model(config.verify.model, config, console)
        file = run.output("", FOLDER) / calibration_file.file_name(calibration_file.model_key(gguf.load(str(path))))
        if not _is_fitted(file):
            calibrate(run, str(path), "", CONTEXT, str(folder), "")
    except (CalibrationUnsound, ModelInvalid, ConfigError, TextTooShort) as error:
        console.note(f"{config.verify.model}: keys are not calibrated: {error.message}")
        return run
    console.note(f"the service uses {file}; --set {_SETTING}= turns it off")
    return run.with_deploy("calibration", str(file.parent), path.name)


def _is_fitted(file: Path) -> bool:
    """Whether a file is a calibration that the toolkit's own text gave."""
    try:
        _, _, origin = calibration_file.load(file)
    except StateInvalid:
        return False
    return origin.text_sha256 == sha256_bytes(read_text("").encode())


def _fit(first: AttentionLayer, second: AttentionLayer) -> tuple[Stored, LayerGain]:
    """How one layer's keys are stored, from the same layer after two texts."""
    offset, offset_db, why = np.zeros(first.k.shape[1:], np.float32), 0.0, offsets.why_not(first)
    if not why:
        offset, offset_db = offsets.fit_tested(first.k, second.k)
    scale, scales_db = scales.fit_tested(first, second, offset)
    gain = LayerGain(layer=first.layer, offset_db=offset_db, scales_db=scales_db, constant=why)
    return Stored(offset=offset, scale=scale), gain


def _halves(
    run: Run, release: Path, model: Path, text: str, wanted: int
) -> tuple[tuple[tuple[AttentionLayer, ...], ...], int]:
    """The layers after the text's first `wanted` tokens and of as many next ones, each from position 0 on, with an f16
    cache; and how many tokens they are. Of a short text both are halves."""
    timeout_s, environment = run.config.validate.timeout_s, run.config.deploy.environment
    given: Mapping[str, str] = {name: value for name, value in environment.items() if name != CALIBRATION}
    with (
        temporary.folder("calibration") as home,
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
            stride=_STRIDE,
            environment=given,
            timeout_s=timeout_s,
        )
        for part in (tokens[:half], tokens[half : 2 * half])
    ), half
