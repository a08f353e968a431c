"""Logins, logouts and reboots: which domains there are, and what is loaded where."""

from __future__ import annotations

import os
import pwd
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.processes import alive
from toolchain.service.emulator import settings
from toolchain.service.emulator.verbs import CONSOLE_VERB, LOGIN_VERB, LOGOUT_VERB, REBOOT_VERB, SSH_VERB

from .conftest import DOMAIN, LABEL, TARGET, Launchd

pytestmark = pytest.mark.slow

UID = str(os.getuid())
USER = f"user/{UID}"
OTHER = "60123"
FOREVER = "exec sleep 1000"
HOMEBREWS = ["Aqua", "Background", "LoginWindow", "StandardIO", "System"]


def _agent(launchd: Launchd, label: str, folder: str = "LaunchAgents", **keys: Any) -> Path:
    """A job that sleeps, in a folder of the emulator."""
    (launchd.root / folder).mkdir(parents=True, exist_ok=True)
    written = launchd.script(FOREVER, Label=label, RunAtLoad=True, **keys)
    return Path(shutil.move(written, launchd.root / folder / written.name))


def _loaded(launchd: Launchd, domain: str) -> set[str]:
    return {line.split()[-1] for line in launchd("print", domain).splitlines() if line.startswith("\t\t")}


def _logged(log: Path) -> bool:
    return log.exists() and "XPC_SERVICE_NAME" in log.read_text()


@pytest.mark.parametrize(
    ("types", "gui", "user", "system"),
    [
        (None, 0, 134, 0),  # the key is for agents: a daemon needs none
        ("Aqua", 0, 134, 134),
        ("Background", 134, 0, 134),
        (["Background", "System"], 134, 0, 0),
        (HOMEBREWS, 0, 0, 0),
        ([], 0, 134, 0),
        (7, 5, 5, 5),
        (["Aqua", 7], 5, 5, 5),
    ],
)
def test_session_types(launchd: Launchd, types: Any, gui: int, user: int, system: int) -> None:
    launchd.set(root=True)
    launchd(LOGIN_VERB, UID)
    path = str(launchd.script(FOREVER, **({} if types is None else {"LimitLoadToSessionType": types})))
    assert [launchd.code("bootstrap", domain, path) for domain in (DOMAIN, USER, "system")] == [gui, user, system]


def test_installed_over_ssh_and_then_logged_in_it_runs_twice(launchd: Launchd) -> None:
    launchd(LOGOUT_VERB, UID)
    launchd("print", DOMAIN, expect=112)
    launchd.set(absent_code=125)
    launchd("print", TARGET, expect=125)
    path = _agent(launchd, LABEL, LimitLoadToSessionType=HOMEBREWS)
    _agent(launchd, "test.background", LimitLoadToSessionType="Background")
    _agent(launchd, "test.off")
    launchd("disable", f"{USER}/test.off")
    launchd("bootstrap", USER, str(path))
    launchd("enable", f"{USER}/test.off")
    said = launchd(LOGIN_VERB, UID)
    assert said == ""
    assert _loaded(launchd, USER) == {LABEL}
    assert _loaded(launchd, DOMAIN) == {LABEL, "test.off"}
    pids = [int(launchd.field("pid", f"{domain}/{LABEL}") or 0) for domain in (DOMAIN, USER)]
    assert all(alive(pid) for pid in pids)
    assert len(set(pids)) == 2
    launchd(LOGIN_VERB, UID)  # is logged in already
    assert launchd.pid() == pids[0]
    launchd(LOGOUT_VERB, UID)
    assert [alive(pid) for pid in pids] == [False, True]
    launchd("print", DOMAIN, expect=125)
    launchd("bootstrap", DOMAIN, str(path), expect=125)


def test_a_disabled_agent_is_not_loaded_at_login_and_a_bad_one_is_named(launchd: Launchd) -> None:
    _agent(launchd, LABEL)
    bad = _agent(launchd, "test.bad")
    bad.chmod(0o666)
    launchd("disable", TARGET)
    launchd(LOGOUT_VERB, UID)
    said = launchd(LOGIN_VERB, UID)
    assert str(bad) in said
    assert "122" in said
    assert _loaded(launchd, DOMAIN) == set()


