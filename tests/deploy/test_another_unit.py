"""A program that is not Ollama as the service: what deploy needs is what the protocol says."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.processes import ended
from toolchain.build import release as built
from toolchain.core import records
from toolchain.core.config import DeployConfig
from toolchain.core.errors import ConfigError, RolledBack
from toolchain.deploy import environment, installer
from toolchain.service.unit import Served, ServedModel
from toolchain.service.units.llama_server import LlamaServerUnit
from toolchain.text import as_text

from .site import BUILD, Site, identifier, install

pytestmark = pytest.mark.slow

_names = itertools.count()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A place where llama-server runs as the service."""
    place = Site.make(tmp_path_factory.mktemp("served")).serving()
    place.install(place.release("good"))
    yield place
    place.close()


def test_install_upgrade_and_roll_back(served: Site, capsys: pytest.CaptureFixture[str]) -> None:
    old, release = served.status(), served.release(f"new-{next(_names)}")
    new = served.install(release)
    assert (new.active, new.parent, new.version, new.healthy) == (identifier(release), old.active, f"b{BUILD}", True)
    assert "K (turbo4):    0.07 MiB" in capsys.readouterr().err  # the proof that it is in use
    assert ended(old.pid)
    assert served.install(release) == new  # the pid too: nothing was restarted
    assert "llama_kv_cache" in served.log()
    back = installer.rollback(served.config, served.console)
    assert (back.active, back.healthy) == (old.active, True)
    served.assert_clean()


def test_types_of_single_layers_are_proven(served: Site) -> None:
    before = served.status()
    asked = "q8_0:turbo4,first=1:q8_0"
    changed = served.configured(kv_cache_type=asked).install(served.built(before.active))
    assert changed.healthy
    variables = environment.read(served.prefix.current)
    assert variables["LLAMA_ARG_CACHE_TYPE_K"] == "q8_0"
    assert variables["LLAMA_ARG_CACHE_TYPE_V"] == "turbo4,first=1:q8_0"
    assert served.install(served.built(before.active)).healthy


def test_a_key_is_sent_and_shown_nowhere(served: Site, capsys: pytest.CaptureFixture[str]) -> None:
    before, keys = served.status(), served.folder / "keys"
    key = "0123456789abcdef-secret"
    keys.write_text(f"# mine\n{key}\n")
    keys.chmod(0o600)
    keyed = served.configured(api_key_file=str(keys))
    state = keyed.install(served.built(before.active))
    assert state.healthy
    file = served.prefix.current / environment.FILE_NAME
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert environment.read(served.prefix.current)["LLAMA_API_KEY"] == f"{key},{key}"
    given = installer.given_environment(served.config, served.console)
    shown = [records.to_json(given), as_text(given), records.to_json(state), capsys.readouterr().err, served.log()]
    shown += [served.prefix.state.read_text(), " ".join(psutil.Process(state.pid).cmdline())]
    assert not [text for text in shown if "secret" in text.replace("(secret, sha256", "")]
    text = file.read_text()
    file.write_text(text.replace(f"{key},{key}", "0123456789abcdef-other"))  # by hand, and not restarted
    assert "(one with another API key)" in served.status().reason
    file.write_text(text)
    assert served.install(served.built(before.active)).healthy  # without a key again


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("does", "answers", "reason"),
    [
        ("serve", "7", "answers version 'b7', not 'b1'"),
        ("fail-to-generate", "", "does not generate: .*Compute error"),
        ("use-f16", "", r"configured for the cache types turbo4:turbo4, but: .* K \(f16\)"),
        ("null-count", "", "not a llama-server: Expected `int`, got `null`"),
        ("empty-text", "", "generated no text"),
        ("no-line", "", "not proven that turbo4:turbo4 is in use"),
        ("another-model", "", r"answers version 'b1 with the model /another/model\.gguf, not /.*/model\.gguf'"),
        ("no-load", "", "keeps exiting, last with: 1"),
    ],
)
def test_an_unhealthy_release_is_rolled_back(
    served: Site, does: str, answers: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolchain.deploy.health.WRONG_VERSION_GRACE_S", 0.2)
    old = served.status()
    with pytest.raises(RolledBack, match=reason):
        served.install(served.release(f"bad-{next(_names)}", does=does, answers=answers))
    assert (served.status().active, served.status().healthy) == (old.active, True)
    served.assert_clean()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("step", ["environment", "unit", "restart", "health", "bless"])
def test_killed_upgrade(served: Site, step: str) -> None:
    served.assert_upgrade_survives(install, served.release(f"new-{next(_names)}"), at=step)


def test_what_a_release_lacks_is_refused(served: Site) -> None:
    before = served.status()
    with pytest.raises(ConfigError, match="no cache type 'turbo4'"):
        served.install(served.release("stock", types=()))
    with pytest.raises(ConfigError, match="built without the series"):
        served.configured(kv_cache_type="q8_0,first=1:f16").install(served.folder / "built-stock")
    assert served.status() == before


@pytest.mark.parametrize(
    ("host", "called"),
    [("127.0.0.1", "http://127.0.0.1:1"), ("[::]", "http://[::1]:1"), ("0.0.0.0", "http://127.0.0.1:1")],
)
def test_where_it_answers(served: Site, host: str, called: str) -> None:
    unit = LlamaServerUnit()
    manifest = served.prefix.release(served.status().active)
    assert os.access(manifest / unit.program[0], os.X_OK)
    release = built.check(manifest)
    model = Served(models=(ServedModel(name="a", file=Path("/a")),))
    assert unit.url(unit.environment(release, DeployConfig(host=host, port=1), model)) == called
    assert unit.url({"OLLAMA_HOST": "127.0.0.1:1"}) == "http://127.0.0.1:8080"  # of another program
