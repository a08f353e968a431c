"""Models in Ollama's own store, by name: from a manifest to the files that llama-server opens."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core.errors import ModelInvalid
from ...core.records import record

_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_KIND = "application/vnd.ollama.image."
_MAX_MANIFEST = 1 << 20


@record
class Stored:
    """A model of the store: its GGUF, and the bytes of other files that are loaded (projectors, adapters)."""

    name: str
    model: Path
    further_bytes: int
    projectors: tuple[Path, ...] = ()
    adapters: tuple[Path, ...] = ()
    layers: frozenset[str] = frozenset()
    """kinds of its layers: model, template, system, params and so on"""


def default_root(setting: str = "") -> Path:
    """The folder of the store: `setting`, else OLLAMA_MODELS, else Ollama's default."""
    return Path(setting or os.environ.get("OLLAMA_MODELS") or "~/.ollama/models").expanduser()


def find(name: str, root: Path) -> Stored | None:
    """The model called `name` ([host/][namespace/]model[:tag]); None when the store has no such model.

    Raises `ModelInvalid` for a manifest that cannot be read, names no model, or points outside of the store.
    """
    parts = _parts(name)
    if parts is None:
        return None
    manifest = root.joinpath("manifests", *parts)
    if not manifest.is_file():
        return None
    layers = _layers(_inside(manifest, root))
    models = [layer for layer in layers if layer[0] == "model"]
    if not models:
        if any(kind == "tensor" for kind, _, _ in layers):
            raise ModelInvalid(f"{name}: a model of safetensors, without a GGUF file", hint="take one with a GGUF file")
        raise ModelInvalid(f"{manifest}: names no model", hint=f"ollama pull {name}")
    paths = [_blob(root, digest, size) for _, digest, size in models]
    projectors, adapters = (
        tuple(_blob(root, digest, size) for kind, digest, size in layers if kind == wanted)
        for wanted in ("projector", "adapter")
    )
    return Stored(
        name=name,
        model=paths[0],
        further_bytes=sum(path.stat().st_size for path in (*paths[1:], *projectors, *adapters)),
        projectors=projectors,
        adapters=adapters,
        layers=frozenset(kind for kind, _, _ in layers),
    )


def parameter(name: str, key: str, root: Path) -> str:
    """A text that the model's Modelfile sets with PARAMETER; empty if it sets none. Raises `ModelInvalid`."""
    value = parameters(name, root).get(key)
    return value if isinstance(value, str) else ""


def parameters(name: str, root: Path) -> dict[str, Any]:
    """What the model's Modelfile sets with PARAMETER. Raises `ModelInvalid`."""
    parts = _parts(name)
    layers = _layers(_inside(root.joinpath("manifests", *parts), root)) if parts else []
    found: dict[str, Any] = {}
    for kind, digest, size in layers:
        if kind == "params":
            path = _blob(root, digest, size)
            try:
                given = json.loads(path.read_bytes()) if path.stat().st_size <= _MAX_MANIFEST else {}
            except ValueError as error:
                raise ModelInvalid(f"{path}: not parameters: {error}", hint="ollama pull the model again") from error
            found = given | found if isinstance(given, dict) else found
    return found


def renderer(name: str, root: Path) -> str:
    """The part of Ollama's own code that turns chats with the model into prompts; empty if none is stated."""
    parts = _parts(name)
    try:
        digest = json.loads(root.joinpath("manifests", *(parts or ("",))).read_bytes())["config"]["digest"]
        path = _blob(root, digest, None)
        stated = json.loads(path.read_bytes() if path.stat().st_size <= _MAX_MANIFEST else b"{}")
        return str(stated.get("renderer") or "")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ModelInvalid):
        return ""  # old manifests have none, and nothing depends on it


def names(root: Path) -> Iterator[str]:
    """The models of the store, as `ollama list` names them; in no order."""
    for manifest in (root / "manifests").glob("*/*/*/*"):
        host, namespace, model, tag = manifest.parts[-4:]
        if not model.startswith(".") and not tag.startswith("."):
            words = [host] if host != _HOST else []
            words += [namespace] if words or namespace != _NAMESPACE else []
            yield f"{'/'.join([*words, model])}:{tag}"


def _parts(name: str) -> tuple[str, str, str, str] | None:
    """Host, namespace, model and tag; None for an invalid name."""
    rest, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        rest, tag = name, _TAG
    words = rest.split("/")
    if len(words) > 3:
        return None
    host, namespace, model = ([_HOST, _NAMESPACE][: 3 - len(words)] + words)[-3:]
    found = (host, namespace, model, tag)
    return found if all(map(_PART.fullmatch, (host.partition(":")[0], namespace, model, tag))) else None


def _layers(manifest: Path) -> list[tuple[str, str, Any]]:
    """Kind, digest and stated size of each layer that llama-server opens."""
    try:
        if manifest.stat().st_size > _MAX_MANIFEST:
            raise ValueError("too large")
        layers: Any = json.loads(manifest.read_bytes())["layers"]
        found = [(str(layer["mediaType"]), str(layer["digest"]), layer.get("size")) for layer in layers]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelInvalid(f"{manifest}: not a manifest of Ollama: {error}", hint="ollama pull it again") from error
    return [(kind.removeprefix(_KIND), digest, size) for kind, digest, size in found if kind.startswith(_KIND)]


def _blob(root: Path, digest: str, size: Any) -> Path:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise ModelInvalid(f"{root}: {digest!r} is not a digest", hint="ollama pull the model again")
    path = root / "blobs" / f"sha256-{match[1]}"
    if not path.is_file():
        raise ModelInvalid(f"{path}: the blob is missing", hint="ollama pull the model again")
    path = _inside(path, root)
    if size is not None and path.stat().st_size != size:
        raise ModelInvalid(f"{path}: has {path.stat().st_size} bytes, not {size}", hint="ollama pull the model again")
    return path


def _inside(path: Path, root: Path) -> Path:
    if not path.resolve().is_relative_to(root.resolve()):
        raise ModelInvalid(f"{path}: points outside of {root}")
    return path
