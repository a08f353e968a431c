"""Releases that must not stay: what is found out about them, and what is left behind."""

from __future__ import annotations

import itertools
import os

import pytest

from toolchain.core.errors import RolledBack, Unhealthy
from toolchain.deploy import health, installer

from .site import Site, identifier

pytestmark = pytest.mark.slow

_names = itertools.count()


@pytest.mark.parametrize(
    ("does", "answers", "stability_s", "reason"),
    [
        ("exit", "", 0.2, "keeps exiting, last with: 3"),
        ("serve", "0.0.1", 0.2, "answers version '0.0.1', not 'bad-"),
        ("die-after-0.8", "", 1.2, "ended with: 9"),
        ("fail-to-generate", "", 0.2, "llama runner process has terminated"),
        ("use-f16", "", 0.2, r"configured for the cache type turbo4, but: .* K \(f16\)"),
    ],
)
def test_an_unhealthy_release_is_rolled_back(
    running: Site, does: str, answers: str, stability_s: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "WRONG_VERSION_GRACE_S", 0.2)
    old = running.status()
    bad = running.release(f"bad-{next(_names)}", does=does, answers=answers)
    with pytest.raises(RolledBack, match=reason) as caught:
        running.configured(stability_s=stability_s).install(bad)
    assert caught.value.exit_code == 51
    now = running.status()
    assert (now.active, now.healthy, now.releases) == (old.active, True, old.releases)
    (captured,) = running.prefix.logs.glob(f"failed-{identifier(bad)}-*.log")
    assert str(captured) in caught.value.message
    lines = captured.read_text().splitlines()
    assert lines[0].startswith(f"started {identifier(bad)}")
    assert not any(old.active in line for line in lines)  # its own lines, none of the release before
    running.assert_clean()


def test_a_single_early_end_is_forgiven(running: Site) -> None:
    """As when the port was not free yet."""
    release = running.release("clumsy", does="exit-once")
    assert running.install(release).healthy


def test_a_server_that_never_answers_is_given_up(running: Site) -> None:
    with pytest.raises(RolledBack, match=r"did not answer at http.* within 2 s"):
        running.configured(health_timeout_s=2.0).install(running.release("mute", does="sleep"))


def test_a_parent_that_fails_too_is_said(site: Site) -> None:
    good = site.release("good")
    site.install(good)
    (site.prefix.release(identifier(good)) / "lib/ollama/behaviour.json").write_text("{}")
    with pytest.raises(Unhealthy, match="is unhealthy, too"):
        site.install(site.release("bad", does="exit"))
    assert site.status().active == identifier(good)
    assert site.install(site.release("better")).healthy


def test_an_unhealthy_first_release_leaves_nothing_running(site: Site) -> None:
    with pytest.raises(Unhealthy, match="no previous release") as caught:
        site.install(site.release("bad", does="exit"))
    assert caught.value.exit_code == 52
    assert site.launchctl("print", f"gui/{os.getuid()}/io.turboquant.ollama").returncode == 113
    assert site.status().active == ""
    assert not (site.emulator / "LaunchAgents" / "io.turboquant.ollama.plist").exists()
    assert "cannot load the library" in "".join(installer.logs(site.config, 20).log)
    site.assert_clean()
