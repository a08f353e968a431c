"""Where the service lives while its user comes and goes: what deploy says and does, scenario by scenario."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from toolchain.core.errors import RolledBack
from toolchain.deploy import activation
from toolchain.service.emulator.verbs import LOGIN_VERB

from . import sessions
from .test_broken import at

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scenario", sessions.SCENARIOS)
def test_scenario(scenario: Callable[[Path], list[str]], tmp_path: Path) -> None:
    assert scenario(tmp_path)


def test_a_failure_before_the_restart_leaves_one_copy_where_the_service_was_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The copy that a login started serves by then, and is stopped as a service, not as a stray."""
    with sessions.mac(tmp_path, at_screen=False) as here:
        here.site = here.site.configured(domain=sessions.USER)
        here.install("1")
        here.screen(LOGIN_VERB)
        here.site.launchctl("bootout", f"{sessions.USER}/{sessions.LABEL}")
        assert here.status().service == f"{sessions.GUI}/{sessions.LABEL}"

        def fail() -> None:
            raise OSError(errno.EIO, "as it happens")

        at(monkeypatch, activation, "_load_and_restart", fail)
        capfd.readouterr()
        assert isinstance(here.install("2"), RolledBack)
        assert "ended what ran out of a release" not in capfd.readouterr().err
        assert here.loaded() == [sessions.USER]
        now = here.status()
        assert (now.service, now.also, now.healthy) == (f"{sessions.USER}/{sessions.LABEL}", (), True)
