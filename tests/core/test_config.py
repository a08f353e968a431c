"""Four layers, one result, and messages that name the key, the value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolchain.core.config import Config, load, rows
from toolchain.core.errors import ConfigError
from toolchain.text import as_text

_BOMB = f"a: &a [{'x,' * 200}]\n" + "".join(f"{b}: &{b} [{f'*{a},' * 50}]\n" for a, b in ("ab", "bc", "cd"))


def config_of(tmp_path: Path, text: str = "", environ: dict[str, str] | None = None, **flags: Any) -> Config:
    file = tmp_path / "turboquant.yaml"
    file.write_text(text)
    return load(file=file, environ=environ or {}, flags={key.replace("__", "."): v for key, v in flags.items()})


def test_later_layers_win_and_origins_are_known(tmp_path: Path) -> None:
    environ = {"TURBOQUANT_DEPLOY_PORT": "2000", "TURBOQUANT_BUILD_JOBS": "3", "UNRELATED": "x"}
    text = "deploy: {port: 1000, keep: 7}\nbuild:\n  jobs: 2\n"
    config = config_of(tmp_path, text, environ, deploy__port=3000)
    assert (config.deploy.port, config.build.jobs, config.deploy.keep) == (3000, 3, 7)
    assert config.verify.tokens == Config().verify.tokens
    origins = {row.key: row.origin for row in rows(config)}
    assert origins["deploy.port"] == "flag"
    assert origins["build.jobs"] == "environment TURBOQUANT_BUILD_JOBS"
    assert origins["deploy.keep"].endswith("turboquant.yaml")
    assert origins["verify.tokens"] == "default"
    assert "deploy.keep" in as_text(rows(config))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("deploy: {port: 0}", ["deploy.port", "0", "int from 1 to 65535", "turboquant.yaml"]),
        ("deploy: {port: 80.5}", ["deploy.port", "80.5"]),
        ("deploy: {port: true}", ["deploy.port", "True"]),
        ("deploy: {port: many}", ["'many'"]),
        ("deploy: {port: .inf}", ["deploy.port", "inf"]),
        ('deploy: {label: "abc\\n"}', ["deploy.label"]),
        ("watch: {titles: [Metal, 'a;b']}", ["watch.titles", "text like"]),
        ("deploy: {port: null}", ["deploy.port", "None"]),
        ("deploy: {prot: 80}", ["deploy.prot", "did you mean", "deploy.port"]),
        ("deploy: {service_manager: upstart}", ["auto | emulator | launchd | standin | systemd"]),
        ("deploy: {kv_cache_type: 'turbo4; rm'}", ["deploy.kv_cache_type"]),
        ("deploy: {label: '../x'}", ["deploy.label"]),
        ("verify: {types: []}", ["verify.types"]),
        ("verify: {types: [turbo4, 4]}", ["verify.types"]),
        ("verify: {timeout_s: .nan}", ["verify.timeout_s"]),
        ("sources: {offline: maybe}", ["true | false"]),
        ("workspace: [a]", ["workspace"]),
        ("- a list", ["expected a mapping"]),
        ("a: [", ["not YAML"]),
        ("deploy: {port: 1, port: 2}", ["'port'", "occurs twice"]),
        ("deploy: {port: %s}" % ("9" * 5000), ["is no int", "line 1"]),
        ("deploy: {port: 0x%s}" % ("f" * 5000), ["is no int"]),
        ("deploy: {port: 0x_}", ["'0x_' is no int"]),
        ("verify: {tokens: -.inf}", ["verify.tokens", "-inf"]),
        ("deploy: {label: 2026-13-45}", ["is no timestamp"]),
        ("deploy: {label: 2026-01-01T00:00:00+99:99}", ["is no timestamp"]),
        ("workspace: !!bool x", ["'x' is no bool"]),
        ("workspace: !!binary aGk=", ["workspace", "b'hi'"]),
        ("deploy: {port: !!set 80}", ["not a mapping"]),
        ("? [a, b]\n: c", ["a list or a mapping as a key"]),
        ("deploy:\n  ? {a: b}\n  : c", ["a list or a mapping as a key", "line 2"]),
        ("a: " + "[" * 3000, ["more than 50 levels"]),
        ('workspace: "\\ud800"', ["is no str"]),
        ('workspace: "a\\u2028b"', ["workspace", "the end of a line"]),
        ('deploy: {prefix: "a\\rb"}', ["deploy.prefix", "control character"]),
        ('deploy: {environment: {A: "b\\u2029"}}', ["the end of a line"]),
        ("a: &a [x, *a]", ["an alias within"]),
        (_BOMB, ["stands for more than 4194304 values"]),
        ("deploy.port: 80\ndeploy: {port: 90}", ["deploy.port is set twice"]),
        ("deploy.environment.A: x\ndeploy: {environment: {A: y}}", ["deploy.environment.A is set twice"]),
        ("deploy: {environment.A: x, environment: {A: y}}", ["deploy.environment.A is set twice"]),
        ("x" * (1 << 20) + ": y", ["too large"]),
        ("deploy: {label: %s}" % ("x" * 9000), ["deploy.label", "xxx..."]),
        ("deploy: {host: '[[['}", ["deploy.host"]),
        ("deploy: {host: '[]'}", ["deploy.host"]),
    ],
)
def test_bad_settings(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, text)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("text", ["a\rb", "a\u2028b", "caf\udce9"])
def test_text_that_no_line_holds_is_refused_in_every_layer(text: str) -> None:
    for layers in ({"environ": {"TURBOQUANT_DEPLOY_PREFIX": text}}, {"environ": {}, "flags": {"deploy.prefix": text}}):
        with pytest.raises(ConfigError, match=r"^deploy\.prefix \(from (environment|flag)"):
            load(**layers)  # type: ignore[arg-type]


def test_text_layers_are_converted(tmp_path: Path) -> None:
    environ = {"TURBOQUANT_SOURCES_OFFLINE": "yes", "TURBOQUANT_VERIFY_TYPES": "turbo4, q8_0:turbo2"}
    config = config_of(tmp_path, "", environ, deploy__health_timeout_s="2.5")
    assert config.sources.offline is True
    assert config.verify.types == ("turbo4", "q8_0:turbo2")
    assert config.deploy.health_timeout_s == 2.5


@pytest.mark.parametrize(
    ("word", "value"), [("on", True), ("No", False), ("TRUE", True), ("0", False), ("1", True), ("off", False)]
)
def test_words_for_a_switch(word: str, value: bool) -> None:
    assert load(environ={"TURBOQUANT_SOURCES_OFFLINE": word}).sources.offline is value


def test_numbers_where_text_is_meant_and_the_reverse(tmp_path: Path) -> None:
    config = config_of(tmp_path, "build: {suffix: 2, jobs: '3'}\nverify: {timeout_s: 5, tokens: 7.0}")
    assert (config.build.suffix, config.build.jobs) == ("2", 3)
    assert (config.verify.timeout_s, config.verify.tokens) == (5.0, 7)


def test_a_value_that_another_layer_hides_must_be_good_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"deploy\.port: 0 \(from .*turboquant\.yaml\)"):
        config_of(tmp_path, "deploy: {port: 0}", {"TURBOQUANT_DEPLOY_PORT": "80"})


def test_every_setting_has_a_help_and_a_range() -> None:
    shown = {row.key: row for row in rows(Config())}
    assert all(row.help and row.allowed for row in shown.values())
    assert shown["fork.fresh_days"].allowed == "float from 0 to 3650"
    assert shown["deploy.domain"].allowed == r"text like auto|system|user|(gui|user)/\d+"
    assert shown["build.compiler"].allowed == "auto | system | zig"
    assert shown["verify.types"].allowed.startswith("TYPE or K:V")


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(file=tmp_path / "none.yaml", environ={})


def test_the_file_in_the_current_folder_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(environ={}).deploy.port == 11434
    (tmp_path / "turboquant.yaml").write_text("deploy: {port: 9}")
    assert load(environ={}).deploy.port == 9
