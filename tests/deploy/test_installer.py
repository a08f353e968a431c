from __future__ import annotations

import os
import plistlib
import re
import signal
import time
from pathlib import Path

import pytest

from tests.processes import alive
from toolchain.core import locks
from toolchain.core.errors import ConfigError, LockHeld, NothingToRollBackTo, ReleaseInvalid, RolledBack
from toolchain.deploy import environment, installer
from toolchain.service import managers
from toolchain.service.units.ollama import OllamaUnit
from toolchain.serving.ollama import OllamaClient

from .site import Site, identifier, install

pytestmark = pytest.mark.slow


def test_install_upgrade_and_roll_back(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = (site.release(f"0.{number}.0-turbo1") for number in (1, 2, 3))
    first = site.install(a)
    assert (first.active, first.parent, first.version, first.healthy) == (identifier(a), "", "0.1.0-turbo1", True)
    assert alive(first.pid)
    assert re.search(r"K \(turbo4\): +0\.\d\d MiB", capsys.readouterr().err)  # the proof that it is in use
    second = site.install(b)
    assert (second.active, second.parent, second.version) == (identifier(b), identifier(a), "0.2.0-turbo1")
    assert not alive(first.pid)
    url = OllamaUnit().url(environment.read(site.prefix.current))
    assert OllamaClient(url).names() == ()  # the probe model is gone again
    back = installer.rollback(site.config, site.console)
    assert (back.active, back.version, back.healthy) == (identifier(a), "0.1.0-turbo1", True)
    with pytest.raises(NothingToRollBackTo, match="no installed parent"):
        installer.rollback(site.config, site.console)
    with pytest.raises(NothingToRollBackTo, match=r"0\.9\.0: no such release"):
        installer.rollback(site.config, site.console, to="0.9.0")
    assert site.install(c).parent == identifier(a)  # not b, which has the number before
    assert installer.rollback(site.config, site.console).active == identifier(a)
    forward = installer.rollback(site.config, site.console, to=identifier(b))
    assert (forward.active, forward.parent) == (identifier(b), identifier(a))
    site.assert_clean()


def test_an_upgrade_keeps_the_plist_and_its_one_bootstrap(running: Site) -> None:
    target = f"gui/{os.getuid()}/io.turboquant.ollama"
    runs = managers.choose(running.config.deploy, running.prefix.folder).inspect().runs
    plist = running.emulator / "LaunchAgents" / "io.turboquant.ollama.plist"
    before, stat = plist.read_bytes(), plist.stat()
    running.install(running.release("next"))
    assert plist.read_bytes() == before
    assert stat.st_mode & 0o777 == 0o644
    shown = running.launchctl("print", target).stdout
    assert f"\truns = {runs + 2}\n" in shown  # restarted, stopped once to see it end: a bootstrap would count anew
    content = plistlib.loads(before)
    assert content["ProgramArguments"] == [str(running.prefix.shim)]
    assert (content["RunAtLoad"], content["KeepAlive"], content["ProcessType"]) == (True, True, "Interactive")
    assert content["EnvironmentVariables"]["HOME"] == str(Path.home())
    assert "WorkingDirectory" not in content


def test_installing_the_same_again_changes_nothing(running: Site) -> None:
    before = running.status()
    assert running.install(running.built(before.active)) == before  # the pid too: nothing was restarted


def test_a_new_environment_restarts_and_a_bad_one_comes_back(site: Site) -> None:
    release = site.release("1")
    first = site.install(release)
    changed = site.configured(kv_cache_type="q8_0:turbo4").install(release)
    assert changed.pid != first.pid
    assert changed.parent == ""
    assert "with q8_0:turbo4\n" in site.log()
    # iq4_nl is llama.cpp's own, so the release may have it; this server then refuses every generation
    with pytest.raises(RolledBack, match="unknown cache type iq4_nl"):
        site.configured(kv_cache_type="iq4_nl").install(release)
    assert environment.read(site.prefix.current)["OLLAMA_KV_CACHE_TYPE"] == "q8_0:turbo4"
    assert site.status().healthy
    site.assert_clean()


def test_environment_and_binary_go_back_together(site: Site) -> None:
    """A stock binary under a turbo type fails every load; the rollback from turbo must not leave that type behind."""
    stock = site.configured(kv_cache_type="q8_0")
    stock.install(site.release("stock", types=()))
    turbo = site.install(site.release("turbo"))
    assert turbo.healthy
    assert environment.read(site.prefix.current)["OLLAMA_KV_CACHE_TYPE"] == "turbo4"
    assert installer.rollback(site.config, site.console).version == "stock"
    assert environment.read(site.prefix.current)["OLLAMA_KV_CACHE_TYPE"] == "q8_0"


def test_a_stock_release_refuses_a_turbo_type_before_anything_happens(site: Site) -> None:
    stock = site.release("stock", types=())
    with pytest.raises(ConfigError, match="no cache type 'turbo4'"):
        site.install(stock)
    with pytest.raises(ConfigError, match="no cache type 'turbo3'"):
        site.configured(kv_cache_type="q8_0:turbo3").install(site.release("turbo"))
    assert not site.prefix.releases.exists()
    assert site.status().reason == "nothing is installed"


def test_prune_keeps_the_active_release_and_its_parent(site: Site) -> None:
    tight = site.configured(keep=2)
    a, b, c = (site.release(name) for name in "abc")
    site.install(a)
    site.install(b)
    installer.rollback(site.config, site.console)
    kept = tight.install(c)
    assert kept.releases == (identifier(a), identifier(c))  # b is newer than a, but a is the parent
    assert installer.prune(tight.config, site.console).releases == kept.releases
    site.assert_clean()


def test_uninstall_leaves_logs_and_models(site: Site) -> None:
    pid = site.install(site.release("1")).pid
    gone = installer.uninstall(site.config, site.console)
    assert (gone.active, gone.releases, gone.reason) == ("", (), "nothing is installed")
    assert not alive(pid)
    assert site.launchctl("print", f"gui/{os.getuid()}/io.turboquant.ollama").returncode == 113
    left = {path.name for path in site.prefix.folder.iterdir()}
    assert left <= {"logs", "launchd", "lock"}
    assert "started" in "".join(installer.logs(site.config, 5).log)


def test_a_new_label_replaces_the_old_service(site: Site) -> None:
    release = site.release("1")
    old = site.install(release)
    new = site.configured(label="io.turboquant.other").install(release)
    assert new.healthy
    assert not alive(old.pid)
    assert site.launchctl("print", f"gui/{os.getuid()}/io.turboquant.ollama").returncode == 113
    assert [path.name for path in (site.emulator / "LaunchAgents").iterdir()] == ["io.turboquant.other.plist"]


def test_a_damaged_release_is_refused_and_a_damaged_copy_replaced(running: Site) -> None:
    release = running.release("brittle")
    running.install(release)
    copied = running.prefix.release(identifier(release)) / "lib/ollama/libggml.so.0"
    copied.write_text("damaged")
    assert running.install(release).healthy
    assert copied.read_text() == "not a library"
    (release / "lib/ollama/libggml.so.0").write_text("damaged")
    with pytest.raises(ReleaseInvalid, match=r"libggml\.so\.0 was changed"):
        running.install(release)
    with pytest.raises(ReleaseInvalid):
        running.install(running.folder)


def test_an_active_link_that_was_deleted_does_not_make_it_a_first_install(running: Site) -> None:
    before = running.status()
    running.prefix.current.unlink()
    with pytest.raises(RolledBack):
        running.install(running.release("bad", does="fail-to-generate"))
    assert running.status().active == before.active


def test_folders_that_cannot_be_written(running: Site, capsys: pytest.CaptureFixture[str]) -> None:
    before = running.status()
    release = running.release("homeless")
    with pytest.raises(ConfigError, match=r"deploy\.prefix: .* cannot be used"):
        running.configured(prefix=str(release / "manifest.json" / "below"), host="0.0.0.0").install(release)
    assert "deploy.host: 0.0.0.0 is reachable from other machines" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"deploy\.agents_dir: .*manifest\.json cannot be created"):
        running.configured(agents_dir=str(release / "manifest.json")).install(release)
    assert running.status() == before
    running.assert_clean()


def test_two_deployers_do_not_meet(running: Site) -> None:
    slow = running.release("slow")
    with running.child(install, slow, running.configured(stability_s=30.0).config) as other:
        while locks.holder(running.prefix.lock) != other.pid:
            time.sleep(0.005)
        with pytest.raises(LockHeld, match=f"pid {other.pid}"):
            running.install(running.release("waiting"))
        os.kill(other.pid or 0, signal.SIGKILL)
        other.join()
    assert running.install(running.folder / "built-waiting").healthy  # a lock dies with its holder
