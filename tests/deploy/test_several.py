"""llama-server with several models: each by its own name, out of a file of presets that belongs to the release."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.memory import models
from tests.memory.stored import LIBRARY, put
from tests.processes import ended
from toolchain.core.errors import ConfigError, ModelNotServable, RolledBack
from toolchain.core.variables import SERVE
from toolchain.deploy import beside, environment, installer
from toolchain.deploy.prefix import Prefix
from toolchain.models.memory import plan, together
from toolchain.service.units import presets

from .site import Site, identifier, install

pytestmark = pytest.mark.slow

_names = itertools.count()
NAMES = ("x:8b-instruct-q4_K_M", "x:70b-instruct-q4_K_M", "other", "other:latest")
"""llama-server itself would take the first two for one model; the last two are one"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A place where a llama-server of three models is the service."""
    place = Site.make(tmp_path_factory.mktemp("several"), keep=20).configured(
        serve="llama-server", serve_models=NAMES, context=256, environment={"LLAMA_ARG_MODELS_MAX": "2"}
    )
    for number, name in enumerate(("x/8b-instruct-q4_K_M", "x/70b-instruct-q4_K_M", "other/latest", "mute/latest")):
        extra = {"tokenizer.chat_template": f"{number}"} if name != "mute/latest" else {}
        spec = models.dense(layers=4 - number, head_size=128)
        path = models.write(place.folder / "made.gguf", spec, data=False, extra=extra)
        put(place.folder / "models", f"{LIBRARY}/{name}", [("model", path.read_bytes())])
    place.install(place.release("good"))
    yield place
    place.close()


def answers(site: Site, name: str) -> bool:
    try:
        file_of(site, name)
    except urllib.error.HTTPError:
        return False
    return True


