"""The folder of the models: what is refused before Ollama would make it somewhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from toolchain.core.config import Config, DeployConfig
from toolchain.core.errors import ConfigError, ModelsUnavailable
from toolchain.deploy.prefix import settled
from toolchain.service import account, model_store

_ROOT = os.geteuid() == 0


def _prepare(path: str | Path, user: str = "") -> None:
    config = DeployConfig(models=str(path), user=user)
    model_store.prepare(config, account.named(user) if user else account.caller())


def test_it_is_made_where_its_parent_is(tmp_path: Path) -> None:
    _prepare(tmp_path / "models")
    _prepare(tmp_path / "models")
    assert (tmp_path / "models").is_dir()
    with pytest.raises(ModelsUnavailable, match=r"none/models does not exist, and .*none is no folder"):
        _prepare(tmp_path / "none/models")
    assert not (tmp_path / "none").exists()


def test_the_default_is_the_accounts_own() -> None:
    home = account.caller().home
    assert model_store.default(account.caller()) == home / ".ollama/models"
    assert model_store.named(DeployConfig(models="~/m")) == home / "m"
    _prepare("")


def test_a_home_of_nobody() -> None:
    config = DeployConfig(models="~no.such.user/m", agents_dir="~no.such.user/a", prefix="~no.such.user/p")
    for look in (
        lambda: model_store.named(config),
        lambda: account.expand(config.agents_dir, config, account.ORDINARY),
        lambda: account.prefixes(config, account.ORDINARY),
    ):
        with pytest.raises(ConfigError, match=r"the home folder ~no\.such\.user is unknown"):
            look()
    assert settled(Config(deploy=config)) == Config(deploy=config)


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="'models' is not an absolute path") as caught:
        _prepare("models")
    assert str(tmp_path / "models") in caught.value.hint


def test_files_and_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "none")
    with pytest.raises(ModelsUnavailable, match="is not a folder"):
        _prepare(tmp_path / "file")
    with pytest.raises(ModelsUnavailable, match=r"file/models does not exist, and .*file is no folder"):
        _prepare(tmp_path / "file/models")
    with pytest.raises(ModelsUnavailable, match="link"):
        _prepare(tmp_path / "link")


@pytest.mark.parametrize(("mode", "what"), [(0o000, "read"), (0o444, "enter"), (0o555, "write to")])
def test_a_folder_that_the_service_cannot_use(tmp_path: Path, mode: int, what: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for above in (tmp_path, *tmp_path.parents):
        if _ROOT and above.stat().st_uid == 0 and not above.stat().st_mode & stat.S_IXOTH:
            above.chmod(above.stat().st_mode | stat.S_IXOTH)  # of pytest's own folders
    folder.chmod(mode)
    with pytest.raises(ModelsUnavailable, match=f"cannot {what} .*models"):
        _prepare(folder, user="nobody" if _ROOT else "")
    folder.chmod(0o777)
    _prepare(folder, user="nobody" if _ROOT else "")


@pytest.mark.skipif(not _ROOT, reason="only root can give a folder away")
def test_a_new_folder_belongs_to_the_services_account(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for above in tmp_path.parents[:2]:
        above.chmod(0o755)
    _prepare(tmp_path / "models", user="nobody")
    assert (tmp_path / "models").stat().st_uid == account.named("nobody").uid


def test_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_store, "VOLUMES", tmp_path)
    (tmp_path / "Ghost/models").mkdir(parents=True)  # what Ollama leaves on the system disk
    (tmp_path / "System").symlink_to("/")
    with pytest.raises(ModelsUnavailable, match=r"no volume is mounted at .*/Ghost"):
        _prepare(tmp_path / "Ghost/models")
    with pytest.raises(ModelsUnavailable, match=r"no volume is mounted at .*/None"):
        _prepare(tmp_path / "None/models")
    with pytest.raises(ModelsUnavailable, match="no volume is mounted"):
        _prepare(str(tmp_path).upper() + "/Ghost/models")  # names of APFS have no case
    _prepare(tmp_path / f"System{tmp_path}/models")


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="needs a mount point")
def test_a_mounted_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_store, "VOLUMES", Path("/dev"))
    folder = Path(f"/dev/shm/turboquant-{os.getpid()}")
    try:
        _prepare(folder)
        assert folder.is_dir()
    finally:
        folder.rmdir()