def test_a_reboot_keeps_what_lies_in_folders_and_the_disable_records(launchd: Launchd) -> None:
    agent = _agent(launchd, LABEL, LimitLoadToSessionType=HOMEBREWS)
    _agent(launchd, "test.daemon", "LaunchDaemons")
    _agent(launchd, "test.gone", "LaunchDaemons")
    launchd("bootstrap", USER, str(agent))
    launchd("disable", f"{DOMAIN}/test.gone")
    launchd.set(root=True)
    launchd("disable", "system/test.gone")
    launchd.set()
    launchd.until(lambda: launchd.field("pid", f"{USER}/{LABEL}"))
    before = int(launchd.field("pid", f"{USER}/{LABEL}"))
    launchd(REBOOT_VERB)
    assert not alive(before)
    assert _loaded(launchd, "system") == {"test.daemon"}
    assert _loaded(launchd, USER) == set()
    launchd("print", DOMAIN, expect=112)
    launchd.daemon().kill()
    launchd("print", DOMAIN, expect=112)  # who is logged in outlives the emulator
    assert _loaded(launchd, "system") == {"test.daemon"}
    launchd(LOGIN_VERB, UID)
    assert _loaded(launchd, DOMAIN) == {LABEL}
    assert _loaded(launchd, USER) == set()


def test_the_user_in_front_of_the_screen(launchd: Launchd) -> None:
    def facts() -> tuple[str, str]:
        return launchd(CONSOLE_VERB).strip(), launchd("managername").strip()

    assert facts() == (UID, "Aqua")
    launchd(LOGIN_VERB, OTHER)
    assert facts() == (OTHER, "Aqua")
    launchd(LOGOUT_VERB, OTHER)
    launchd(LOGOUT_VERB, UID)
    assert facts() == ("loginwindow", "Background")
    launchd.set(screen=False)
    assert facts() == ("none", "Background")
    launchd(LOGIN_VERB, UID, expect=64)
    launchd.set(root=True)
    assert facts() == ("loginwindow", "System")


def test_root_acts_in_every_domain_and_others_in_their_own(launchd: Launchd) -> None:
    theirs, job = f"user/{OTHER}", f"user/{OTHER}/{LABEL}"
    path = str(launchd.script(FOREVER, LimitLoadToSessionType="Background"))
    launchd.set(root=True)
    launchd("print", theirs, expect=112)
    launchd(SSH_VERB, OTHER)
    launchd("bootstrap", theirs, path)
    launchd("print", DOMAIN, expect=112)  # root is not logged in at the screen
    launchd.set()
    launchd("print", job)
    for words in (("bootout", job), ("kickstart", job), ("disable", job), ("kill", "TERM", job)):
        assert "Operation not permitted" in launchd(*words, expect=1)
    launchd("bootstrap", theirs, path, expect=5)
    launchd("bootstrap", "system", path, expect=5)
    launchd("print", "system")


def test_settings_of_an_earlier_version_say_which_domains_there_are(launchd: Launchd) -> None:
    (launchd.root / settings.FILE_NAME).write_text(f'{{"domains": ["{USER}", "system"], "owner_pid": {os.getpid()}}}')
    launchd("print", DOMAIN, expect=112)
    launchd("print", USER)
    launchd(LOGIN_VERB, UID, expect=64)
    launchd(REBOOT_VERB, expect=64)


@pytest.mark.skipif(os.geteuid() != 0, reason="setuid needs root")
def test_a_job_runs_as_its_user_with_its_groups_and_its_own_log(launchd: Launchd) -> None:
    nobody = pwd.getpwnam("nobody")
    logs = Path("/tmp") / f"turboquant-{os.getpid()}"
    logs.mkdir(mode=0o755)
    try:
        os.chown(logs, nobody.pw_uid, -1)
        launchd.set(root=True)
        launchd(LOGIN_VERB, str(nobody.pw_uid))
        for name, domain, keys in (
            ("daemon", "system", {"UserName": "nobody"}),
            ("agent", f"gui/{nobody.pw_uid}", {"UserName": "root"}),  # an agent's own user, whatever it asks for
            ("root", "system", {}),
        ):
            log = logs / name
            path = launchd.script("id -u; id -G; env", Label=name, RunAtLoad=True, StandardOutPath=str(log), **keys)
            launchd("bootstrap", domain, str(path))
            launchd.until(partial(_logged, log))
            uid, groups, *environment = log.read_text().splitlines()
            user = "root" if name == "root" else "nobody"
            assert uid == str(pwd.getpwnam(user).pw_uid)
            assert set(groups.split()) == {str(one) for one in os.getgrouplist(user, pwd.getpwnam(user).pw_gid)}
            assert log.stat().st_uid == int(uid)
            assert not any(line.startswith(("HOME=", "USER=", "TURBOQUANT")) for line in environment)
        unknown = launchd.plist("/bin/true", Label="x", RunAtLoad=True, UserName="no-such-user")
        launchd("bootstrap", "system", str(unknown))
        launchd.until(lambda: launchd.field("last exit code", "system/x") == "78")
    finally:
        shutil.rmtree(logs)
