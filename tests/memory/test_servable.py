"""Which models llama-server can chat with, by what their files and their store hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import gguf
import pytest

from toolchain.core.errors import ModelInvalid, ModelNotServable
from toolchain.models import servable
from toolchain.service.unit import ServedModel

from . import models
from .stored import LIBRARY, put

TEMPLATE = {"tokenizer.chat_template": "{{ messages }}"}


def file(folder: Path, extra: dict[str, Any], architecture: str = "llama", **metadata: Any) -> Path:
    spec = models.dense(architecture, further=metadata)
    return models.write(folder / f"{architecture}.gguf", spec, data=False, extra=extra)


def find(name: str | Path, root: Path, **variables: str) -> ServedModel:
    return servable.find(str(name), root, variables)


def test_a_file_with_a_template(tmp_path: Path) -> None:
    path = file(tmp_path, TEMPLATE)
    assert find(path, tmp_path) == ServedModel(name="llama", file=path)


@pytest.mark.parametrize("extra", [{}, {"tokenizer.chat_template": " \n"}, {"tokenizer.chat_template": 7}])
def test_a_file_without_one_is_refused_by_name_unless_one_is_given(tmp_path: Path, extra: dict[str, Any]) -> None:
    path = file(tmp_path, extra)
    with pytest.raises(ModelNotServable, match=r"llama\.gguf: .* has no chat template") as caught:
        find(path, tmp_path, LLAMA_ARG_CHAT_TEMPLATE_FILE="")
    assert "deploy.serve=ollama" in caught.value.hint
    for variable in servable.TEMPLATE_VARIABLES:
        assert find(path, tmp_path, **{variable: "/x.jinja"}).file == path


def test_templates_that_llama_cpp_finds_elsewhere(tmp_path: Path) -> None:
    assert servable.has_template({"tokenizer.chat_template.tool_use": "{{ tools }}"})
    tekken = {"general.architecture": "llama", "tokenizer.ggml.pre": "tekken", "llama.block_count": 40}
    assert servable.has_template(tekken)
    assert not servable.has_template(tekken | {"llama.block_count": 32})


@pytest.mark.parametrize(
    ("architecture", "extra", "words"),
    [
        ("bert", {}, "no KV cache"),
        ("clip", {}, "projector"),
        ("qwen3", {"qwen3.pooling_type": 3}, "embeddings"),
        ("llama", {"general.type": "adapter"}, "an adapter"),
    ],
)
def test_what_is_no_model_to_chat_with(tmp_path: Path, architecture: str, extra: dict[str, Any], words: str) -> None:
    path = file(tmp_path, TEMPLATE | extra, architecture)
    with pytest.raises(ModelNotServable, match=rf"{architecture}\.gguf: .*{words}"):
        find(path, tmp_path)


def test_what_ollama_adds_to_a_model_of_its_store_is_said(tmp_path: Path) -> None:
    model, root = file(tmp_path, TEMPLATE).read_bytes(), tmp_path / "store"
    put(root, f"{LIBRARY}/plain/latest", [("model", model), ("license", b"text")])
    assert find("plain", root).lost == ()
    params = json.dumps({"stop": ["</s>"], "temperature": 0.5}).encode()
    layers = [("model", model), ("template", b"{{ .Prompt }}"), ("system", b"Be kind."), ("params", params)]
    put(root, f"{LIBRARY}/more/8b", [*layers, ("messages", b"[]"), ("projector", b"p"), ("draft", b"d")])
    found = find("more:8b", root)
    assert found.file.name == f"sha256-{hashlib.sha256(model).hexdigest()}"
    assert found.projector is not None
    assert found.projector.read_bytes() == b"p"
    assert [words for words in found.lost if "stop, temperature" in words]
    assert [words for words in found.lost if "without its draft" in words]
    assert [words.split()[1] for words in found.lost[:3]] == ["store's", "system", "example"]


def test_a_renderer_in_the_configuration_of_the_model(tmp_path: Path) -> None:
    manifest = put(tmp_path, f"{LIBRARY}/m/latest", [("model", file(tmp_path, TEMPLATE).read_bytes())])
    for data, found in ((b'{"renderer": "qwen3-coder"}', "qwen3-coder"), (b"[", ""), (b"[]", ""), (b"{}", "")):
        digest = hashlib.sha256(data).hexdigest()
        (tmp_path / "blobs" / f"sha256-{digest}").write_bytes(data)
        stated = json.loads(manifest.read_text()) | {"config": {"digest": f"sha256:{digest}"}}
        manifest.write_text(json.dumps(stated))
        lost = find("m", tmp_path).lost
        assert len(lost) == bool(found), data
        assert found in "".join(lost)


def test_an_adapter_in_the_store_is_another_model(tmp_path: Path) -> None:
    put(tmp_path, f"{LIBRARY}/m/latest", [("model", file(tmp_path, TEMPLATE).read_bytes()), ("adapter", b"a")])
    with pytest.raises(ModelNotServable, match="m: the store has an adapter"):
        find("m", tmp_path)


def test_a_projector_in_the_file_itself_is_said(tmp_path: Path) -> None:
    spec = models.dense("gemma3")
    vision = ("v.patch_embd.weight", (8, 8), gguf.GGMLQuantizationType.F16)
    spec.tensors.append(vision)
    path = models.write(tmp_path / "m.gguf", spec, data=False, extra=TEMPLATE)
    assert "LLAMA_ARG_MMPROJ" in find(path, tmp_path).lost[0]


@pytest.mark.parametrize("name", ["none", "../x", "a,b"])
def test_a_model_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelInvalid, match="not a file, and not a model"):
        find(name, tmp_path)


@pytest.mark.parametrize("below", ["", "models"])
def test_a_store_on_a_disk_that_is_not_mounted(tmp_path: Path, below: str) -> None:
    (tmp_path / "store").symlink_to("/Volumes/gone/Ollama")
    with pytest.raises(ModelInvalid, match=r"store is a link to /Volumes/gone/Ollama, which is missing") as caught:
        find("llama3.2", tmp_path / "store" / below)
    assert "mount" in caught.value.hint


def test_safetensors_have_no_file_to_serve(tmp_path: Path) -> None:
    put(tmp_path, f"{LIBRARY}/m/latest", [("tensor", b"a"), ("tensor", b"b")])
    with pytest.raises(ModelInvalid, match="m: a model of safetensors"):
        find("m", tmp_path)