def ask(site: Site, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The answer of the service."""
    url = f"http://127.0.0.1:{site.config.deploy.port}{path}"
    with urllib.request.urlopen(url, json.dumps(body).encode() if body else None, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def file_of(site: Site, name: str) -> str:
    """The file of the model that answers to a name."""
    ask(site, "/completion", {"model": name, "n_predict": 1})
    return str(ask(site, f"/props?model={name}")["model_path"])


def children(site: Site) -> list[psutil.Process]:
    return psutil.Process(site.status().pid).children()


def preset_files(site: Site) -> list[Path]:
    return sorted(site.prefix.presets.iterdir())


def test_every_model_answers_to_its_own_names(site: Site) -> None:
    given = environment.read(site.prefix.current)
    assert given[SERVE] == "llama-server-router"
    asked = presets.read(Path(given["LLAMA_ARG_MODELS_PRESET"]))
    assert [one.names for one in asked] == [NAMES[:1], NAMES[1:2], NAMES[2:]]
    assert {name: file_of(site, name) for name in NAMES} == {n: str(one.file) for one in asked for n in one.names}
    listed = ask(site, "/v1/models")["data"]
    assert sorted(name for one in listed for name in one["aliases"]) == sorted(NAMES)
    with pytest.raises(urllib.error.HTTPError, match="400"):
        file_of(site, "x")


def test_what_is_proven_is_the_smallest_model(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    before = site.status()
    now = site.install(site.release(f"new-{next(_names)}"))
    assert "K (turbo4):    0.07 MiB" in capsys.readouterr().err
    assert now.parent == before.active
    started = re.findall(r"spawning server instance with name=(\w+)", site.log())[-1]
    asked = presets.read(preset_files(site)[0])
    assert started == min(asked, key=lambda one: one.file.stat().st_size).section
    site.assert_clean()


def test_other_models_are_an_upgrade_and_a_rollback_brings_the_first_back(site: Site) -> None:
    old, (first,) = site.status(), preset_files(site)
    release = site.release(f"new-{next(_names)}")
    fewer = site.configured(serve_models=NAMES[1:3])
    now = fewer.install(release)
    assert len(preset_files(site)) == 2
    assert fewer.install(release) == now  # nothing was restarted
    assert len(ask(site, "/v1/models")["data"]) == 2
    back = installer.rollback(site.config, site.console)
    assert (back.active, back.healthy) == (old.active, True)
    assert environment.read(site.prefix.current)["LLAMA_ARG_MODELS_PRESET"] == str(first)
    assert len(ask(site, "/v1/models")["data"]) == 3
    site.assert_clean()


def test_lost_presets_are_written_again(site: Site) -> None:
    before = site.status()
    path = Path(environment.read(site.prefix.current)["LLAMA_ARG_MODELS_PRESET"])
    text = path.read_text()
    path.unlink()
    again = site.install(site.built(before.active))
    assert (again.active, again.healthy) == (before.active, True)
    assert path.read_text() == text
    path.unlink()
    path.mkdir()
    assert site.install(site.built(before.active)).healthy
    assert path.read_text() == text


def test_presets_changed_by_hand_are_named_and_kept(site: Site) -> None:
    before = site.status()
    path = Path(environment.read(site.prefix.current)["LLAMA_ARG_MODELS_PRESET"])
    text = path.read_text()
    path.write_text(f"{text}\n[mine]\nmodel = {path}\nalias = mine\n")
    assert [(one.file, one.change) for one in site.status().edits] == [(path, "changed")]
    again = site.install(site.built(before.active))
    assert [one.about for one in again.warnings if "by hand" in one.message] == [str(path)]
    (kept,) = site.prefix.logs.glob(f"{path.name}.edited-*")
    assert "alias = mine" in kept.read_text()
    assert (path.read_text(), site.status().edits) == (text, ())


def test_a_model_whose_file_is_gone_fails_alone(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    before, file = site.status(), Path(file_of(site, "other"))
    away = file.with_name("away")
    file.rename(away)
    try:
        again = installer.rollback(site.config, site.console, before.active)
        assert (again.active, again.healthy) == (before.active, True)
        assert f"warning: other: {file} does not exist" in capsys.readouterr().err
        assert file_of(site, NAMES[0])
    finally:
        away.rename(file)


def test_nothing_outlives_the_router_and_a_killed_model_comes_back(site: Site) -> None:
    for name in NAMES:
        file_of(site, name)
        assert len(children(site)) <= 2  # LLAMA_ARG_MODELS_MAX
    router, running = site.status().pid, children(site)
    running[0].kill()
    site.until(lambda: ended(running[0].pid))
    for name in NAMES:
        site.until(partial(answers, site, name))  # the router may not have noticed yet
    left = children(site)
    assert len(left) == 2
    os.kill(router, signal.SIGKILL)
    site.until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in left))
    site.until(lambda: site.status().pid not in (0, router) and site.status().healthy)
    assert file_of(site, NAMES[1])


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("lose-model", "the service lacks the model other"),
        ("swap-models", r"answers as other with the model .*sha256-\w+, not .*sha256"),
        ("no-router", "keeps exiting, last with: 1"),
    ],
)
def test_an_unhealthy_router_is_rolled_back(site: Site, does: str, reason: str) -> None:
    old = site.status()
    with pytest.raises(RolledBack, match=reason):
        site.install(site.release(f"bad-{next(_names)}", does=does))
    assert (site.status().active, site.status().healthy) == (old.active, True)
    site.assert_clean()


@pytest.mark.parametrize("step", ["environment", "health"])
def test_killed_while_the_models_change(site: Site, step: str) -> None:
    old, before = site.status(), preset_files(site)
    changed = site.configured(serve_models=NAMES[:2])
    release = site.release(f"new-{next(_names)}")
    site.killed(install, release, changed.config, at=step)
    after = site.status()
    assert after.active == (old.active if step == "environment" else identifier(release))
    assert after.healthy
    assert len(ask(site, "/v1/models")["data"]) == (3 if step == "environment" else 2)
    assert len(preset_files(site)) == len(before) + (step != "environment")
    site.assert_clean()


def test_models_that_are_refused_by_name(site: Site) -> None:
    before = site.status()
    for others, error, words in (
        (("mute",), ModelNotServable, "mute: .* has no chat template"),
        ((str(site.folder / "a;b.gguf"),), ConfigError, "a;b: the name 'a;b' contains ';'"),
    ):
        if error is ConfigError:
            models.write(Path(others[0]), models.dense(), data=False, extra={"tokenizer.chat_template": "x"})
        changed = site.configured(serve_models=(*NAMES, *others))
        with pytest.raises(error, match=words):
            changed.install(site.built(before.active))
        with pytest.raises(error, match=words):
            installer.preflight(changed.config, site.console)
    whole = site.configured(environment={"LLAMA_ARG_CHAT_TEMPLATE_FILE": "/x"})
    with pytest.raises(ConfigError, match="LLAMA_ARG_CHAT_TEMPLATE_FILE would hold for all models"):
        whole.install(site.built(before.active))
    assert site.status() == before


def test_files_that_no_environment_names_are_swept(tmp_path: Path) -> None:
    prefix = Prefix(tmp_path)
    for folder, name in ((prefix.release("a"), "a.ini"), (prefix.release("b"), "b.ini"), (prefix.before, "c.ini")):
        folder.mkdir(parents=True)
        (folder / "environment").write_text(f"LLAMA_ARG_MODELS_PRESET={prefix.presets / name}\n")
    names = ["a.ini", "b.ini", "c.ini"]
    beside.write({prefix.presets / name: name.encode() for name in (*names, "d.ini", ".a.ini.x7f")})
    beside.sweep(prefix)
    assert [path.name for path in sorted(prefix.presets.iterdir())] == names
    shutil.rmtree(prefix.releases)
    shutil.rmtree(prefix.before)
    beside.sweep(prefix)
    assert not prefix.presets.exists()
    beside.sweep(prefix)


def test_how_many_fit() -> None:
    gib = plan.GIB
    machine = plan.Hardware(ram=plan.SYSTEM_BYTES + 20 * gib)
    assert together.fitting([9 * gib, 1, 11 * gib, gib], machine) == 2
    assert together.fitting([1] * 9, machine) == together.MOST
    assert together.fitting([30 * gib], machine) == 1
    assert together.fitting([9 * gib] * 2, plan.Hardware(ram=machine.ram, gpu=10 * gib)) == 1
