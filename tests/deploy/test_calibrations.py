"""Calibrations of keys that go with an installation: copied into the prefix, named by the release's environment."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from toolchain.core.errors import ConfigError
from toolchain.core.variables import CALIBRATION
from toolchain.deploy import advice, environment, installer
from toolchain.models.quality import calibration_file
from toolchain.models.quality.calibration_file import Origin, Stored
from toolchain.service.units.llama_server import LlamaServerUnit
from toolchain.service.units.ollama import OllamaUnit

from .site import Site, identifier

ORIGIN = Origin(model="m.gguf", model_sha256="", text_sha256="", tokens=1, lengths=(1,))


def save(folder: Path, key: int, value: float = 1) -> Path:
    stored = Stored(offset=np.full((1, 64), value, np.float32), scale=np.ones((1, 64), np.float32))
    return calibration_file.save(folder, key, {0: stored}, ORIGIN)


def used(site: Site) -> Path:
    """The folder that the active release's environment names."""
    return Path(environment.read(site.prefix.current)[CALIBRATION])


@pytest.mark.slow
def test_calibrations_go_with_the_environment_of_their_release(site: Site) -> None:
    folder = site.folder / "calibration"
    first, second = save(folder, 1), save(folder, 2)
    (folder / "notes.txt").write_text("not a calibration")
    calibrated = site.configured(calibration=str(folder))
    release = site.release("a")
    calibrated.install(release)
    before = used(site)
    assert before.parent == site.prefix.calibrations
    assert {path.name: path.read_bytes() for path in before.iterdir()} == {
        path.name: path.read_bytes() for path in (first, second)
    }
    pid = site.status().pid
    assert calibrated.install(release).pid == pid  # nothing has changed
    (before / first.name).write_bytes(b"damaged by hand")
    assert calibrated.install(release).pid != pid
    assert (before / first.name).read_bytes() == first.read_bytes()

    save(folder, 2, 5.0)
    calibrated.install(site.release("b"))
    after = used(site)
    assert after != before
    assert sorted(site.prefix.calibrations.iterdir()) == sorted((before, after))
    installer.rollback(calibrated.config, site.console)
    assert used(site) == before
    shutil.rmtree(folder)  # the copies are what counts
    left = site.install(release)
    assert left.healthy
    assert [(one.about, one.message) for one in left.warnings if one.about == "deploy.calibration"] == [
        ("deploy.calibration", f"the service has {before}, and gets none, which is the default")
    ]
    assert CALIBRATION not in environment.read(site.prefix.current)
    site.install(site.release("d"))  # what no environment names any more is swept with the next one
    assert list(site.prefix.calibrations.iterdir()) == [after]
    installer.uninstall(site.config, site.console)
    assert not site.prefix.calibrations.exists()


def test_what_was_chosen_and_is_left_at_its_default_is_named() -> None:
    known, ollama = LlamaServerUnit().variables, OllamaUnit().variables
    had = {"LLAMA_ARG_CACHE_TYPE_K": "turbo5", "LLAMA_ARG_CACHE_TYPE_V": "turbo3", "LLAMA_ARG_PORT": "1"}
    new = {"LLAMA_ARG_CACHE_TYPE_K": "turbo4", "LLAMA_ARG_CACHE_TYPE_V": "turbo4", "LLAMA_ARG_PORT": "2"}
    (warning,) = advice.dropped(had, new, known, {"deploy.kv_cache_type": "default"})
    assert (warning.about, warning.message) == (
        "deploy.kv_cache_type", "the service has turbo5:turbo3, and gets turbo4, which is the default"
    )  # fmt: skip
    assert advice.dropped(had, had, known, {}) == ()
    assert advice.dropped({}, new, known, {}) == ()
    assert advice.dropped(had, new, known, {"deploy.kv_cache_type": "--set"}) == ()
    assert advice.dropped(had, {"OLLAMA_KV_CACHE_TYPE": "turbo4"}, ollama, {}) != ()  # it was llama-server's
    (warning,) = advice.dropped({"OLLAMA_KV_CACHE_TYPE": "q8_0"}, {"OLLAMA_KV_CACHE_TYPE": "turbo4"}, ollama, {})
    assert warning.message.startswith("the service has q8_0, and gets turbo4,")


@pytest.mark.slow
def test_a_folder_of_something_else_is_refused_before_anything_happens(site: Site) -> None:
    release, folder = site.release("c"), site.folder / "else"

    def refused(message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            site.configured(calibration=str(folder)).install(release)
        assert not site.prefix.has(identifier(release))

    refused("No such file")
    folder.mkdir()
    refused("holds no calibration")
    path = save(folder, 3)
    whole = path.read_bytes()
    path.rename(folder / "0000000000000004.calibration")
    refused("0000000000000004.calibration is the calibration of 0000000000000003.calibration")
    (folder / "0000000000000004.calibration").unlink()
    path.write_bytes(whole[:40])
    refused(r"deploy\.calibration: .*0000000000000003\.calibration: ")
    path.write_bytes(whole)
    with pytest.raises(ConfigError, match="LLAMA_KV_CALIBRATION is set by the service itself") as caught:
        site.configured(environment={CALIBRATION: str(folder)}).install(release)
    assert caught.value.hint == "set deploy.calibration"
