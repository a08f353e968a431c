"""Profiles of clients: what they say, the context that fits, and files that are left alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.memory import models, stored
from tests.profiles.client_programs import LOADERS, VARIABLE, rendered
from toolchain.core.delivery_errors import ProfileInvalid
from toolchain.core.documents import parse_yaml
from toolchain.core.errors import ConfigError, ModelInvalid
from toolchain.profiles.clients import FORMATS, Stated, clients
from toolchain.profiles.rendering import MARK
from toolchain.profiles.shape import misfit
from toolchain.text import as_text


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profiles")


@pytest.mark.parametrize("client", FORMATS)
def test_a_profile_says_the_service_the_model_and_its_context(place: Path, client: str) -> None:
    made = rendered(place, client, settings={"deploy.port": 11500, "deploy.kv_cache_type": "turbo4"})
    assert made.api == "http://127.0.0.1:11500/v1"
    assert made.models[0].context == made.fits[0].context == 131072
    assert made.fits[0].types == "turbo4"
    assert MARK in made.text.splitlines()[0]
    assert "gemma3:27b: 131072 tokens, with the cache type turbo4" in made.text
    assert as_text(made) == made.text


def test_the_list_names_every_client() -> None:
    text = as_text(clients())
    assert all(name in text for name in FORMATS)
    assert "needs 64000 tokens" in text


def test_the_context_is_what_fits_with_the_services_type(place: Path) -> None:
    made = {
        types: rendered(place, "continue", memory_gb=24, settings={"deploy.kv_cache_type": types})
        for types in ("f16", "turbo4", "turbo2")
    }
    contexts = [made[types].models[0].context for types in made]
    assert contexts == sorted(contexts)
    assert contexts[0] < contexts[2]
    assert {one.types: one.context for one in made["f16"].fits} == {
        one.types: one.context for one in made["turbo2"].fits
    }
    assert made["f16"].models[0].output == contexts[0] // 4, "short contexts keep less for the answer"
    told = parse_yaml(made["turbo4"].text)["models"][0]["defaultCompletionOptions"]
    assert told == {"contextLength": contexts[1], "maxTokens": made["turbo4"].models[0].output}


@pytest.mark.parametrize(
    ("settings", "context", "noted"),
    [
        ({}, 131072, "--set deploy.environment.OLLAMA_CONTEXT_LENGTH=131072"),
        ({"deploy.environment.OLLAMA_CONTEXT_LENGTH": "70000"}, 70000, ""),
        ({"deploy.serve": "llama-server"}, 131072, "--set deploy.context=131072"),
        ({"deploy.serve": "llama-server", "deploy.context": 65536}, 65536, ""),
    ],
)
def test_the_services_own_limit(place: Path, settings: dict[str, Any], context: int, noted: str) -> None:
    made = rendered(place, "hermes", settings=settings)
    assert made.models[0].context == context
    assert (noted in made.text) if noted else (made.notes == ())


def test_requests_at_once_share_the_memory(place: Path) -> None:
    one, four = (
        rendered(place, "continue", memory_gb=26, settings={"deploy.environment.OLLAMA_NUM_PARALLEL": number})
        for number in ("1", "4")
    )
    assert 0 < four.models[0].context < one.models[0].context


def test_a_smaller_context_of_ones_own(place: Path) -> None:
    assert rendered(place, "hermes", context=65536).models[0].context == 65536


def test_a_key_is_only_referred_to(place: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef-secret\n")
    settings = {"deploy.serve": "llama-server", "deploy.api_key_file": str(key)}
    for client in FORMATS:
        text = rendered(place, client, settings=settings).text
        assert "TURBOQUANT_API_KEY" in text
        assert "0123456789abcdef" not in text
        assert "TURBOQUANT_API_KEY" not in rendered(place, client).text


def test_fallbacks(place: Path) -> None:
    elsewhere = "http://10.0.0.2:8080/v1"
    hermes = rendered(place, "hermes", fallbacks=(f"other@{elsewhere}",))
    assert parse_yaml(hermes.text)["fallback_providers"] == [
        {"provider": "custom", "model": "other", "base_url": elsewhere}
    ]
    made = rendered(place, "continue", fallbacks=("qwen3:32b",))
    assert [one["model"] for one in parse_yaml(made.text)["models"]] == ["gemma3:27b", "qwen3:32b"]
    assert made.models[1].context == 40960


@pytest.mark.parametrize(
    ("client", "wanted", "said"),
    [
        ("other", {}, "one of hermes, continue, opencode, openai"),
        ("hermes", {"model": "qwen3:32b"}, "it was trained on 40960: another model"),
        ("hermes", {"memory_gb": 24.0}, "hermes needs a context of 64000 tokens"),
        ("continue", {"memory_gb": 12.0}, "no context fits beside its weights in 12.0 GiB"),
        ("continue", {"memory_gb": 24.0, "context": 131072}, "more than the"),
        ("openai", {"fallbacks": ("qwen3:32b",)}, "knows one model only"),
        ("opencode", {"fallbacks": ("a@http://127.0.0.1/v1",)}, "models of the same service"),
        ("hermes", {"fallbacks": ("qwen3:32b",)}, "--fallback qwen3:32b: 40960 tokens; hermes needs 64000"),
        ("opencode", {"fallbacks": ("gemma3:27b",)}, "a model is named twice"),
        ("continue", {"fallbacks": ("a@file:///etc/passwd",)}, "not the URL of a service"),
        ("continue", {"fallbacks": (f"a@http://user:{'secret'}@host/v1",)}, "not the URL of a service"),
        ("continue", {"served_as": "two\nlines"}, "not the name of a model"),
        ("continue", {"key_variable": "a b"}, "not a name of a variable"),
        ("continue", {"address": "host/path"}, "not a host"),
    ],
)
def test_profiles_that_cannot_be_made(place: Path, client: str, wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(ProfileInvalid) as caught:
        rendered(place, client, **wanted)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("wanted", "kind"), [({"model": "none"}, ModelInvalid), ({"memory_gb": -1.0}, ConfigError)])
def test_a_plan_that_cannot_be_made(place: Path, wanted: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        rendered(place, "hermes", **wanted)


def test_a_file_is_known_by_another_name(place: Path, tmp_path: Path) -> None:
    file = models.write(tmp_path / "mine.gguf", models.gemma3_27b(), data=False)
    with pytest.raises(ProfileInvalid, match="Ollama knows no files"):
        rendered(place, "continue", model=str(file))
    assert rendered(place, "continue", model=str(file), served_as="gemma").models[0].model == "gemma"
    served = {"deploy.serve": "llama-server"}
    assert rendered(place, "continue", model=str(file), settings=served).models[0].model == "mine"


@pytest.mark.parametrize(
    "name", ['a"b', "a: b # c", "x/y:z", "${{ secrets.X }}", "{{ 1 }}", "- [", "$(id)`id`", "it's"]
)
@pytest.mark.parametrize("client", FORMATS)
def test_names_are_quoted(place: Path, client: str, name: str) -> None:
    """The check after rendering reads the same name back; here it is a shell that reads it."""
    made = rendered(place, client, served_as=name)
    assert made.models[0].model == name
    if client == "openai":
        told = subprocess.run(
            ["sh", "-c", f'{made.text}\nprintf %s "$OPENAI_MODEL"'], capture_output=True, text=True, check=True
        )
        assert told.stdout == name


@pytest.mark.parametrize(("host", "url"), [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("mac.local", "mac.local")])
def test_addresses(place: Path, host: str, url: str) -> None:
    assert rendered(place, "openai", address=host).api == f"http://{url}:11434/v1"


def test_only_our_own_file_is_replaced(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "folder/config.yaml"
    rendered(place, "hermes", out=str(out))
    again = rendered(place, "hermes", out=str(out), context=65536)
    assert out.read_text() == again.text
    assert f"use it: {again.use}" in as_text(again)
    assert rendered(place, "openai", out=str(tmp_path / "openai.env")).use == f". {tmp_path / 'openai.env'}"
    out.write_text("model: mine\n")
    for other in (out, tmp_path / "link", tmp_path):
        if other.name == "link":
            (tmp_path / "real").write_text(again.text)
            other.symlink_to(tmp_path / "real")
        with pytest.raises(ProfileInvalid, match="left alone"):
            rendered(place, "hermes", out=str(other))
    assert out.read_text() == "model: mine\n"
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("context_length: 131072", "context_length: lots"), "hermes.model.context_length: expected int"),
        (('"gemma3:27b"', '""'), "expected str"),
        (("transport:", "transports:"), "hermes.providers.turboquant"),
        (("providers:", "_providers:"), "hermes.providers: missing"),
        (("11434", "11435"), "the profile says"),
        (("_config_version: 33", "model: 1"), "does not parse"),
    ],
)
def test_a_template_that_went_wrong_is_seen(place: Path, change: tuple[str, str], said: str) -> None:
    good = rendered(place, "hermes").text
    expected = Stated(api="http://127.0.0.1:11434/v1", model="gemma3:27b", context=131072)
    FORMATS["hermes"].check(good, expected)
    with pytest.raises(ProfileInvalid, match=said):
        FORMATS["hermes"].check(good.replace(*change), expected)


@pytest.mark.parametrize(
    ("data", "shape", "told"),
    [
        ({"a": [1]}, {"a": [int]}, ""),
        ({"a": [True]}, {"a": [int]}, "x.a[0]: expected int"),
        ({}, {"a?": int}, ""),
        ({"b": 1}, {"*": int}, ""),
        ({"a": 1, "b": 1}, {"a": int}, "x.b: unknown"),
        ({1: 1}, {"*": int}, "x.1: unknown"),
        ([], {"a": int}, "x: expected a mapping"),
        ({"a": {}}, {"a": [int]}, "x.a: expected a list"),
    ],
)
def test_shapes(data: Any, shape: Any, told: str) -> None:
    assert misfit(data, shape, "x") == told


@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} names no folder of clients")
@pytest.mark.parametrize("key", [False, True])
@pytest.mark.parametrize("name", LOADERS)
def test_the_clients_own_parsers(name: str, key: bool, tmp_path: Path) -> None:
    programs = Path(os.environ[VARIABLE])
    if not (programs / name).exists():
        pytest.skip(f"{programs / name} is not there")
    LOADERS[name](programs, tmp_path, key=key)


def test_a_model_of_an_unknown_architecture(tmp_path: Path) -> None:
    stored.put(tmp_path / "store", f"{stored.LIBRARY}/odd/1", [("model", b"GGUF")])
    with pytest.raises(ModelInvalid):
        rendered(tmp_path, "continue", model="odd:1")
