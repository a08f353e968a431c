"""Real keys and values: a model reads a text on llama-server, whose cache is then saved and read back."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import requests

from ..config import Config
from ..console import Console
from ..errors import ConfigError, ModelLoadFailed, ReleaseInvalid, ServerFailed, StateInvalid, TextTooShort
from ..process import TAIL_LINES, kill_group
from ..records import record
from . import state
from .samples import SMALLEST_ROTATION, Sample, rotation_size

FEWEST_TOKENS = 128
_POLL_S = 0.05
_ROOM = 16  # tokens of the context that stay free: a full one is refused
_SLOT_FILE = "slot.bin"


@record
class Heads:
    """What a model's file says about its cache; `has_v` is false for models that derive V from K."""

    key_size: int
    value_size: int
    context: int
    has_v: bool


def dump(server: Path, model: Path, text: str, tokens: int, config: Config, console: Console) -> tuple[Sample, ...]:
    """The f16 cache that `model` fills on the first `tokens` tokens of `text`: samples dump.k.0, dump.v.0, dump.k.1 ...

    They are numbered in attention layers, those with full attention before the windowed ones, and are not rotated yet.
    Raises `ReleaseInvalid` without a server, `ModelLoadFailed`, `ServerFailed`, `TextTooShort`, `StateInvalid`, and
    `ConfigError` for a head size that llama.cpp does not rotate.
    """
    heads = read_heads(model)
    rotation_size(heads.key_size)
    tokens = min(tokens, heads.context - _ROOM)
    with console.step(f"keys and values of {model.name}"), tempfile.TemporaryDirectory(prefix="turboquant-") as folder:
        home = Path(folder)
        with _serve(server, model, tokens, home, config.verify.timeout_s) as url:
            written = _fill_and_save(url, text, tokens, config.verify.timeout_s)
        saved = home / _SLOT_FILE
        if not saved.is_file() or saved.stat().st_size != written:
            raise StateInvalid(f"{server}: the saved slot is not of the {written} bytes that were announced")
        return tuple(_samples(state.load(saved, has_v=heads.has_v), heads))


def read_heads(model: Path) -> Heads:
    """The head sizes in a GGUF file. Raises `ModelLoadFailed` when it is none, or names no attention."""
    try:
        fields = gguf.GGUFReader(model).fields
        arch = fields["general.architecture"].contents()

        def number(key: str, default: int = 0) -> int:
            field = fields.get(f"{arch}.{key}")
            value = field.contents() if field else default
            return int(max(value)) if isinstance(value, list) else int(value)

        shared = number("embedding_length") // max(number("attention.head_count"), 1)
        key_size = number("attention.key_length", shared)
        return Heads(
            key_size=key_size,
            value_size=number("attention.value_length", shared) or key_size,
            context=number("context_length", 2**31),
            has_v=number("attention.kv_lora_rank") == 0,
        )
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ModelLoadFailed(f"{model}: not a GGUF model: {error}", hint="--model names a GGUF file") from error


def _samples(found: state.State, heads: Heads) -> Iterator[Sample]:
    for index, layer in enumerate(found.layers):
        # upstream takes the largest transform for K and the smallest for V
        parts = [("k", layer.k, heads.key_size, rotation_size(heads.key_size))]
        if layer.v is not None:
            parts.append(("v", layer.v, heads.value_size, SMALLEST_ROTATION))
        for kind, values, size, rotation in parts:
            if values.shape[1] % size or size % SMALLEST_ROTATION:
                raise ConfigError(
                    f"layer {index} stores {values.shape[1]} values for {kind.upper()}, which are no heads of {size}",
                    hint="models whose head size varies, or is no multiple of 64, cannot be measured",
                )
            shaped = values.reshape(len(values), -1, size)
            yield Sample(name=f"dump.{kind}.{index}", values=shaped, rotation=rotation, keys=kind == "k")


def _fill_and_save(url: str, text: str, tokens: int, timeout_s: float) -> int:
    """Let the server read the text, and save the slot; returns the bytes that it says it wrote."""
    found = _post(f"{url}/tokenize", {"content": text, "add_special": True}, timeout_s).get("tokens") or []
    if len(found) < FEWEST_TOKENS:
        raise TextTooShort(
            f"the text has {len(found)} tokens, {FEWEST_TOKENS} are needed", hint="--text names a longer one"
        )
    _post(f"{url}/completion", {"prompt": found[:tokens], "n_predict": 1, "cache_prompt": True}, timeout_s)
    return int(_post(f"{url}/slots/0?action=save", {"filename": _SLOT_FILE}, timeout_s).get("n_written", 0))


def _post(url: str, body: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(url, json=body, timeout=timeout_s)
            found = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise ServerFailed(f"{url}: no answer: {error}", hint="verify.timeout_s bounds each call") from error
    if answer.status_code != requests.codes.ok or not isinstance(found, dict):
        raise ServerFailed(f"{url}: answers {answer.status_code}: {answer.text[:500]}")
    return found


@contextlib.contextmanager
def _serve(server: Path, model: Path, tokens: int, home: Path, timeout_s: float) -> Iterator[str]:
    """llama-server on a free loopback port, with one slot and an f16 cache; gone on leaving. Yields its URL."""
    if not os.access(server, os.X_OK) or server.is_dir():
        raise ReleaseInvalid(f"{server}: no such program", hint="--server names a llama-server, --release a release")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [str(server.absolute()), "--model", str(model.absolute()), "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--ctx-size", str(tokens + _ROOM), "--parallel", "1", "--cache-type-k", "f16", "--cache-type-v", "f16"]
    argv += ["--slot-save-path", f"{home}/", "--cache-ram", "0"]
    log = home / "server.log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLAMA_", "GGML_"))}
    with log.open("wb") as sink:
        try:
            process = subprocess.Popen(
                argv,
                env=kept,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise ServerFailed(f"{server} cannot be started: {error.strerror or error}") from error
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(process, url, model, log, timeout_s)
        try:
            yield url
        except ServerFailed as error:
            raise ServerFailed(f"{error.message}\n{_tail(log)}".rstrip(), hint=error.hint) from error
    finally:
        kill_group(process.pid)
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, model: Path, log: Path, timeout_s: float) -> None:
    """Until the model is loaded. Raises `ModelLoadFailed` with the log's end when it is not."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException), requests.Session() as session:
            session.trust_env = False
            if session.get(f"{url}/health", timeout=5).status_code == requests.codes.ok:
                return
        time.sleep(_POLL_S)
    how = f"ended with {process.returncode}" if process.returncode is not None else f"took over {timeout_s:g} s"
    raise ModelLoadFailed(f"{model}: llama-server {how}\n{_tail(log)}".rstrip(), hint="does llama.cpp run this model?")


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "".join(f"    {line}\n" for line in lines[-TAIL_LINES:])
