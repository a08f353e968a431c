from __future__ import annotations

import os
import plistlib
import subprocess
import sys
from pathlib import Path

import pytest

from toolchain.deploy import environment, health, installer, state
from toolchain.errors import (
    ConfigError,
    LockHeld,
    NothingToRollBackTo,
    ReleaseInvalid,
    RolledBack,
    Unhealthy,
)
from toolchain.ollama import OllamaClient

from .site import Site, alive, identifier


def test_install_upgrade_and_roll_back(site: Site) -> None:
    first, second = site.release("0.1.0-turbo1"), site.release("0.2.0-turbo1")
    one = site.install(first)
    assert (one.active, one.parent, one.version, one.healthy) == (identifier(first), "", "0.1.0-turbo1", True)
    assert alive(one.pid)
    two = site.install(second)
    assert (two.active, two.parent, two.version) == (identifier(second), identifier(first), "0.2.0-turbo1")
    assert not alive(one.pid)
    assert OllamaClient(environment.base_url(site.layout.current)).names() == ()  # the probe model is gone again
    back = installer.rollback(site.config, site.console)
    assert (back.active, back.version, back.healthy) == (identifier(first), "0.1.0-turbo1", True)
    with pytest.raises(NothingToRollBackTo, match="no parent"):
        installer.rollback(site.config, site.console)
    forward = installer.rollback(site.config, site.console, to=identifier(second))
    assert (forward.active, forward.parent) == (identifier(second), identifier(first))
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
    assert "with q8_0:turbo4" in site.log().splitlines()[-1]
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


@pytest.mark.parametrize(
    ("does", "answers", "reason"),
    [
        ("exit", "", "ends again and again, the last time with: 3"),
        ("serve", "0.0.1", "answers version '0.0.1', not 'bad'"),
        ("die-after-1.5", "", "ended with: 9|ends again"),
        ("fail-to-generate", "", "llama runner process has terminated"),
    ],
)
def test_an_unhealthy_release_is_rolled_back(site: Site, does: str, answers: str, reason: str) -> None:
    good, bad = site.release("good"), site.release("bad", does=does, answers=answers)
    site.install(good)
    longer = site.configured(stability_s=1.6 if "die" in does else 0.2)
    with pytest.raises(RolledBack, match=reason) as caught:
        longer.install(bad)
    assert caught.value.exit_code == 51
    now = site.status()
    assert (now.active, now.healthy, now.releases) == (identifier(good), True, (identifier(good),))
    (captured,) = site.layout.logs.glob("failed-*.log")
    assert str(captured) in caught.value.message
    assert captured.read_text().startswith(f"started {identifier(bad)}")  # its own lines, none of the release before
    site.assert_clean()


def test_an_unhealthy_first_release_leaves_nothing_running(site: Site) -> None:
    with pytest.raises(Unhealthy, match="no release before it") as caught:
        site.install(site.release("bad", does="exit"))
    assert caught.value.exit_code == 52
    assert site.launchctl("print", f"gui/{os.getuid()}/io.turboquant.ollama").returncode == 113
    assert site.status().active == ""
    assert not (site.layout.standin / "LaunchAgents" / "io.turboquant.ollama.plist").exists()
    site.assert_clean()
    assert site.install(site.release("good")).healthy


def test_a_parent_that_fails_too_is_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    good = site.release("good")
    site.install(good)
    (site.layout.release(identifier(good)) / "lib/ollama/behaviour.json").write_text("{}")
    with pytest.raises(Unhealthy, match="is not healthy either"):
        site.install(site.release("bad", does="exit"))
    assert site.status().active == identifier(good)


def test_the_parent_is_not_the_previous_number(site: Site) -> None:
    a, b, c = site.release("a"), site.release("b"), site.release("c")
    for release in (a, b):
        site.install(release)
    installer.rollback(site.config, site.console)
    assert site.install(c).parent == identifier(a)
    assert installer.rollback(site.config, site.console).active == identifier(a)


def test_prune_keeps_the_active_release_and_its_parent(site: Site) -> None:
    tight = site.configured(keep=2)
    a, b, c, d = (site.release(name) for name in "abcd")
    for release in (a, b, c):
        site.install(release)
    installer.rollback(site.config, site.console, to=identifier(a))
    kept = tight.install(d)
    assert kept.releases == (identifier(a), identifier(d))
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


def test_two_deployers_do_not_meet(site: Site) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from toolchain import config; from toolchain.console import Console\n"
            "from toolchain.deploy import installer; from pathlib import Path\n"
            "with installer._locked(config.load(file=Path(sys.argv[1]), environ={}), Console()):\n"
            "    print('held', flush=True); sys.stdin.read()",
            str(site.folder / "turboquant.yaml"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockHeld, match=f"pid {holder.pid}"):
            site.install(site.release("1"))
        holder.kill()
    assert site.install(site.folder / "built-1").healthy  # a lock dies with its holder


def test_the_health_check_waits_out_one_crash(site: Site) -> None:
    """A single early end, as when the port was not free yet, is not held against the release."""
    site.install(site.release("1"))
    assert health.CRASHES == 2
    known = state.read(site.layout)
    assert known.active == known.releases[-1].id
