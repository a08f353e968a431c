"""What llama-server is given: models by name or file, and keys from a file that is closed to others."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.memory import models
from tests.memory.stored import LIBRARY, put
from toolchain.core.config import DeployConfig
from toolchain.core.errors import ConfigError, ModelInvalid, ModelNotServable, ModelsUnavailable
from toolchain.core.variables import all_masked
from toolchain.deploy import served, several
from toolchain.service import account
from toolchain.service.unit import NOTHING, Served, ServedModel
from toolchain.service.units.llama_server import LlamaServerUnit
from toolchain.stages import Release

from .site import BUILD, TURBO

_KEY = "0123456789abcdef-one"
_OTHER = "0123456789abcdef-two"
_TEMPLATE = {"tokenizer.chat_template": "{{ messages }}"}


@pytest.fixture
def config(tmp_path: Path) -> DeployConfig:
    model = models.write(tmp_path / "a,b.gguf", models.dense(head_size=128), data=False, extra=_TEMPLATE)
    return DeployConfig(
        serve="llama-server", serve_models=(str(model),), models=str(tmp_path / "models"), kv_cache_type="turbo4"
    )


@pytest.fixture
def release() -> Release:
    return Release(
        id="one", version="1", created="", platform="", ollama_commit="", llama_cpp_commit="", llama_cpp_build=BUILD,
        series_sha256="", cache_types=TURBO, tools={}, flags={}, files={},
    )  # fmt: skip


def _with_keys(config: DeployConfig, data: bytes, mode: int = 0o600) -> DeployConfig:
    path = Path(config.serve_models[0]).with_name("keys")
    path.write_bytes(data)
    path.chmod(mode)
    return replace(config, api_key_file=str(path))


def test_ollama_is_given_nothing(config: DeployConfig) -> None:
    assert served.look(replace(config, serve="ollama", api_key_file="/nowhere")) == NOTHING


def test_a_file_and_a_name_of_the_store(config: DeployConfig, tmp_path: Path) -> None:
    (one,) = served.look(config).models
    assert (one.name, one.file) == ("a_b", tmp_path / "a,b.gguf")
    put(tmp_path / "models", f"{LIBRARY}/tiny/1b", [("model", one.file.read_bytes()), ("params", b'{"stop": ["x"]}')])
    (found,) = served.look(replace(config, serve_models=("tiny:1b",))).models
    assert (found.name, found.file.read_bytes()) == ("tiny:1b", one.file.read_bytes())
    assert "its own parameters do not apply: stop" in found.lost


def test_models_that_are_refused(config: DeployConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a model"):
        served.look(replace(config, serve_models=()))
    with pytest.raises(ModelInvalid, match=r"no-such: .* not a model in .*/models"):
        served.look(replace(config, serve_models=("no-such",)))
    mute = models.write(tmp_path / "mute.gguf", models.dense(), data=False)
    with pytest.raises(ModelNotServable, match=r"mute\.gguf has no chat template"):
        served.look(replace(config, serve_models=(str(mute),)))


def test_a_name_that_no_file_can_have(config: DeployConfig) -> None:
    with pytest.raises(ModelInvalid, match=r"deploy.serve_models: .*: File name too long"):
        served.look(replace(config, serve_models=("x" * 5000,)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root enters every folder")
def test_a_model_in_a_folder_of_others(config: DeployConfig, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(ModelInvalid, match=r"deploy.serve_models: .*closed/a.gguf: Permission denied"):
        served.look(replace(config, serve_models=(str(tmp_path / "closed/a.gguf"),)))


def test_a_model_that_does_not_load_with_the_type(config: DeployConfig, release: Release, tmp_path: Path) -> None:
    narrow = models.write(tmp_path / "phi.gguf", models.dense("phi2", head_size=80), data=False, extra=_TEMPLATE)
    narrowed = replace(config, serve_models=(str(narrow),))
    given = served.look(narrowed)
    with pytest.raises(ConfigError, match="phi does not load with turbo4") as caught:
        served.advice(given, release, narrowed, account.caller())
    assert "deploy.kv_cache_type=" in caught.value.hint
    assert served.advice(given, release, replace(narrowed, kv_cache_type="f16"), account.caller())


def test_what_is_lost_is_said(config: DeployConfig, release: Release) -> None:
    model = replace(served.look(config).models[0], lost=("its system prompt is not sent",))

    def told(config: DeployConfig, *keys: str) -> set[tuple[str, str]]:
        found = served.advice(Served(models=(model,), keys=keys), release, config, account.caller())
        return {(one.about, one.message.partition(",")[0]) for one in found}

    lost = {("deploy.serve", "llama-server has none of /api/*"), ("a_b", "its system prompt is not sent")}
    without_a_key = {("deploy.api_key_file", "llama-server does not look at the Host header: without a key")}
    assert told(config) == lost | without_a_key
    assert told(config, _KEY) == lost
    given = replace(config, environment={"OLLAMA_KEEP_ALIVE": "1h", "LLAMA_ARG_THREADS": "2"})
    assert told(given, _KEY) == lost | {("OLLAMA_KEEP_ALIVE", "Ollama reads it")}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_model_that_cannot_be_read(config: DeployConfig, release: Release) -> None:
    given = served.look(config)
    given.models[0].file.chmod(0)
    with pytest.raises(ModelsUnavailable, match="cannot read"):
        served.advice(given, release, config, account.caller())


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (f"{_KEY}", (_KEY,)),
        (f"{_KEY}\n", (_KEY,)),
        (f"# mine\r\n\r\n  {_KEY}\t\r\n{_OTHER}\r\n{_KEY}\n", (_KEY, _OTHER)),
    ],
)
def test_keys(config: DeployConfig, data: str, keys: tuple[str, ...]) -> None:
    assert served.look(_with_keys(config, data.encode())).keys == keys


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "holds no key"),
        (b"\n# none\n", "holds no key"),
        (b"short\n", "line 1: a key of 5 characters can be guessed"),
        (f"{_KEY}\n0123456789abcdef-\u00e9\n".encode(), "line 2: a key is letters"),
        (b"0123456789abcdef-\xff\n", "line 1: a key is letters"),
        (b"0123456789abcdef,0123456789abcdef\n", "line 1: a key is letters"),
        (b"0123456789abcdef 0123456789abcdef\n", "line 1: a key is letters"),
        (b"0123456789abcdef\x00\n", "line 1: a key is letters"),
        (b'"0123456789abcdef"\n', "line 1: a key is letters"),
        (b"a" * 9000, "more than 8192 bytes"),
    ],
)
def test_keys_that_are_refused(config: DeployConfig, data: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        served.look(_with_keys(config, data))
    assert "0123456789" not in str(caught.value)


@pytest.mark.parametrize(("mode", "words"), [(0o640, "mode 0640"), (0o604, "mode 0604"), (0o620, "others can read")])
def test_a_key_file_that_is_open_to_others(config: DeployConfig, mode: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        served.look(_with_keys(config, _KEY.encode(), mode))
    assert caught.value.hint.startswith("chmod 600")


def test_a_key_file_that_is_no_file_of_ones_own(config: DeployConfig, tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none", "No such file"), (tmp_path, "not a file")):
        with pytest.raises(ConfigError, match=words):
            served.look(replace(config, api_key_file=str(path)))
    given = _with_keys(config, _KEY.encode())
    (tmp_path / "link").symlink_to("keys")
    with pytest.raises(ConfigError, match="symbolic link"):
        served.look(replace(given, api_key_file=str(tmp_path / "link")))
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="not a file"):
        served.look(replace(given, api_key_file=str(tmp_path / "pipe")))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
def test_a_key_file_of_another(config: DeployConfig, tmp_path: Path) -> None:
    given = _with_keys(config, _KEY.encode())
    os.chown(tmp_path / "keys", 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to"):
        served.look(given)


def test_other_machines_need_a_key(config: DeployConfig) -> None:
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 is reachable from other machines, and deploy\.api_key_file"):
        served.look(replace(config, host="0.0.0.0"))
    assert served.look(replace(_with_keys(config, _KEY.encode()), host="0.0.0.0")).keys == (_KEY,)


def test_what_is_closed_unless_it_is_opened(config: DeployConfig, release: Release) -> None:
    unit, given = LlamaServerUnit(), Served(models=(ServedModel(name="a", file=Path("/a")),), keys=(_KEY, _OTHER))
    made = unit.environment(release, config, given)
    assert (made["LLAMA_ARG_CORS_ORIGINS"], made["LLAMA_ARG_UI"], made["LLAMA_ARG_ENDPOINT_SLOTS"]) == (
        "localhost", "0", "0"
    )  # fmt: skip
    assert made["LLAMA_API_KEY"].split(",") == [_KEY, _OTHER, _OTHER]
    assert _KEY not in str(all_masked(made))
    opened = replace(config, environment={"LLAMA_ARG_UI": "1", "LLAMA_ARG_ENDPOINT_METRICS": "1"})
    assert unit.environment(release, opened, given)["LLAMA_ARG_UI"] == "1"
    for name in (
        "LLAMA_ARG_TOOLS",
        "LLAMA_ARG_HF_REPO",
        "LLAMA_ARG_SSL_KEY_FILE",
        "LLAMA_API_KEY",
        "LLAMA_ARG_OFFLINE",
    ):
        with pytest.raises(ConfigError, match=name):
            unit.environment(release, replace(config, environment={name: "x"}), given)


def test_a_release_that_cannot_start_processes_has_one_model(release: Release, tmp_path: Path) -> None:
    two = Served(models=(ServedModel(name="a", file=tmp_path), ServedModel(name="b", file=tmp_path)))
    folder = tmp_path / "lib/ollama"
    folder.mkdir(parents=True)
    (folder / "llama-server").write_text("#!/bin/sh")
    several.require_able(two, tmp_path, release)  # nothing is known of a script
    library = folder / "libllama-server-impl.dylib"
    library.write_bytes(b"\0_kill\0E: subprocess is not enabled on this build\0")
    several.require_able(Served(models=two.models[:1]), tmp_path, release)
    with pytest.raises(ConfigError, match="release one was built to serve one model only"):
        several.require_able(two, tmp_path, release)
    library.write_bytes(library.read_bytes() + b"_posix_spawnp\0")
    several.require_able(two, tmp_path, release)
