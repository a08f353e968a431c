"""Ollama stores for tests: manifests and blobs as Ollama keeps them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from .models import Spec, write

KIND = "application/vnd.ollama.image."
LIBRARY = "registry.ollama.ai/library"


def put(root: Path, name: str, layers: list[tuple[str, bytes]]) -> Path:
    """A model with these layers, of the path `name` below manifests/. Returns its manifest."""
    described = []
    for kind, data in layers:
        digest = hashlib.sha256(data).hexdigest()
        blob = root / "blobs" / f"sha256-{digest}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        described.append({"mediaType": KIND + kind, "digest": f"sha256:{digest}", "size": len(data)})
    manifest = root / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": described}))
    return manifest


def put_model(root: Path, name: str, spec: Spec) -> Path:
    """A model of the library, as `name` "model/tag", whose file ends with its header. Returns its blob."""
    with tempfile.TemporaryDirectory() as folder:
        data = write(Path(folder) / "model.gguf", spec, data=False).read_bytes()
    put(root, f"{LIBRARY}/{name}", [("model", data)])
    return root / "blobs" / f"sha256-{hashlib.sha256(data).hexdigest()}"
