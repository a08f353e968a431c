"""Root, its target user, and everybody else: whose a service is, what it may write, and who may look at it."""

from __future__ import annotations

import errno
import json
import os
import plistlib
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import psutil
import pytest

from toolchain.core import process, records
from toolchain.core.config import DeployConfig
from toolchain.core.errors import ConfigError, ModelsUnavailable, PrefixUnsafe, RolledBack
from toolchain.deploy import access, installed, installer, ownership
from toolchain.service import account, model_store
from toolchain.service.account import Machine
from toolchain.service.emulator import settings
from toolchain.service.emulator.verbs import LOGIN_VERB
from toolchain.service.launchd import LaunchdManager

from . import site as sites
from .site import Site

ROOT = Path(__file__).parents[2]
USER, OTHER = "daemon", "nobody"
UID = pwd.getpwnam(USER).pw_uid


@cache
def _python() -> str:
    """A Python of this version that other users reach as well; empty if there is none, or nobody to try it."""
    names = (os.path.realpath(sys.executable), f"/usr/bin/python3.{sys.version_info.minor}")
    probe = ("/bin/sh", "-c", 'exec "$1" -c ""', "sh")
    return next((name for name in names if os.getuid() == 0 and _as(USER, *probe, name).returncode == 0), "")


def _as(user: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    who = pwd.getpwnam(user)
    environ = {"PATH": "/usr/bin:/bin", "HOME": who.pw_dir, **environment}
    return subprocess.run(
        words, user=who.pw_uid, group=who.pw_gid, extra_groups=[], env=environ, cwd="/", capture_output=True, text=True
    )


def _inv_as(user: str, site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    """A task, run by that user."""
    paths = (str(ROOT), *(path for path in sys.path if "site-packages" in path))
    start = "import tasks; tasks.start()"
    flags = ("--config", str(site.folder / "turboquant.yaml"))
    return _as(user, _python(), "-P", "-c", start, *words, *flags, PYTHONPATH=":".join(paths))


def _release(site: Site, version: str) -> Path:
    """A release that was built elsewhere, and can be read by all."""
    before = os.umask(0o022)
    try:
        return site.release(version)
    finally:
        os.umask(before)


really_root = pytest.mark.skipif(not _python(), reason="needs root, and a Python that other users reach")


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A place that all users reach, on which the caller is root and nobody is at the screen."""
    monkeypatch.delenv("SUDO_USER", raising=False)
    before = os.umask(0o077)  # as MDM has it
    folder = Path(tempfile.mkdtemp(prefix="turboquant-mac-"))
    folder.chmod(0o755)
    site = Site.make(folder)
    shutil.rmtree(site.prefix.folder)
    site.prefix.folder.mkdir()
    site.prefix.folder.chmod(0o755)
    root = site.emulator
    root.mkdir()
    settings.write(root, settings.Settings(owner_pid=os.getpid(), throttle_cap_s=0.2, bootout_delay_s=0.1, root=True))
    (folder / "turboquant.yaml").chmod(0o644)
    yield replace(site, interpreter=_python())
    site.close()
    os.umask(before)
    shutil.rmtree(folder)


@really_root
@pytest.mark.slow
def test_root_installs_a_daemon_for_a_user_whom_it_is_told(mac: Site) -> None:
    release = _release(mac, "1")
    with pytest.raises(ConfigError, match=r"deploy\.user: as which user .* sudo was not used") as caught:
        mac.install(release)
    assert "deploy.user=NAME" in caught.value.hint
    assert sorted(path.name for path in mac.prefix.folder.iterdir()) == ["launchd"]
    told = mac.configured(user=USER, models=str(mac.folder / "models"))
    (mac.folder / "models").mkdir()
    shutil.chown(mac.folder / "models", USER)
    found = told.install(release)
    assert (found.healthy, installed.read(mac.prefix).domain) == (True, "system")
    _assert_runs_as(found.pid, USER)
    plist = mac.emulator / "LaunchDaemons/io.turboquant.ollama.plist"
    assert (plist.stat().st_uid, plist.stat().st_mode & 0o777) == (0, 0o644)
    content = plistlib.loads(plist.read_bytes())
    assert content["UserName"] == USER
    assert content["EnvironmentVariables"]["HOME"] == pwd.getpwnam(USER).pw_dir
    # what the user may write, and what it may not
    for path, allowed in (
        (mac.prefix.logs / "x", True),
        (mac.log_file, True),
        (mac.folder / "models/x", True),
        (mac.prefix.folder / "x", False),
        (mac.prefix.release(found.active) / "x", False),
        (mac.prefix.release(found.active) / "bin/ollama", False),
        (mac.prefix.release(found.active) / "environment", False),
        (mac.prefix.shim, False),
    ):
        assert (_as(USER, "/bin/sh", "-c", ': >>"$1"', "sh", str(path)).returncode == 0) is allowed, path
        assert _as(USER, "/usr/bin/test", "-r", str(path)).returncode == 0 or path.name == "x", path
    # the user of a daemon stays, though nobody tells it again
    assert mac.install(_release(mac, "2")).healthy
    for folder in mac.prefix.releases.iterdir():
        (folder / "environment").chmod(0o644)  # as an earlier version left it
    assert installer.rollback(mac.config, mac.console).active == found.active
    _assert_runs_as(mac.status().pid, USER)
    for folder in mac.prefix.releases.iterdir():
        readers = [_as(user, "/usr/bin/test", "-r", str(folder / "environment")).returncode for user in (USER, OTHER)]
        assert readers == [0, 1], folder
    assert installer.uninstall(mac.config, mac.console).reason == "nothing is installed"


@really_root
@pytest.mark.slow
def test_everybody_may_look_at_a_daemon_and_change_nothing(mac: Site) -> None:
    found = mac.configured(user=USER).install(_release(mac, "1"))
    mac.killed(sites.install, _release(mac, "2"), mac.configured(user=USER).config, at="copy")
    before = _contents(mac)
    done = _inv_as(OTHER, mac, "deploy.status", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["active"], said["healthy"], said["pid"]) == (found.active, True, found.pid)
    assert "a deploy was interrupted" in done.stderr
    assert "root" in done.stderr
    done = _inv_as(OTHER, mac, "deploy.logs")
    assert (done.returncode, bool(done.stdout)) == (0, True), done.stderr
    for task in ("deploy.rollback", "deploy.uninstall"):
        done = _inv_as(OTHER, mac, task)
        assert done.returncode == PrefixUnsafe.exit_code, done.stderr
        assert "sudo" in done.stderr
    assert _contents(mac) == before
    assert mac.prefix.journal.exists()
    assert mac.status().healthy
    assert not mac.prefix.journal.exists()


@really_root
@pytest.mark.slow
def test_root_installs_an_agent_in_a_users_own_prefix(mac: Site) -> None:
    mac.launchctl(LOGIN_VERB, str(UID))
    release = _release(mac, "1")
    agent = mac.configured(domain=f"gui/{UID}")
    with pytest.raises(PrefixUnsafe, match=f"belongs to root, but this service needs a prefix of {USER}"):
        agent.install(release)
    shutil.chown(mac.prefix.folder, USER)
    models = Path(mac.config.deploy.models)
    models.mkdir(exist_ok=True)
    shutil.chown(models, USER)
    found = agent.install(release)
    assert found.healthy
    _assert_runs_as(found.pid, USER)
    made = [path for path in mac.prefix.folder.rglob("*") if not path.is_relative_to(mac.emulator)]
    assert {path.lstat().st_uid for path in made} == {UID}
    (plist,) = mac.emulator.glob("Users/*/LaunchAgents/*.plist")
    assert (plist.stat().st_uid, plist.stat().st_mode & 0o777) == (UID, 0o644)
    # a link of the user's leads root nowhere
    secret = mac.folder / "secret"
    secret.write_text("of root\n")
    mac.log_file.unlink()
    mac.log_file.symlink_to(secret)
    secret.chmod(0o600)
    with pytest.raises(PrefixUnsafe, match="Permission denied"):
        installer.logs(agent.config)
    assert os.geteuid() == 0


@really_root
@pytest.mark.slow
def test_the_user_at_the_screen_gets_the_daemon_whose_logs_lead_root_nowhere(mac: Site) -> None:
    mac.launchctl(LOGIN_VERB, str(UID))
    _assert_runs_as(mac.install(_release(mac, "1")).pid, USER)
    secret = mac.folder / "secret"
    secret.write_text("of root\n")
    for link in (Path.symlink_to, Path.hardlink_to):
        mac.log_file.unlink(missing_ok=True)
        link(mac.log_file, secret)
        with pytest.raises(PrefixUnsafe, match="not a plain file"):
            installer.logs(mac.config)
    owner = secret.stat().st_uid
    with pytest.raises(PrefixUnsafe, match="not a plain file"):
        ownership.prepare_logs(mac.prefix, mac.log_file, account.named(USER))
    assert (owner, secret.read_text()) == (0, "of root\n")


def _contents(site: Site) -> dict[Path, tuple[int, ...]]:
    stats = {path: path.lstat() for path in site.prefix.folder.rglob("*") if not path.is_relative_to(site.emulator)}
    return {path: (one.st_ino, one.st_mode, one.st_uid, one.st_mtime_ns) for path, one in stats.items()}


def _assert_runs_as(pid: int, user: str) -> None:
    who = pwd.getpwnam(user)
    process = psutil.Process(pid)
    assert set(process.uids()) == {who.pw_uid}
    assert set(process.gids()) == {who.pw_gid}


def test_the_account_comes_from_the_setting_then_sudo_then_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = DeployConfig()
    root = Machine(root=True, console_user=OTHER)
    monkeypatch.delenv("SUDO_USER", raising=False)

    def name(config: DeployConfig, domain: str, machine: Machine, installed: str = "") -> str:
        found = account.find(config, domain, machine, installed)
        return found.name if found else ""

    assert name(empty, "system", root) == OTHER
    assert name(empty, "system", replace(root, console_user="")) == ""
    monkeypatch.setenv("SUDO_USER", "root")
    assert name(empty, "system", root) == OTHER
    monkeypatch.setenv("SUDO_USER", USER)
    assert name(empty, "auto", root) == USER
    assert name(empty, "system", root, installed=OTHER) == OTHER
    assert name(empty, "system", root, installed="deleted-since") == USER
    assert name(DeployConfig(user=OTHER), "system", root, installed=USER) == OTHER
    assert name(DeployConfig(user="root"), "system", root) == "root"
    assert name(empty, f"gui/{UID}", root) == USER
    assert name(empty, "system", account.ORDINARY) == account.caller().name
    for domain, config in ((f"gui/{UID}", DeployConfig(user=OTHER)), ("user/0", empty), ("gui/4999999", empty)):
        with pytest.raises(ConfigError, match=r"deploy\.(user|domain): "):
            account.find(config, domain, root)
    with pytest.raises(ConfigError, match="there is no user"):
        account.find(DeployConfig(user="nobody-of-that-name"), "system", root)


def test_who_is_at_the_screen(tmp_path: Path) -> None:
    (console := tmp_path / "console").touch()
    assert account.console_user(console) == ("" if os.getuid() == 0 else account.caller().name)
    assert account.console_user(tmp_path / "absent") == ""
    if os.getuid() == 0:
        shutil.chown(console, USER)
        assert account.console_user(console) == USER


def test_default_prefixes_are_those_of_the_target_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    home, system = Path(pwd.getpwnam(USER).pw_dir), Path("/Library/Application Support/turboquant")
    root = Machine(root=True, console_user=USER, system_prefix=system)
    monkeypatch.setenv("HOME", "/somewhere")
    own = account.prefixes(DeployConfig(domain=f"gui/{UID}"), root)
    assert [path.is_relative_to(home) for path in own] == [True]
    assert account.prefixes(DeployConfig(), root) == (system, *own)
    assert account.prefixes(DeployConfig(), replace(root, console_user="")) == (system,)
    assert account.prefixes(DeployConfig(domain="system"), replace(root, root=False)) == (system,)
    assert account.prefixes(DeployConfig(), replace(root, root=False))[-1] == system
    assert account.prefixes(DeployConfig(prefix="~/x"), root) == (home / "x",)
    assert account.prefixes(DeployConfig(prefix="~/x"), account.ORDINARY) == (Path("/somewhere/x"),)


@pytest.mark.parametrize("mode", [0o777, 0o775 if os.getuid() == 0 else 0o777])
def test_a_prefix_that_others_could_change_is_refused(site: Site, mode: int) -> None:
    release = site.release("1")
    for folder in (site.folder, site.prefix.folder):
        before = folder.stat().st_mode & 0o777
        folder.chmod(mode)
        if os.getuid() == 0:
            shutil.chown(folder, group=USER)
        with pytest.raises(PrefixUnsafe) as caught:
            site.install(release)
        assert f"{folder} (mode {mode:04o}" in caught.value.message
        assert not site.prefix.lock.exists()
        folder.chmod(before)
    site.folder.chmod(0o1777)  # as /tmp
    with ownership.claim(site.prefix, access.opened(site.config, site.console).manager):
        records.write(site.prefix.folder / "x", {})
    (site.prefix.folder / "x").chmod(0o666)
    with pytest.raises(PrefixUnsafe, match=r"/x \(mode 0666.*: everybody can change it"):
        site.install(release)


@really_root
def test_a_prefix_of_another_user_and_one_out_of_reach(mac: Site) -> None:
    release, told = _release(mac, "1"), mac.configured(user=USER)
    shutil.chown(mac.prefix.folder, OTHER)
    with pytest.raises(PrefixUnsafe, match=f"belongs to {OTHER}, but this service needs a prefix of root"):
        told.install(release)
    mac.folder.chmod(0o700)
    with pytest.raises(PrefixUnsafe, match=rf"{mac.folder.name} \(mode 0700, root:root\): {OTHER} cannot enter it"):
        told.status()
    shutil.chown(mac.prefix.folder, 0)
    with pytest.raises(PrefixUnsafe, match=rf"{mac.folder.name} \(mode 0700, root:root\): {USER} cannot enter it"):
        told.install(release)
    shutil.chown(mac.folder, OTHER)
    mac.folder.chmod(0o755)
    with pytest.raises(PrefixUnsafe, match=f"it belongs to {OTHER}, who can replace what is in it"):
        told.install(release)


@really_root
def test_sudo_leaves_nothing_of_roots_in_a_users_workspace(mac: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = mac.folder / "workspace"
    workspace.mkdir()
    shutil.chown(workspace, USER)
    monkeypatch.setenv("SUDO_USER", USER)
    with pytest.raises(ConfigError, match=f"workspace: {workspace} belongs to {USER}"):
        account.refuse_to_litter(workspace / "runs")
    account.refuse_to_litter(mac.folder)
    with account.acting_in(workspace / "runs/x"):
        records.write(workspace / "runs/x/deployment.json", {})
    assert {path.stat().st_uid for path in workspace.rglob("*")} == {UID}


@really_root
@pytest.mark.slow
def test_root_imports_and_reads_nothing_of_its_python_as_another_user(mac: Site) -> None:
    # whose Python may be out of the user's reach, as in /var/root
    _agent(mac)
    releases = [_release(mac, version) for version in "12"]
    for release in releases:
        records.write(release.with_suffix(".proof"), sites.verification(release))
    words = (sys.executable, "-c", _AS_ROOT, str(mac.folder / "turboquant.yaml"), str(UID), *map(str, releases))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == [], "\n".join(found)


_AS_ROOT = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
from toolchain.core import config, records
from toolchain.core.console import Console
from toolchain.deploy import installer
from toolchain.proofs import Verification

closed, offences = (os.getcwd(), sys.base_prefix, os.path.realpath(sys.prefix)), []

def watch(event, arguments):
    if os.geteuid() == 0:
        return
    if event == "import" or event == "open" and str(arguments[0]).startswith(closed):
        offences.append(f"{event} {arguments[0]}")

sys.addaudithook(watch)
file, uid, first, second = sys.argv[1:]
chosen, console = config.load(file=Path(file), environ={}), Console()
chosen = replace(chosen, deploy=replace(chosen.deploy, domain=f"gui/{uid}"))
installer.preflight(chosen, console)
for release in (Path(first), Path(second)):
    proof = records.read(release.with_suffix(".proof"), Verification)
    assert installer.install(release, chosen, console, proof).healthy
assert installer.rollback(chosen, console).healthy
assert installer.status(chosen).healthy
assert installer.logs(chosen).log
installer.given_environment(chosen, console)
installer.prune(chosen, console)
installer.uninstall(chosen, console)
print(json.dumps(offences))
"""


@really_root
@pytest.mark.slow
def test_rotation_by_root_of_a_users_log_has_that_users_rights(mac: Site) -> None:
    agent = _agent(mac).configured(log_mb=1)
    agent.install(_release(mac, "1"))
    secret = mac.folder / "secret"
    secret.write_text("of root\n")
    mac.log_file.with_name("ollama.log.new").symlink_to(secret)
    with mac.log_file.open("ab") as file:
        file.write(b"x" * 1_500_000)
    agent.status()
    assert secret.read_text() == "of root\n"


@really_root
def test_what_root_starts_for_a_user_stays_that_user() -> None:
    with account.acting(account.named(USER)):
        for shell in ("/bin/sh", shutil.which("bash") or "/bin/sh"):
            said = process.run((shell, "-c", "id -u; id -ru; id -g; id -rg")).output.split()
            assert said == [str(UID)] * 2 + [str(pwd.getpwnam(USER).pw_gid)] * 2
        with account.as_root():
            assert process.run(("/bin/sh", "-c", "id -u; id -ru")).output.split() == ["0", "0"]


@really_root
def test_root_with_more_groups_than_macos_lets_it_set_gets_its_rights_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before, set_groups = os.getgroups(), os.setgroups

    def of_macos(groups: list[int]) -> None:
        if len(groups) > 16:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        set_groups(groups)

    def refusing(_groups: list[int]) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    user = account.named(USER)
    try:
        set_groups(list(range(2000, 2020)))
        monkeypatch.setattr(os, "setgroups", of_macos)
        with account.acting(user):
            with account.as_root():
                assert os.geteuid() == 0
            assert os.geteuid() == UID
        assert (os.geteuid(), os.getegid(), len(os.getgroups())) == (0, os.getgid(), 16)
        with account.acting(user):
            monkeypatch.setattr(os, "setgroups", refusing)
            with pytest.raises(OSError, match="not permitted"), account.as_root():
                pass
            assert os.geteuid() == UID
            monkeypatch.setattr(os, "setgroups", of_macos)
        assert os.geteuid() == 0
    finally:
        monkeypatch.undo()
        set_groups(before)


@really_root
def test_a_workspace_of_a_user_whom_nobody_knows_is_named_by_its_uid(
    mac: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = mac.folder / "workspace"
    workspace.mkdir()
    os.chown(workspace, 4999999, -1)
    monkeypatch.setenv("SUDO_USER", USER)
    with pytest.raises(ConfigError, match=f"workspace: {workspace} belongs to uid 4999999"):
        account.refuse_to_litter(workspace)


def _agent(mac: Site) -> Site:
    """That of a user at the screen, in a prefix of theirs."""
    mac.launchctl(LOGIN_VERB, str(UID))
    shutil.chown(mac.prefix.folder, USER)
    models = mac.folder / "models"
    models.mkdir()
    shutil.chown(models, USER)
    return mac.configured(domain=f"gui/{UID}")


@really_root
@pytest.mark.slow
def test_the_user_of_a_daemon_can_change_and_is_known_without_its_definition(mac: Site) -> None:
    (mac.folder / "models").mkdir()
    (mac.folder / "models").chmod(0o777)
    first, second = mac.configured(user=USER), mac.configured(user=OTHER)
    first.install(_release(mac, "1"))
    kept = mac.log_file.with_name("ollama.log.1")
    kept.write_text("before\n")
    shutil.chown(kept, USER)
    with pytest.raises(RolledBack):
        second.install(_broken(mac, "2"))
    assert {path.lstat().st_uid for path in (mac.prefix.logs, mac.prefix.run, mac.log_file, kept)} == {UID}
    _assert_runs_as(first.status().pid, USER)
    _assert_runs_as(second.install(_release(mac, "3")).pid, OTHER)
    uid = pwd.getpwnam(OTHER).pw_uid
    assert {path.lstat().st_uid for path in (mac.prefix.logs, mac.prefix.run, mac.log_file, kept)} == {uid}
    next(mac.emulator.glob("LaunchDaemons/*.plist")).unlink()
    assert installer.uninstall(mac.config, mac.console).reason == "nothing is installed"
    assert first.install(next(mac.folder.glob("built-1"))).healthy


def _broken(site: Site, version: str) -> Path:
    before = os.umask(0o022)
    try:
        return site.release(version, does="exit")
    finally:
        os.umask(before)


@really_root
def test_root_makes_no_models_folder_where_a_user_leads_it(mac: Site) -> None:
    home, elsewhere, user = mac.folder / "home", mac.folder / "elsewhere", account.named(USER)
    for folder in (home, elsewhere):
        folder.mkdir()
        folder.chmod(0o755)
    shutil.chown(home, USER)
    with account.acting(user):
        (home / "link").symlink_to(elsewhere)
    with pytest.raises(ModelsUnavailable, match="Permission denied"):
        model_store.prepare(DeployConfig(models=str(home / "link/models")), user)
    assert not list(elsewhere.iterdir())
    for folder in (home / "models", elsewhere / "models"):
        model_store.prepare(DeployConfig(models=str(folder)), user)
        assert folder.stat().st_uid == UID


@really_root
def test_root_deletes_a_definition_with_the_rights_of_who_can_replace_its_folder(mac: Site) -> None:
    agents, daemons, user = mac.folder / "home/LaunchAgents", mac.folder / "LaunchDaemons", account.named(USER)
    for folder in (agents, daemons):
        folder.mkdir(parents=True)
        folder.parent.chmod(0o755)
        folder.chmod(0o755)
    for folder in (agents.parent, agents):
        shutil.chown(folder, USER)
    manager = access.opened(mac.configured(user=USER).config, mac.console).manager
    assert isinstance(manager, LaunchdManager)
    of_user, of_root = (replace(manager, plist=folder / "x.plist") for folder in (agents, daemons))
    for one in (of_user, of_root):
        one.plist.touch()
    with account.acting(user):  # an agent that was a daemon
        of_root.require_rights()
        of_user.require_rights()
    agents.rename(agents.with_name("moved"))
    with account.acting(user):
        agents.symlink_to(daemons)
    with pytest.raises(PermissionError):
        of_user.delete()
    with account.acting(user), pytest.raises(PermissionError):
        of_user.delete()
    with account.acting(user), pytest.raises(ConfigError, match="its folder is not writable"):
        of_user.require_rights()
    with account.acting(user):
        of_root.delete()
    assert not of_root.plist.exists()
    assert os.geteuid() == 0
