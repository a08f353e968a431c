"""Models in Ollama's own store, by name: from a manifest to the files that llama-server opens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...core.errors import ModelInvalid
from ...core.records import record
from . import manifests
from .manifests import Manifest, names

__all__ = ["Stored", "default_root", "find", "names", "no_gguf", "parameter", "parameters", "renderer", "unknown"]

_DRAFTED = "draft_num_predict"
"""option of a model: how many tokens Ollama has drafted at a time; 0 turns drafts off"""
_MLX = "mlx"
_ALONE = {"adapter": "an adapter", "draft": "a draft model", "projector": "a projector"}


@record
class Stored:
    """A model of the store: its GGUF, and the bytes of other files that are loaded (projectors, adapters)."""

    name: str
    model: Path
    further_bytes: int
    """without those of the draft"""
    projectors: tuple[Path, ...] = ()
    adapters: tuple[Path, ...] = ()
    draft: Path | None = None
    """the draft model that Ollama loads beside it; None also where its Modelfile turns drafts off"""
    drafts_itself: bool = False
    """whether its Modelfile has Ollama draft with the model's own further layers, if it has any"""
    layers: frozenset[str] = frozenset()
    """kinds of its layers: model, template, system, params and so on"""
    mlx: bool = False
    """whether the store has the model for MLX as well, which Ollama then prefers on a Mac"""


def default_root(setting: str = "") -> Path:
    """The folder of the store: `setting`, else OLLAMA_MODELS, else Ollama's default."""
    return Path(setting or os.environ.get("OLLAMA_MODELS") or "~/.ollama/models").expanduser()


def unknown(name: str, root: Path, hint: str) -> ModelInvalid:
    """The error for a name that is neither a file nor in the store; a store on a disk that is not mounted is said."""
    said = f"{name}: not a file, and not a model in {root}"
    for folder in (root, *root.parents):
        if folder.is_symlink() and not folder.exists():
            said += f": {folder} is a link to {os.readlink(folder)}, which is missing"
            return ModelInvalid(said, hint="mount the disk that it leads to")
    return ModelInvalid(said if root.exists() else f"{said}, which does not exist", hint=hint)


def find(name: str, root: Path) -> Stored | None:
    """The model called `name` ([host/][namespace/]model[:tag]); None when the store has no such model.

    Raises `ModelInvalid` for a manifest that cannot be read, blobs that are missing, and a model without a GGUF file.
    """
    manifest = manifests.find(name, root)
    if manifest is None:
        return None
    if why := _no_gguf(manifest, root):
        raise ModelInvalid(f"{name}: {why}", hint="take a model with a GGUF file: `ollama list` shows the others")
    models, projectors, adapters, drafts = (
        tuple(manifests.blob(root, layer.digest, layer.size) for layer in manifest.layers if layer.kind == wanted)
        for wanted in ("model", "projector", "adapter", "draft")
    )
    drafted = _parameters(manifest, root).get(_DRAFTED) if drafts or models else None
    return Stored(
        name=name,
        model=models[0],
        further_bytes=sum(path.stat().st_size for path in (*models[1:], *projectors, *adapters)),
        projectors=projectors,
        adapters=adapters,
        draft=drafts[-1] if drafts and (drafted is None or _positive(drafted)) else None,
        drafts_itself=not drafts and _positive(drafted),
        layers=frozenset(layer.kind for layer in manifest.layers),
        mlx=_MLX in manifest.runners,
    )


def no_gguf(name: str, root: Path) -> str:
    """Why a model of the store is none for llama.cpp: it is in the cloud, of MLX, or no model; empty for others.

    Raises `ModelInvalid` as `find` does.
    """
    manifest = manifests.find(name, root)
    return _no_gguf(manifest, root) if manifest else ""


def _no_gguf(manifest: Manifest, root: Path) -> str:
    kinds = [layer.kind for layer in manifest.layers]
    about = manifests.described(manifest, root)
    if about.get("remote_host") or about.get("remote_model"):
        where = about.get("remote_host") or "another machine"
        return f"a cloud model: {about.get('remote_model') or 'it'} runs at {where}, with no weights or cache here"
    if "model" in kinds and about.get("model_format") != "safetensors":
        return ""
    if "tensor" in kinds or about.get("model_format") == "safetensors":
        return "a model of safetensors, which Ollama runs by MLX: llama.cpp and its cache types have no part in it"
    if others := sorted(_ALONE.keys() & set(kinds)):
        return f"{manifest.path}: lists {' and '.join(_ALONE[kind] for kind in others)}, but no model to go with it"
    return f"{manifest.path}: lists no file of weights"


def parameter(name: str, key: str, root: Path) -> str:
    """A text that the model's Modelfile sets with PARAMETER; empty if it sets none. Raises `ModelInvalid`."""
    value = parameters(name, root).get(key)
    return value if isinstance(value, str) else ""


def parameters(name: str, root: Path) -> dict[str, Any]:
    """What the model's Modelfile sets with PARAMETER. Raises `ModelInvalid`."""
    manifest = manifests.find(name, root)
    return _parameters(manifest, root) if manifest else {}


def _parameters(manifest: Manifest, root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for layer in manifest.layers:
        if layer.kind == "params":
            path = manifests.blob(root, layer.digest, layer.size)
            try:
                given = json.loads(path.read_bytes()) if path.stat().st_size <= manifests.MAX_TEXT else {}
            except (ValueError, RecursionError) as error:
                raise ModelInvalid(f"{path}: not parameters: {error}", hint="ollama pull the model again") from error
            found = given | found if isinstance(given, dict) else found
    return found


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


def renderer(name: str, root: Path) -> str:
    """The part of Ollama's own code that turns chats with the model into prompts; empty if none is stated."""
    try:
        manifest = manifests.find(name, root)
    except ModelInvalid:
        return ""
    return str(manifests.described(manifest, root).get("renderer") or "") if manifest else ""
