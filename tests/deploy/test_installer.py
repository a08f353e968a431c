from __future__ import annotations

import os
import plistlib
import signal
from pathlib import Path

import pytest

from toolchain.deploy import environment, installer
from toolchain.errors import (
    ConfigError,
    LockHeld,
    NothingToRollBackTo,
    ReleaseInvalid,
    RolledBack,
)
from toolchain.ollama import OllamaClient

from .site import Site, alive, await_file, identifier


def test_install_upgrade_and_roll_back(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = (site.release(f"0.{number}.0-turbo1") for number in (1, 2, 3))
    first = site.install(a)
    assert (first.active, first.parent, first.version, first.healthy) == (identifier(a), "", "0.1.0-turbo1", True)
    assert alive(first.pid)
    assert "K (turbo4):    0.07 MiB" in capsys.readouterr().err  # the proof that it is in use
    second = site.install(b)
    assert (second.active, second.parent, second.version) == (identifier(b), identifier(a), "0.2.0-turbo1")
    assert not alive(first.pid)
    assert OllamaClient(environment.base_url(site.layout.current)).names() == ()  # the probe model is gone again
    back = installer.rollback(site.config, site.console)
    assert (back.active, back.version, back.healthy) == (identifier(a), "0.1.0-turbo1", True)
    with pytest.raises(NothingToRollBackTo, match="no parent"):
        installer.rollback(site.config, site.console)
    with pytest.raises(NothingToRollBackTo, match=r"0\.9\.0: no such release"):
        installer.rollback(site.config, site.console, to="0.9.0")
    assert site.install(c).parent == identifier(a)  # not b, which has the number before
    assert installer.rollback(site.config, site.console).active == identifier(a)
    forward = installer.rollback(site.config, site.console, to=identifier(b))
    assert (forward.active, forward.parent) == (identifier(b), identifier(a))
    site.assert_clean()


def test_an_upgrade_keeps_the_plist_and_its_one_bootstrap(site: Site) -> None:
    site.install(site.release("1"))
    plist = site.layout.standin / "LaunchAgents" / "io.turboquant.ollama.plist"
    before, stat = plist.read_bytes(), plist.stat()
    site.install(site.release("2"))
    assert plist.read_bytes() == before
    assert stat.st_mode & 0o777 == 0o644
    shown = site.launchctl("print", f"gui/{os.getuid()}/io.turboquant.ollama").stdout
    assert "\truns = 2\n" in shown  # started, kickstarted: a second bootstrap would have begun to count anew
    content = plistlib.loads(before)
    assert content["ProgramArguments"] == [str(site.layout.shim)]
    assert (content["RunAtLoad"], content["KeepAlive"], content["ProcessType"]) == (True, True, "Interactive")
    assert content["EnvironmentVariables"]["HOME"] == str(Path.home())
    assert "WorkingDirectory" not in content


def test_installing_the_same_again_changes_nothing(site: Site) -> None:
    release = site.release("1")
    first = site.install(release)
    again = site.install(release)
    assert again == first  # the pid too: nothing was restarted


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
    assert environment.read(site.layout.current)["OLLAMA_KV_CACHE_TYPE"] == "q8_0:turbo4"
    assert site.status().healthy
    site.assert_clean()


def test_environment_and_binary_go_back_together(site: Site) -> None:
    """A stock binary under a turbo type fails every load; the rollback from turbo must not leave that type behind."""
    stock = site.configured(kv_cache_type="q8_0")
    stock.install(site.release("stock", types=()))
    turbo = site.install(site.release("turbo"))
    assert turbo.healthy
    assert environment.read(site.layout.current)["OLLAMA_KV_CACHE_TYPE"] == "turbo4"
    assert installer.rollback(site.config, site.console).version == "stock"
    assert environment.read(site.layout.current)["OLLAMA_KV_CACHE_TYPE"] == "q8_0"


def test_a_stock_release_refuses_a_turbo_type_before_anything_happens(site: Site) -> None:
    stock = site.release("stock", types=())
    with pytest.raises(ConfigError, match="no cache type 'turbo4'"):
        site.install(stock)
    with pytest.raises(ConfigError, match="no cache type 'turbo3'"):
        site.configured(kv_cache_type="q8_0:turbo3").install(site.release("turbo"))
    assert not site.layout.releases.exists()
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
    left = {path.name for path in site.layout.prefix.iterdir()}
    assert left <= {"logs", "launchd", "lock"}
    assert "started" in installer.logs(site.config, 5)


def test_a_new_label_replaces_the_old_service(site: Site) -> None:
    release = site.release("1")
    old = site.install(release)
    new = site.configured(label="io.turboquant.other").install(release)
    assert new.healthy
    assert not alive(old.pid)
    assert site.launchctl("print", f"gui/{os.getuid()}/io.turboquant.ollama").returncode == 113
    assert [path.name for path in (site.layout.standin / "LaunchAgents").iterdir()] == ["io.turboquant.other.plist"]


def test_a_damaged_release_is_refused_and_a_damaged_copy_replaced(site: Site) -> None:
    release = site.release("1")
    site.install(release)
    copied = site.layout.release(identifier(release)) / "lib/ollama/libggml.so.0"
    copied.write_text("damaged")
    assert site.install(release).healthy
    assert copied.read_text() == "not a library"
    (release / "lib/ollama/libggml.so.0").write_text("damaged")
    with pytest.raises(ReleaseInvalid, match=r"libggml\.so\.0 was changed"):
        site.install(release)
    with pytest.raises(ReleaseInvalid):
        site.install(site.folder)


def test_an_active_link_that_was_deleted_does_not_make_it_a_first_install(site: Site) -> None:
    good = site.release("good")
    site.install(good)
    site.layout.current.unlink()
    with pytest.raises(RolledBack):
        site.install(site.release("bad", does="fail-to-generate"))
    assert site.status().active == identifier(good)


def test_folders_that_cannot_be_written(site: Site) -> None:
    release = site.release("1")
    with pytest.raises(ConfigError, match=r"deploy\.prefix: .* cannot be used"):
        site.configured(prefix=str(release / "manifest.json" / "below")).install(release)
    with pytest.raises(ConfigError, match=r"deploy\.agents_dir: .*manifest\.json cannot be made"):
        site.configured(agents_dir=str(release / "manifest.json")).install(release)
    site.assert_clean()
    assert site.install(release).healthy


def test_a_host_that_lets_others_in_is_warned_about(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.configured(host="0.0.0.0").install(site.release("1")).healthy
    assert "deploy.host: 0.0.0.0 lets other machines in" in capsys.readouterr().err


def test_two_deployers_do_not_meet(site: Site) -> None:
    slow = site.release("slow")
    with site.child(installer.install, slow, site.configured(stability_s=30.0).config) as other:
        await_file(site.layout.lock_owner)
        with pytest.raises(LockHeld, match=f"pid {other.pid}"):
            site.install(site.release("1"))
        os.kill(other.pid or 0, signal.SIGKILL)
        other.join()
    assert site.install(site.folder / "built-1").healthy  # a lock dies with its holder
