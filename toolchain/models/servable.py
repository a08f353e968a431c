"""Whether llama-server can chat with a model: by the chat template in its GGUF file.

Ollama renders many models' prompts by code or by a template of its own, which the store keeps beside the file.
llama-server takes the file's chat template, and chatml for a file without one, which answers wrongly without an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import ModelNotServable
from ..service.unit import ServedModel
from .memory import architectures, gguf, store

TEMPLATE_VARIABLES = ("LLAMA_ARG_CHAT_TEMPLATE", "LLAMA_ARG_CHAT_TEMPLATE_FILE")
"""variables of llama-server that replace the file's chat template"""
_KEY = "tokenizer.chat_template"
_OLLAMA = "set deploy.serve=ollama"
_TEKKEN_LAYERS = 40
_VISION, _PROJECTOR = "v.", "LLAMA_ARG_MMPROJ"


def find(name: str, root: Path, environment: Mapping[str, str], file: Path | None = None) -> ServedModel:
    """The model `name`, a GGUF file or a name in the store at `root`, for a llama-server with these variables.

    `file` is the path that the name would be; without it, the name is taken as it stands.
    Raises `ModelNotServable` for a model that cannot chat, or has no chat template while the variables name none; and
    `ModelInvalid` for a model that is not there or damaged.
    """
    stored, file = None, file or Path(name)
    if not file.is_file():
        stored = store.find(name, root)
        if stored is None:
            raise store.unknown(name, root, "`ollama list` shows the models")
        file = stored.model
    header = gguf.load(str(file))
    metadata = header.metadata
    if why := _no_chat(metadata):
        raise ModelNotServable(
            f"{name}: {why}, so llama-server cannot chat with it", hint=f"another model, or {_OLLAMA}"
        )
    if stored and stored.adapters:
        raise ModelNotServable(
            f"{name}: the store has an adapter for it, without which it is another model",
            hint=f"merge the adapter into the model's GGUF file, or {_OLLAMA}",
        )
    if not has_template(metadata) and not any(environment.get(variable, "").strip() for variable in TEMPLATE_VARIABLES):
        raise ModelNotServable(
            f"{name}: {file} has no chat template, so llama-server would prompt it wrongly, without an error",
            hint=f"take another, or {_OLLAMA}; or serve it alone, with a file of its template that "
            f"{TEMPLATE_VARIABLES[1]} in deploy.environment names",
        )
    lost = _lost(stored, root) if stored else []
    if not (stored and stored.projectors) and any(tensor.name.startswith(_VISION) for tensor in header.tensors):
        lost.append(f"it does not see images: its projector lies in its own file, for {_PROJECTOR} to name")
    return ServedModel(
        name=name if stored else file.stem,
        file=file.absolute(),
        projector=stored.projectors[0].absolute() if stored and stored.projectors else None,
        lost=tuple(lost),
    )


def has_template(metadata: Mapping[str, Any]) -> bool:
    """Whether llama.cpp finds a chat template in the file, or knows it by the model's shape."""
    for key in (_KEY, f"{_KEY}.tool_use"):
        if isinstance(text := metadata.get(key), str) and text.strip():
            return True
    layers = metadata.get(f"{metadata.get('general.architecture')}.block_count")
    return metadata.get("tokenizer.ggml.pre") == "tekken" and layers == _TEKKEN_LAYERS  # llama_model_chat_template


def _no_chat(metadata: Mapping[str, Any]) -> str:
    """What the file is, if it is no model to chat with."""
    stated = str(metadata.get("general.architecture", ""))
    if kind := architectures.OTHER_KINDS.get(str(metadata.get("general.type", ""))):
        return f"it is {kind}"
    if f"{stated}.pooling_type" in metadata:
        return "it makes embeddings"
    why = architectures.UNSERVED.get(stated, "")
    return why if stated == "clip" or why == architectures.UNSERVED["bert"] else ""


def _lost(stored: store.Stored, root: Path) -> list[str]:
    """What Ollama does for a model of its store beside running the file."""
    found = []
    if code := store.renderer(stored.name, root):
        found.append(f"Ollama renders prompts by code of its own ({code}), llama-server by the file's chat template")
    elif stored.layers & {"template", "prompt"}:
        found.append("the store's template for prompts is ignored, the file's chat template is used instead")
    if "system" in stored.layers:
        found.append("its system prompt is not sent")
    if "messages" in stored.layers:
        found.append("its example messages are not sent")
    if names := sorted(store.parameters(stored.name, root)):
        found.append(f"its own parameters do not apply: {', '.join(names)}")
    if stored.draft or stored.drafts_itself:
        found.append("it is served without its draft: the answers are the same, and may come slower")
    if len(stored.projectors) > 1:
        found.append(f"only the first of its {len(stored.projectors)} projectors is loaded")
    return found
