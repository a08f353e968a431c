from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toolchain.core.errors import ModelInvalid
from toolchain.models.memory import store

from .stored import KIND, put


def test_names_as_ollama_reads_them(tmp_path: Path) -> None:
    put(tmp_path, "registry.ollama.ai/library/gemma3/latest", [("model", b"a"), ("license", b"text")])
    put(tmp_path, "registry.ollama.ai/library/gemma3/27b", [("model", b"bb"), ("projector", b"ccc")])
    put(tmp_path, "hf.co/someone/thing-GGUF/Q4_K_M", [("model", b"dddd")])
    for name, content, further in (
        ("gemma3", b"a", 0),
        ("gemma3:27b", b"bb", 3),
        ("library/gemma3:27b", b"bb", 3),
        ("registry.ollama.ai/library/gemma3:latest", b"a", 0),
        ("hf.co/someone/thing-GGUF:Q4_K_M", b"dddd", 0),
    ):
        found = store.find(name, tmp_path)
        assert found
        assert (found.model.read_bytes(), found.further_bytes) == (content, further)


@pytest.mark.parametrize(
    "name", ["llama3", "gemma3:none", "", "a/b/c/d", "../../etc/passwd", "..", "a:..", "a b", "/x"]
)
def test_names_that_are_not_there(tmp_path: Path, name: str) -> None:
    put(tmp_path, "registry.ollama.ai/library/gemma3/latest", [("model", b"a")])
    assert store.find(name, tmp_path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "not a manifest"),
        ("[1]", "not a manifest"),
        ('{"layers": [{}]}', "not a manifest"),
        ('{"layers": [1]}', "no list of objects"),
        ('{"layers": 5}', "no list of objects"),
        ('{"layers": []}', "lists no file of weights"),
        ('{"manifests": []}', "no list of objects"),
        ('{"manifests": [{"runner": "ggml", "digest": "sha256:ab"}]}', "for ggml, and none is here"),
        ("[" * 100_000, "not a manifest"),
        (" " * (1 << 24) + " ", "too large"),
    ],
)
def test_manifests_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    put(tmp_path, "registry.ollama.ai/library/m/latest", [("model", b"a")]).write_text(content)
    with pytest.raises(ModelInvalid, match=message):
        store.find("m", tmp_path)


@pytest.mark.parametrize("digest", ["sha256:../../../secret", "md5:00", "sha256:" + "0" * 64])
def test_digests_that_lead_nowhere(tmp_path: Path, digest: str) -> None:
    layers: list[dict[str, Any]] = [{"mediaType": KIND + "model", "digest": digest}]
    put(tmp_path, "registry.ollama.ai/library/m/latest", []).write_text(json.dumps({"layers": layers}))
    with pytest.raises(ModelInvalid):
        store.find("m", tmp_path)


def test_the_names_of_a_store_are_found_again(tmp_path: Path) -> None:
    paths = {
        "gemma3:27b": "registry.ollama.ai/library/gemma3/27b",
        "someone/x:latest": "registry.ollama.ai/someone/x/latest",
        "hf.co/someone/thing-GGUF:Q4_K_M": "hf.co/someone/thing-GGUF/Q4_K_M",
    }
    for number, path in enumerate(paths.values()):
        put(tmp_path, path, [("model", bytes([number]))])
    put(tmp_path, "registry.ollama.ai/library/.hidden/latest", [("model", b"x")])
    assert sorted(store.names(tmp_path)) == sorted(paths)
    assert all(store.find(name, tmp_path) for name in paths)
    assert list(store.names(tmp_path / "none")) == []


def test_a_blob_of_another_size_is_damaged(tmp_path: Path) -> None:
    put(tmp_path, "registry.ollama.ai/library/m/latest", [("model", b"abc")])
    next((tmp_path / "blobs").iterdir()).write_bytes(b"ab")
    with pytest.raises(ModelInvalid, match="has 2 bytes, not 3"):
        store.find("m", tmp_path)


@pytest.mark.parametrize(
    ("content", "value"),
    [(b'{"kv_cache_type": "q8_0", "n": 4}', "q8_0"), (b'{"n": 4}', ""), (b"[]", ""), (b'{"kv_cache_type": 4}', "")],
)  # fmt: skip
def test_what_a_modelfile_sets(tmp_path: Path, content: bytes, value: str) -> None:
    put(tmp_path, "registry.ollama.ai/library/m/latest", [("model", b"a"), ("params", content)])
    assert store.parameter("m", "kv_cache_type", tmp_path) == value
    next(path for path in (tmp_path / "blobs").iterdir() if path.read_bytes() == content).write_bytes(
        b"{" * len(content)
    )
    with pytest.raises(ModelInvalid, match="not parameters"):
        store.parameter("m", "kv_cache_type", tmp_path)


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    assert store.default_root() == Path.home() / ".ollama" / "models"
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    assert store.default_root() == tmp_path
    assert store.default_root("/elsewhere") == Path("/elsewhere")
