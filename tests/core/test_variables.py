"""Further variables: names and values that are refused, secrets, and how the layers of the configuration merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolchain.core import variables
from toolchain.core.config import Config, load, rows
from toolchain.core.errors import ConfigError
from toolchain.text import as_text

PARENT = "deploy.environment"


def config_of(tmp_path: Path, text: str = "", environ: Any = None, **flags: Any) -> Config:
    (tmp_path / "turboquant.yaml").write_text(text)
    given = {f"{PARENT}.{name}": value for name, value in flags.items()}
    return load(file=tmp_path / "turboquant.yaml", environ=environ or {}, flags=given)


@pytest.mark.parametrize(
    "text",
    [
        "deploy: {environment: {OLLAMA_KEEP_ALIVE: 5m, OLLAMA_NUM_PARALLEL: 4, OLLAMA_NOPRUNE: true}}",
        "deploy.environment: {OLLAMA_KEEP_ALIVE: 5m, OLLAMA_NUM_PARALLEL: 4, OLLAMA_NOPRUNE: true}",
        "deploy.environment.OLLAMA_KEEP_ALIVE: 5m\n"
        "deploy: {environment: {OLLAMA_NUM_PARALLEL: '4', OLLAMA_NOPRUNE: yes}}",
    ],
)
def test_layers_merge_name_by_name(tmp_path: Path, text: str) -> None:
    environ = {"TURBOQUANT_DEPLOY_ENVIRONMENT_OLLAMA_NUM_PARALLEL": "8", "TURBOQUANT_DEPLOY_PORT": "9"}
    config = config_of(tmp_path, text, environ, OLLAMA_ORIGINS="http://a,http://b")
    assert config.deploy.environment == {
        "OLLAMA_KEEP_ALIVE": "5m",
        "OLLAMA_NUM_PARALLEL": "8",
        "OLLAMA_NOPRUNE": "true",
        "OLLAMA_ORIGINS": "http://a,http://b",
    }
    assert config.origins[f"{PARENT}.OLLAMA_ORIGINS"] == "flag"
    assert config.origins[f"{PARENT}.OLLAMA_NUM_PARALLEL"].startswith("environment TURBOQUANT_DEPLOY_ENVIRONMENT_")
    assert config.origins[f"{PARENT}.OLLAMA_KEEP_ALIVE"].endswith("turboquant.yaml")
    assert config.deploy.port == 9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("deploy: {environment: 5m}", ["deploy.environment: '5m'", "NAME=TEXT"]),
        ("deploy: {environment: [A]}", ["not a mapping"]),
        ("deploy: {environment: {A: null}}", ["deploy.environment.A: None", "not text"]),
        ("deploy: {environment: {A: [b]}}", ["not text"]),
        ("deploy: {environment: {A: {B: c}}}", ["not text"]),
        ("deploy: {environment: {1: c}}", ["not text"]),
        ("deploy: {environment: {lower: c}}", ["deploy.environment: the variable 'lower'", "capital letters"]),
        ("deploy: {environment: {'A=B': c}}", ["capital letters"]),
        ("deploy: {environment: {'': c}}", ["capital letters"]),
        ("deploy: {environment: {1A: c}}", ["capital letters"]),
        ('deploy: {environment: {"A\\n": c}}', ["capital letters"]),
        ("deploy: {environment: {DYLD_INSERT_LIBRARIES: /x}}", ["loader"]),
        ("deploy: {environment: {LD_PRELOAD: /x}}", ["loader"]),
        ("deploy: {environment: {PATH: /x}}", ["service manager"]),
        ("deploy: {environment: {HOME: /x}}", ["service manager"]),
        ("deploy: {environment: {TURBOQUANT_RELEASE: /x}}", ["set by the shim"]),
        ("deploy: {environment: {IFS: x}}", ["shell"]),
        ("deploy: {environment: {BASH_ENV: x}}", ["shell"]),
        ("deploy: {environment: {ENV: x}}", ["shell"]),
        ("deploy: {environment: {SHELL: x}}", ["shell"]),
        ('deploy: {environment: {A: "b\\nLD_PRELOAD=/x"}}', ["control character"]),
        ('deploy: {environment: {A: "b\\0"}}', ["control character"]),
        ('deploy: {environment: {A: "b\\x85"}}', ["control character"]),
        ('deploy: {environment: {A_TOKEN: "geheim\\x7f"}}', ["control character", "A_TOKEN: '(secret, sha256"]),
    ],
)
def test_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, text)
    for word in words:
        assert word in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_not_utf_8_and_too_much(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not UTF-8"):
        config_of(tmp_path, A="\udc80")
    with pytest.raises(ConfigError, match="has 16385 bytes, more than 16384"):
        config_of(tmp_path, A="x" * (variables.MAX_VALUE + 1))
    with pytest.raises(ConfigError, match="101 variables, more than 100"):
        config_of(tmp_path, **{f"A{number}": "x" for number in range(variables.MAX_COUNT + 1)})


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("OLLAMA_API_KEY", "hunter2", "hunter2"),
        ("LLAMA_APIKEY", "hunter2", "hunter2"),
        ("HF_TOKEN", "hunter2", "hunter2"),
        ("DB_PASSWORD_FILE", "hunter2", "hunter2"),
        ("HTTPS_PROXY", "http://me:hunter2@proxy:80", "hunter2"),
        ("OLLAMA_KEEP_ALIVE", "5m", ""),
        ("OLLAMA_KEYS_SHOWN", "5m", ""),
        ("OLLAMA_ORIGINS", "http://a:1,https://b", ""),
        ("HF_TOKEN", "", ""),
    ],
)
def test_secrets(tmp_path: Path, name: str, value: str, secret: str) -> None:
    shown = variables.masked(name, value)
    assert (shown == value) is not bool(secret)
    assert not secret or secret not in shown
    assert shown != variables.masked(name, value + "2") or not value  # another secret is seen to be another one
    listed = as_text(rows(config_of(tmp_path, **{name: value})))
    assert f"{name}={shown}" in listed
    assert not secret or secret not in listed


def test_a_secret_under_a_misspelled_name() -> None:
    for name in ("LLAMA_API_KEy", "llama_api_key", "Hf_Token", "apikey"):
        assert "hunter2" not in variables.masked(name, "hunter2")
