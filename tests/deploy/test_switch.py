"""From Ollama to llama-server and back: the program is a release's own, so a rollback brings it back."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.processes import ended
from toolchain.core import records
from toolchain.core.errors import ModelsUnavailable, ReleaseInvalid, RolledBack
from toolchain.core.variables import SERVE
from toolchain.deploy import crashloop, environment, installed, installer
from toolchain.service import units
from toolchain.stages import Deployment

from .site import BUILD, Site, install

pytestmark = pytest.mark.slow

_names = itertools.count()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A place whose active release is llama-server's, and whose parent is Ollama's; configured for Ollama."""
    place = Site.make(tmp_path_factory.mktemp("both"), keep=20)
    place.install(place.release("1.0"))
    place.serving().install(place.release("2.0"))
    yield place
    place.close()


def _program(state: Deployment) -> str:
    return Path(psutil.Process(state.pid).cmdline()[2]).name


def _registered(site: Site) -> tuple[str, str]:
    known = installed.read(site.prefix)
    return known.unit_sha256, records.sha256_file(site.prefix.shim)


def test_there_and_back_without_a_change_of_the_service(both: Site) -> None:
    before, registered = both.status(), _registered(both)
    assert (_program(before), before.version, before.healthy) == ("llama-server", f"b{BUILD}", True)
    ollama = installer.rollback(both.config, both.console)
    assert (_program(ollama), ollama.version, ollama.healthy) == ("ollama", "1.0", True)
    assert ended(before.pid)
    again = installer.rollback(both.config, both.console, before.active)
    assert (_program(again), again.version, again.healthy) == ("llama-server", f"b{BUILD}", True)
    assert _registered(both) == registered
    both.assert_clean()


def test_what_is_shown_is_the_active_releases_own(both: Site) -> None:
    file = both.prefix.current / environment.FILE_NAME
    before = file.read_text()
    file.write_text(before.replace("CTX_SIZE=256", "CTX_SIZE=512"))
    state = both.status()
    assert [(one.name, one.before, one.after) for one in state.edits] == [("LLAMA_ARG_CTX_SIZE", "256", "512")]
    given = installer.given_environment(both.config, both.console)
    shown = {one.name: one.source for one in given.variables}
    assert (shown[SERVE], shown["LLAMA_ARG_PORT"]) == ("deploy.serve", "deploy.port")
    file.write_text(before)
    assert "llama_kv_cache" in "\n".join(installer.logs(both.config).log)


def test_killed_on_the_way_to_the_other_program(both: Site) -> None:
    old = both.status()
    both.assert_upgrade_survives(install, both.release(f"3.{next(_names)}"), at="restart")
    assert _program(both.status()) == "ollama"
    installer.rollback(both.config, both.console, old.active)


def test_the_other_program_that_fails_is_rolled_back(both: Site) -> None:
    old = both.status()
    with pytest.raises(RolledBack):
        both.install(both.release(f"4.{next(_names)}", does="exit"))
    state = both.status()
    assert (state.active, state.healthy, _program(state)) == (old.active, True, "llama-server")
    both.assert_clean()


def test_one_that_waits_for_its_clients_is_told_twice(both: Site) -> None:
    old = both.status()
    waiting = both.serving().install(both.release(f"5.{next(_names)}", does="wait-for-clients"))
    assert waiting.healthy  # and it ended when it was stopped, or it would have been killed and refused
    assert installer.rollback(both.config, both.console, old.active).healthy


def test_the_same_release_as_the_other_program(both: Site) -> None:
    before = both.status()
    built = both.built(before.active)
    now = both.install(built)
    assert (now.active, _program(now), now.version, now.healthy) == (before.active, "ollama", "2.0", True)
    assert SERVE not in environment.read(both.prefix.current)
    again = both.serving().install(built)
    assert (again.active, again.parent, _program(again)) == (before.active, before.parent, "llama-server")


def test_a_crash_loop_falls_back_to_the_other_program(both: Site) -> None:
    before = both.status()
    starts = "".join(f"{before.active} {int(time.time())}\n" for _ in range(crashloop.MOST_STARTS))
    (both.prefix.run / "starts").write_text(starts)
    os.kill(before.pid, signal.SIGKILL)
    both.until(lambda: both.status().healthy and both.status().active != before.active)
    state = both.status()
    assert (state.active, _program(state), state.version) == (before.parent, "ollama", "1.0")
    assert installer.rollback(both.config, both.console, before.active).healthy


def test_a_program_that_is_unknown(both: Site) -> None:
    with pytest.raises(ReleaseInvalid, match="TURBOQUANT_SERVE=nginx: not ollama or llama-server"):
        units.choose({SERVE: "nginx"})
    file = both.prefix.current / environment.FILE_NAME
    before, old = file.read_text(), both.status()
    file.write_text(before.replace(f"{SERVE}=llama-server", f"{SERVE}=nginx"))
    assert "TURBOQUANT_SERVE=nginx: not ollama or llama-server" in both.status().reason
    os.kill(old.pid, signal.SIGKILL)
    both.until(lambda: "TURBOQUANT_SERVE=nginx: not ollama or llama-server" in both.log())
    file.write_text(before)
    both.until(lambda: both.status().healthy)


def test_a_model_that_goes_away(both: Site) -> None:
    model, away = both.folder / "model.gguf", both.folder / "away"
    before = both.status()
    model.rename(away)
    with pytest.raises(ModelsUnavailable, match=r"LLAMA_ARG_MODEL: .*model\.gguf, which does not exist"):
        installer.rollback(both.config, both.console, before.active)
    os.kill(before.pid, signal.SIGKILL)
    both.until(lambda: f"it waits for {model}" in both.status().reason)
    both.until(lambda: f"{model} does not exist; waiting for it" in both.log())
    away.rename(model)
    both.until(lambda: both.status().healthy)
