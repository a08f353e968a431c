"""What the service is given: further variables, edits by hand, models that the cache type does not suit."""

from __future__ import annotations

import itertools
import os
import plistlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.memory import models
from tests.memory.stored import put_model
from toolchain.build import release as built
from toolchain.core import records
from toolchain.core.errors import ConfigError, ModelsUnavailable, RolledBack
from toolchain.deploy import advice, environment, installed, installer
from toolchain.service import account
from toolchain.service.unit import Served, ServedModel
from toolchain.service.units.llama_server import LlamaServerUnit
from toolchain.service.units.ollama import OllamaUnit
from toolchain.stages import Deployment, Edit, Release
from toolchain.text import as_text

from .site import Site, identifier

_names = itertools.count()
_GIVEN = {"OLLAMA_KEEP_ALIVE": "30m", "OLLAMA_ORIGINS": "http://a,https://b:*", "OLLAMA_API_KEY": "hunter2"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A place with release `good` running on `_GIVEN`."""
    place = Site.make(tmp_path_factory.mktemp("served")).configured(environment=_GIVEN)
    place.install(place.release("good"))
    yield place
    place.close()


@pytest.fixture
def good(served: Site) -> Iterator[Site]:
    """The place, restored to `good` on `_GIVEN` before and after."""
    release = served.folder / "built-good"
    served.install(release)
    yield served
    served.install(release)


def _running(state: Deployment) -> dict[str, str]:
    return psutil.Process(state.pid).environ()


def _edits(state: Deployment) -> set[tuple[str, str, str, str]]:
    return {(one.name, one.change, one.before, one.after) for one in state.edits}


def test_variables_arrive_and_a_change_restarts_once(good: Site) -> None:
    before = good.status()
    assert _GIVEN.items() <= _running(before).items()
    changed = good.configured(environment=_GIVEN | {"OLLAMA_KEEP_ALIVE": "-1", "LLAMA_ARG_THREADS": "4"})
    release = good.folder / "built-good"
    after = changed.install(release)
    assert after.pid != before.pid
    assert (_running(after)["OLLAMA_KEEP_ALIVE"], _running(after)["LLAMA_ARG_THREADS"]) == ("-1", "4")
    assert changed.install(release).pid == after.pid  # the same again: no restart


def test_a_rollback_restores_them_with_the_release(good: Site) -> None:
    other = good.configured(environment={"OLLAMA_NUM_PARALLEL": "2"})
    new = other.install(good.release(f"new-{next(_names)}"))
    assert "OLLAMA_KEEP_ALIVE" not in _running(new)
    back = installer.rollback(other.config, other.console)
    assert _GIVEN.items() <= _running(back).items()
    assert "OLLAMA_NUM_PARALLEL" not in _running(back)


def test_an_unhealthy_change_leaves_the_old_ones(good: Site) -> None:
    before = environment.read(good.prefix.current)
    with pytest.raises(RolledBack):
        good.configured(environment={"OLLAMA_DEBUG": "1"}).install(good.release(f"bad-{next(_names)}", does="exit"))
    assert environment.read(good.prefix.current) == before


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OLLAMA_HOST", "0.0.0.0", "set by the service itself.*set deploy.host and deploy.port"),
        ("OLLAMA_KV_CACHE_TYPE", "f16", "set deploy.kv_cache_type"),
        ("OLLAMA_FLASH_ATTENTION", "0", "set deploy.kv_cache_type"),
        ("OLLAMA_MODELS", "/x", "set deploy.models"),
        ("LLAMA_ARG_CACHE_TYPE_K", "f16", "set deploy.kv_cache_type"),
        ("LLAMA_ARG_PORT", "1", "leave it out"),
        ("OLLAMA_KEEPALIVE", "5m", "did you mean OLLAMA_KEEP_ALIVE"),
        ("OLLAMA_CONTEXT_LENGHT", "1", "did you mean OLLAMA_CONTEXT_LENGTH"),
        ("OLLAMA_KEEP_ALIVE", "soon", "'soon' is not a duration"),
        ("OLLAMA_KEEP_ALIVE", "5 m", "not a duration"),
        ("OLLAMA_LOAD_TIMEOUT", "5d", "not a duration"),
        ("OLLAMA_NUM_PARALLEL", "-1", "not a whole number"),
        ("OLLAMA_CONTEXT_LENGTH", "64K", "not a whole number"),
        ("OLLAMA_NOPRUNE", "yes", "not true or false"),
        ("OLLAMA_DEBUG", "verbose", "not a level"),
        ("OLLAMA_ORIGINS", "example.com", "not origins"),
        ("OLLAMA_ORIGINS", "http://a, http://b", "not origins"),
        ("OLLAMA_ORIGINS", "http://*.a:*", "not origins"),
        ("OLLAMA_ORIGINS", "http://a,", "not origins"),
    ],
)
def test_refused_before_anything_is_changed(served: Site, name: str, value: str, words: str) -> None:
    state = records.sha256_file(served.prefix.state)
    with pytest.raises(ConfigError) as caught:
        served.configured(environment={name: value}).install(served.folder / "built-good")
    assert name in caught.value.message
    assert all(word in str(caught.value) for word in words.split(".*"))
    assert records.sha256_file(served.prefix.state) == state


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OLLAMA_KEEP_ALIVE", "1h30m"),
        ("OLLAMA_KEEP_ALIVE", "1.5h"),
        ("OLLAMA_KEEP_ALIVE", "-1"),
        ("OLLAMA_KEEP_ALIVE", ""),
        ("OLLAMA_KEEP_ALIVE", '"24h"'),
        ("OLLAMA_ORIGINS", "*"),
        ("OLLAMA_ORIGINS", "chrome-extension://abc,app://*,http://192.168.1.2:*"),
        ("OLLAMA_DEBUG", "2"),
        ("LLAMA_ARG_FIT", "off"),
        ("GGML_METAL_NDEBUG", "1"),
        ("HTTPS_PROXY", "http://proxy:80"),
    ],
)
def test_accepted(served: Site, name: str, value: str) -> None:
    config = served.configured(environment={name: value}).config.deploy
    assert OllamaUnit().environment(_release(served), config)[name] == value
    assert advice.variables(OllamaUnit(), served.folder / "built-good", config) == ()


def _release(site: Site) -> Release:
    return built.check(site.folder / "built-good")


def test_a_name_that_is_newer_than_we_are(served: Site, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ollama").write_bytes(b"\0OLLAMA_KEEP_ALIVE_MAXIMUM\0OLLAMA_KEEP\0")

    def warned(name: str) -> list[str]:
        config = served.configured(environment={name: "1"}).config.deploy
        return [one.about for one in advice.variables(OllamaUnit(), tmp_path, config)]

    assert warned("OLLAMA_KEEP_ALIVE_MAXIMUM") == []  # the program has it
    assert warned("OLLAMA_COMPLETELY_UNHEARD_OF") == ["OLLAMA_COMPLETELY_UNHEARD_OF"]
    with pytest.raises(ConfigError, match="knows no variable OLLAMA_KEEP_ALIV"):
        warned("OLLAMA_KEEP_ALIV")  # the beginning of another name


def test_a_calibration_without_a_program_that_reads_it(served: Site, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ollama").touch()
    config = served.configured(calibration="~/calibration").config.deploy
    assert advice.variables(OllamaUnit(), served.folder / "built-good", config) == ()
    (warning,) = advice.variables(OllamaUnit(), tmp_path, config)
    assert (warning.about, warning.message[:14]) == ("deploy.calibration", "has no effect:")


def test_another_units_variables(served: Site, tmp_path: Path) -> None:
    unit, model = LlamaServerUnit(), Served(models=(ServedModel(name="a", file=tmp_path / "model.gguf"),))
    config = served.configured(environment={"LLAMA_ARG_THREADS": "4"}).config.deploy
    assert unit.environment(_release(served), config, model)["LLAMA_ARG_THREADS"] == "4"
    config = served.configured(environment={"LLAMA_ARG_CTX_SIZE": "4"}).config.deploy
    with pytest.raises(ConfigError, match="LLAMA_ARG_CTX_SIZE is set by the service itself"):
        unit.environment(_release(served), config, model)


def _edit(site: Site) -> tuple[Path, Path]:
    """Edit the environment and the definition by hand, as users of Homebrew's Ollama do."""
    file = site.prefix.release(site.prefix.active()) / environment.FILE_NAME
    text = (
        file.read_text()
        .replace("30m", "24h")
        .replace("hunter2", "hunter3")
        .replace("OLLAMA_ORIGINS", "#OLLAMA_ORIGINS")
    )
    file.write_text(f"{text}OLLAMA_NUM_PARALLEL=4\nOLLAMA_HOST=0.0.0.0:1\n")  # the last one wins
    plist = Path(installed.read(site.prefix).unit_file)
    content = plistlib.loads(plist.read_bytes())
    content["EnvironmentVariables"]["OLLAMA_DEBUG"] = "1"
    del content["ThrottleInterval"]
    plist.write_bytes(plistlib.dumps(content))
    return file, plist


def test_edits_by_hand_are_named_and_kept(good: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert good.status().edits == ()
    host = environment.read(good.prefix.current)["OLLAMA_HOST"]
    file, plist = _edit(good)
    edited = (file.read_bytes(), plist.read_bytes())
    state = good.status()
    masked = {(name, change) for name, change, *_ in _edits(state)}
    assert _edits(state) >= {
        ("OLLAMA_KEEP_ALIVE", "changed", "30m", "24h"),
        ("OLLAMA_ORIGINS", "removed", _GIVEN["OLLAMA_ORIGINS"], ""),
        ("OLLAMA_NUM_PARALLEL", "added", "", "4"),
        ("OLLAMA_HOST", "changed", host, "0.0.0.0:1"),
        ("EnvironmentVariables.OLLAMA_DEBUG", "added", "", "1"),
        ("ThrottleInterval", "removed", "10", ""),
    }
    assert ("OLLAMA_API_KEY", "changed") in masked
    assert "OLLAMA_KEEP_ALIVE changed: '30m' to '24h'" in as_text(state)
    assert "hunter" not in as_text(state) + records.to_json(state)
    capsys.readouterr()
    # what is made permanent is not lost, and not warned of
    permanent = good.configured(environment=_GIVEN | {"OLLAMA_NUM_PARALLEL": "4"})
    after = permanent.install(good.release(f"new-{next(_names)}"))
    said = capsys.readouterr().err
    told = {one.message.partition(" ")[0].partition("=")[0]: one for one in after.warnings}
    assert set(told) == {
        "OLLAMA_KEEP_ALIVE", "OLLAMA_ORIGINS", "OLLAMA_HOST", "OLLAMA_API_KEY",
        "EnvironmentVariables.OLLAMA_DEBUG", "ThrottleInterval",
    }  # fmt: skip
    assert told["OLLAMA_KEEP_ALIVE"].remedy.endswith("--set deploy.environment.OLLAMA_KEEP_ALIVE=24h")
    assert told["OLLAMA_HOST"].remedy.endswith("set deploy.host and deploy.port")
    assert told["EnvironmentVariables.OLLAMA_DEBUG"].remedy.endswith("--set deploy.environment.OLLAMA_DEBUG=1")
    assert told["OLLAMA_API_KEY"].remedy.endswith("deploy.environment.OLLAMA_API_KEY=...")
    assert "there is no setting" in told["ThrottleInterval"].remedy
    assert "hunter" not in said + records.to_json(after)
    copies = sorted(good.prefix.logs.glob("*.edited-*"))[-2:]
    assert tuple(copy.read_bytes() for copy in copies) == edited
    assert all(copy.stat().st_mode & 0o777 == 0o600 for copy in copies)
    assert after.edits == () == permanent.status().edits


def test_an_edit_of_the_same_release_is_replaced(good: Site) -> None:
    file = good.prefix.release(good.prefix.active()) / environment.FILE_NAME
    before = file.read_bytes()
    file.write_bytes(b"OLLAMA_KEEP_ALIVE=caf\xe9\n")  # no text at all
    assert "can't decode" in good.status().reason
    assert good.install(good.folder / "built-good").healthy
    assert file.read_bytes() == before


def test_a_definition_that_is_none(good: Site) -> None:
    plist = Path(installed.read(good.prefix).unit_file)
    plist.write_bytes(b"<plist><dict><key>")
    assert good.status().edits == (Edit(file=plist, name="", change="changed", before="", after=""),)
    found = good.install(good.folder / "built-good")
    assert [one.about for one in found.warnings] == [str(plist)]
    assert found.edits == ()


def test_what_the_service_is_given(good: Site) -> None:
    changed = good.configured(environment={"OLLAMA_KEEP_ALIVE": "30m"})
    file = good.prefix.release(good.prefix.active()) / environment.FILE_NAME
    file.write_text(file.read_text() + "OLLAMA_NUM_PARALLEL=4\n")
    found = installer.given_environment(changed.config, changed.console)
    shown = {one.name: one for one in found.variables}
    assert shown["OLLAMA_KV_CACHE_TYPE"].source == "deploy.kv_cache_type"
    assert shown["OLLAMA_KEEP_ALIVE"].source.startswith("deploy.environment.OLLAMA_KEEP_ALIVE")
    assert shown["OLLAMA_ORIGINS"].source == "the last installation"
    assert (shown["OLLAMA_NUM_PARALLEL"].source, shown["OLLAMA_NUM_PARALLEL"].running) == (
        "an edit by hand",
        "(not set)",
    )
    assert shown["HOME"].source == "the service manager"
    assert "hunter" not in as_text(found) + records.to_json(found)
    assert "OLLAMA_NUM_PARALLEL=4" in as_text(found)


def test_nothing_is_given_where_nothing_is_installed(tmp_path: Path) -> None:
    place = Site.make(tmp_path)
    found = installer.given_environment(place.config, place.console)
    assert (found.release, found.variables) == ("", ())
    assert as_text(found) == "nothing is installed"
    place.close()


# -- models ----------------------------------------------------------------------------------------


def test_the_models_of_another_shell(good: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "my models"
    put_model(store, "llama3/latest", models.dense(head_size=128))
    config = good.configured(models="").config.deploy
    release = _release(good)
    (warning,) = advice.models(release, config, account.caller(), {"OLLAMA_MODELS": str(store)})
    assert warning.remedy.endswith(f"--set 'deploy.models={store}'")
    assert advice.models(release, config, account.caller(), {"OLLAMA_MODELS": str(tmp_path / "none")}) == ()
    assert advice.models(release, config, account.caller(), {"OLLAMA_MODELS": "~no.such.user/models"}) == ()
    assert advice.models(release, config, account.caller(), {}) == ()
    config = good.configured(models=str(store)).config.deploy
    assert advice.models(release, config, account.caller(), {"OLLAMA_MODELS": str(store)}) == ()


@pytest.mark.parametrize("option", ["", "kv_cache_type"])
def test_models_that_the_cache_type_does_not_suit(good: Site, tmp_path: Path, option: str) -> None:
    put_model(tmp_path, "phi/2", models.dense("phi2", head_size=80))
    release = replace(_release(good), model_option=option)
    config = good.configured(models=str(tmp_path)).config.deploy
    (warning,) = advice.models(release, config, account.caller(), {})
    assert (warning.about, warning.message.partition(":")[0]) == ("phi:2", "will not load with turbo4")
    assert ("PARAMETER kv_cache_type f16" in warning.remedy) is bool(option)
    assert "deploy.kv_cache_type=f16" in warning.remedy


def test_a_terminal_gets_the_first_warnings(good: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        put_model(tmp_path, f"phi/{number}", models.dense("phi2", head_size=80, layers=number + 1))
    changed = good.configured(models=str(tmp_path)).install(good.folder / "built-good")
    assert len(changed.warnings) == 12
    said = capsys.readouterr().err
    assert said.count("will not load") == 10
    assert "2 more of these; --json lists all" in said


def test_a_folder_that_is_not_there(good: Site, tmp_path: Path) -> None:
    before = good.status()
    with pytest.raises(ModelsUnavailable, match="does not exist"):
        good.configured(models=str(tmp_path / "unmounted/models")).install(good.release(f"new-{next(_names)}"))
    assert good.status() == before


@pytest.mark.slow
def test_a_folder_that_goes_away(good: Site, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    changed = good.configured(models=str(folder))
    changed.install(good.folder / "built-good")
    assert folder.is_dir()  # made by the installation
    folder.rmdir()
    os.kill(changed.status().pid, 9)
    good.until(lambda: "waiting for it" in good.log())
    assert f"it waits for {folder}" in changed.status().reason
    assert not folder.exists()
    folder.mkdir()
    good.until(lambda: changed.status().healthy)
    assert identifier(good.folder / "built-good") == changed.status().active


def test_a_rollback_to_a_models_folder_that_is_gone_is_refused(site: Site, tmp_path: Path) -> None:
    here = site.configured(models=str(tmp_path / "first"))
    here.install(here.release("1"))
    there = site.configured(models=str(tmp_path / "second"))
    after = there.install(there.release("2"))
    (tmp_path / "first").rmdir()
    with pytest.raises(ModelsUnavailable, match="first, which does not exist"):
        installer.rollback(there.config, there.console)
    assert (there.status().pid, there.status().healthy) == (after.pid, True)
