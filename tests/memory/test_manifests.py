"""What Ollama's stores hold besides a GGUF file under its plain name, each told by what it is."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from toolchain.core.errors import ModelInvalid
from toolchain.models.memory import store

from .stored import KIND, LIBRARY, put

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_LIST = "application/vnd.ollama.manifest.list.v2+json"


def blob(root: Path, data: bytes) -> str:
    """Store a blob; returns its digest."""
    digest = hashlib.sha256(data).hexdigest()
    path = root / "blobs" / f"sha256-{digest}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"sha256:{digest}"


def manifest(root: Path, layers: list[tuple[str, bytes]] | None, config: dict[str, Any]) -> dict[str, Any]:
    """A manifest whose blobs are in the store. No layers are null, as Ollama writes them."""
    described = [
        {"mediaType": KIND + kind, "digest": blob(root, data), "size": len(data)} for kind, data in layers or []
    ]
    return {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"digest": blob(root, json.dumps(config).encode())},
        "layers": described if layers is not None else None,
    }


def write(root: Path, stated: dict[str, Any], path: str = f"manifests/{LIBRARY}/m/latest") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(stated))
    return file


def content(name: str, root: Path) -> bytes:
    found = store.find(name, root)
    assert found
    return found.model.read_bytes()


@pytest.mark.parametrize("layers", [None, []])
def test_a_cloud_model_is_called_one(tmp_path: Path, layers: list[tuple[str, bytes]] | None) -> None:
    config = {"remote_host": "https://ollama.com:443", "remote_model": "gpt-oss:120b"}
    write(tmp_path, manifest(tmp_path, layers, config))
    with pytest.raises(ModelInvalid, match=r"m: a cloud model: gpt-oss:120b runs at https://ollama\.com:443"):
        store.find("m", tmp_path)
    assert "cloud" in store.no_gguf("m", tmp_path)


@pytest.mark.parametrize(
    ("layers", "config", "words"),
    [
        ([("tensor", b"1"), ("tensor", b"2"), ("json", b"{}")], {}, "which Ollama runs by MLX"),
        ([("model", b"x")], {"model_format": "safetensors"}, "which Ollama runs by MLX"),
        ([("adapter", b"a"), ("projector", b"p")], {}, "lists an adapter and a projector, but no model"),
        ([("draft", b"d")], {}, "lists a draft model, but no model"),
        ([("template", b"t")], {}, "lists no file of weights"),
    ],
)
def test_what_has_no_gguf_file(
    tmp_path: Path, layers: list[tuple[str, bytes]], config: dict[str, Any], words: str
) -> None:
    write(tmp_path, manifest(tmp_path, layers, config))
    with pytest.raises(ModelInvalid, match=words):
        store.find("m", tmp_path)


def reference(root: Path, runner: str, stated: dict[str, Any] | None) -> dict[str, Any]:
    """An entry of a list; of a manifest that was not pulled if nothing is stated."""
    digest = blob(root, json.dumps(stated).encode()) if stated else "sha256:" + "0" * 64
    return {"mediaType": _MANIFEST, "digest": digest, "runner": runner, "format": "gguf"}


def test_of_a_list_the_manifest_that_llama_server_opens(tmp_path: Path) -> None:
    ggml, llama = (manifest(tmp_path, [("model", data)], {}) for data in (b"ggml", b"llama"))
    mlx = manifest(tmp_path, [("tensor", b"t")], {})
    cases: list[tuple[list[tuple[str, dict[str, Any] | None]], bytes, bool]] = [
        ([("mlx", mlx), ("ggml", ggml), ("llamacpp", llama)], b"llama", True),
        ([("ggml", ggml), ("LlamaCpp", None)], b"ggml", False),
    ]
    for entries, data, also_mlx in cases:
        refs = [reference(tmp_path, runner, stated) for runner, stated in entries]
        write(tmp_path, {"schemaVersion": 2, "mediaType": _LIST, "manifests": refs})
        found = store.find("m", tmp_path)
        assert found
        assert (found.model.read_bytes(), found.mlx) == (data, also_mlx)
    write(tmp_path, {"mediaType": _LIST, "manifests": [llama | {"runner": "llamacpp"}]})  # in the list itself
    assert content("m", tmp_path) == b"llama"
    write(tmp_path, {"mediaType": _LIST, "manifests": [reference(tmp_path, "mlx", mlx)]})
    with pytest.raises(ModelInvalid, match="by MLX"):
        store.find("m", tmp_path)
    nested = {"mediaType": _LIST, "manifests": [reference(tmp_path, "ggml", ggml)]}
    write(tmp_path, {"mediaType": _LIST, "manifests": [reference(tmp_path, "ggml", nested)]})
    with pytest.raises(ModelInvalid, match="a list in a list"):
        store.find("m", tmp_path)


def test_manifests_v2_go_first_and_may_be_links_to_blobs(tmp_path: Path) -> None:
    old, new = (manifest(tmp_path, [("model", data)], {}) for data in (b"old", b"new"))
    write(tmp_path, old)
    write(tmp_path, old, "manifests/localhost:5000/me/other/1")
    link = tmp_path / "manifests-v2/ollama.com/library/m/latest"
    link.parent.mkdir(parents=True)
    target = tmp_path / "blobs" / blob(tmp_path, json.dumps(new).encode()).replace(":", "-")
    link.symlink_to(os.path.relpath(target, link.parent))
    write(tmp_path, new, "manifests-v2/localhost%3A5000/me/mine/1")
    for name in ("m", "ollama.com/library/m", "registry.ollama.ai/library/m:latest", "localhost:5000/me/mine:1"):
        assert content(name, tmp_path) == b"new"
    assert sorted(store.names(tmp_path)) == ["localhost:5000/me/mine:1", "localhost:5000/me/other:1", "m:latest"]
    target.unlink()
    with pytest.raises(ModelInvalid, match=r"the manifest is a link to .*, which is missing"):
        store.find("m", tmp_path)


def test_names_without_regard_to_case_and_digests_in_capitals(tmp_path: Path) -> None:
    path = put(tmp_path, "hf.co/Someone/Thing-GGUF/Q4_K_M", [("model", b"x")])
    assert content("HF.co/someone/thing-gguf:q4_k_m", tmp_path) == b"x"
    stated = json.loads(path.read_text())
    digest = stated["layers"][0]["digest"].removeprefix("sha256:")
    for spelled in (f"sha256:{digest.upper()}", f"sha256-{digest}"):
        stated["layers"][0]["digest"] = spelled
        path.write_text(json.dumps(stated))
        assert content("hf.co/Someone/Thing-GGUF:Q4_K_M", tmp_path) == b"x"


def test_blobs_on_another_disk(tmp_path: Path) -> None:
    root, disk = tmp_path / "models", tmp_path / "disk"
    put(root, f"{LIBRARY}/m/latest", [("model", b"abc")])
    (root / "blobs").rename(disk)
    (root / "blobs").mkdir()
    moved = next(disk.iterdir())
    (root / "blobs" / moved.name).symlink_to(moved)
    assert content("m", root) == b"abc"
    moved.unlink()
    with pytest.raises(ModelInvalid, match=rf"the blob is a link to {moved}, which is missing") as caught:
        store.find("m", root)
    assert "mount the disk" in caught.value.hint
    (root / "blobs" / moved.name).unlink()
    os.mkfifo(root / "blobs" / moved.name)  # never opened
    with pytest.raises(ModelInvalid, match="the blob is missing"):
        store.find("m", root)


@pytest.mark.parametrize(
    ("given", "draft", "itself"),
    [(None, True, False), (0, False, False), (4, True, False)],
)
def test_the_draft_beside_a_model(tmp_path: Path, given: Any, draft: bool, itself: bool) -> None:
    layers = [("model", b"m"), ("projector", b"pp"), ("adapter", b"aaa"), ("draft", b"dddd")]
    if given is not None:
        layers.append(("params", json.dumps({"draft_num_predict": given}).encode()))
    put(tmp_path, f"{LIBRARY}/m/latest", layers)
    found = store.find("m", tmp_path)
    assert found
    assert found.further_bytes == 5
    assert (found.draft is not None and found.draft.read_bytes() == b"dddd") == draft
    assert found.drafts_itself is itself
    alone = [layer for layer in layers if layer[0] != "draft"]
    put(tmp_path, f"{LIBRARY}/m/latest", alone)
    found = store.find("m", tmp_path)
    assert found
    assert found.drafts_itself is (given == 4)
