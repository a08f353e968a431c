"""tq on a Mac that the emulator plays: it installs what deploy installs, and what it refuses leaves no trace."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.publishing.attacks import ATTACKS
from tests.publishing.server import serving
from toolchain.build import release as built
from toolchain.core import locks, records
from toolchain.core.errors import LockHeld
from toolchain.deploy import environment, shim
from toolchain.deploy.installed import InstallState
from toolchain.provisioning import tq
from toolchain.service import managers, units
from toolchain.service.manager import Definition

from . import attacked, cases, drift
from .place import Mac, Said
from .test_text import SHELLS, _function

pytestmark = pytest.mark.slow


@pytest.fixture
def mac(tmp_path: Path) -> Iterator[Mac]:
    place = Mac.make(tmp_path)
    yield place
    place.close()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mac, Said]]:
    """A Mac where tq has installed release 1, and what it said; for tests that leave that healthy."""
    place = Mac.make(tmp_path_factory.mktemp("installed"))
    place.want(**{"env.OLLAMA_KEEP_ALIVE": "30m", "env.SECRET_TOKEN": "hush", "kv_cache_type": "f16:turbo4"})
    place.publisher.promote(place.release("1", 1))
    yield place, place.run("apply", expect=10)
    place.close()


def test_what_it_installs_is_what_deploy_installs(installed: tuple[Mac, Said]) -> None:
    mac, said = installed
    first = said.json["release"]
    assert said.json["healthy"] is True
    assert "K (f16)" in said.log
    assert mac.run("apply", expect=0).json["changes"] == []

    site = mac.configured()
    now, prefix, manager = site.status(), site.prefix, managers.choose(site.config.deploy, site.prefix.folder)
    assert (now.active, now.healthy, now.edits) == (first, True, ())
    assert prefix.shim.read_bytes() == shim.render(prefix, manager, site.config.deploy)
    plist = Path(manager.registration.file)
    assert plist.read_bytes() == manager.render(Definition(program=prefix.shim, log=prefix.log))
    release = built.load(prefix.release(first))
    text = environment.render(units.configured(site.config.deploy).environment(release, site.config.deploy))
    assert (prefix.release(first) / "environment").read_bytes() == text.encode()
    state = records.read(prefix.state, InstallState)
    assert state.registration() == manager.registration
    assert state.releases[0].environment["SECRET_TOKEN"].startswith("(secret, sha256 ")
    assert not list(prefix.folder.glob("*.new")) + list((prefix.folder / "tmp").glob("*"))


def test_status_says_what_differs(installed: tuple[Mac, Said]) -> None:
    mac, _ = installed
    active = mac.site.prefix.active()
    given = mac.site.prefix.release(active) / "environment"
    before = given.read_bytes()
    assert f"as desired: release {active}, healthy" in mac.run("status", expect=0).log
    mac.want(kv_cache_type="turbo4")
    change = mac.run("plan", expect=10).json["changes"][-1]
    assert (change["is"], change["wanted"]) == ("OLLAMA_KV_CACHE_TYPE=f16:turbo4", "OLLAMA_KV_CACHE_TYPE=turbo4")
    with serving(mac.publisher.site.folder) as url:
        mac.want(port=url.rpartition(":")[2])
        assert "is taken by another process" in mac.run("apply", expect=54).json["message"]
    mac.want(kv_cache_type="f16:turbo4", port=str(mac.site.config.deploy.port))

    drift.KINDS["environment edited"].do(mac)
    assert mac.run("status", expect=20).what == ["environment"]
    given.write_bytes(before)
    assert mac.run("rollback", expect=53).json["error"] == "nothing-to-roll-back-to"


def test_another_copy_hands_over_to_the_one_that_the_channel_names(installed: tuple[Mac, Said]) -> None:
    mac, said = installed
    mac.tq.write_bytes(tq.render() + b"# another\n")
    again = mac.run("apply", expect=0)
    assert "handing over" in again.log
    assert (mac.prefix / "bin/tq").read_bytes() == tq.render()
    assert again.json["release"] == said.json["release"]
    mac.tq.write_bytes(tq.render())


def test_either_finishes_what_the_other_was_killed_at(tmp_path: Path) -> None:
    found = cases.ends("first, killed", tmp_path / "place")
    assert found["tq"] == found["deploy"]
    assert (found["tq"].active, found["tq"].healthy) == ("1", True)


def test_attacks_change_nothing(installed: tuple[Mac, Said]) -> None:
    mac, _ = installed
    world = attacked.prepare(mac)
    for one in ATTACKS:
        if one.name in ("a link out of the release, and a member behind it", "an older statement again"):
            said, wrong = attacked.attack(mac, world, one)
            assert not wrong, said.log


def test_a_desired_state_that_is_wrong_is_refused_by_its_line(mac: Mac) -> None:
    good = mac.desired_file.read_text()
    for line in (
        "colour=red", "port=x", "port=", "channel=Stable", "prefix=relative", "kv_cache_type=turbo4,mode=1", "gpu=yes",
        "env.PATH=/x", "env.OLLAMA_HOST=x", "env.DYLD_X=1", "env.lower=1", "no equals sign", "label=a\tb", "keep=3\r",
        "domain=root", "prefix=/a\nprefix=/b", "keep=08", "health_timeout_s=08", "stability_s=00.5", "port=011434",
    ):  # fmt: skip
        key = line.partition("=")[0]
        kept = "".join(one for one in good.splitlines(keepends=True) if not one.startswith(f"{key}="))
        mac.desired_file.write_text(f"{kept}{line}\n")
        said = mac.run("status", expect=3)
        assert re.search(r"desired: line \d+: ", said.json["message"]), line
        assert ("an unknown key" in said.json["message"]) == (key == "colour"), line
    mac.desired_file.write_text("".join(one for one in good.splitlines(keepends=True) if "channel_url" not in one))
    assert "channel_url is missing" in mac.run("status", expect=3).json["message"]
    for url in ("http://example.com/x", "ftp://127.0.0.1/x", "https:example.com", "http://127.0.0.1:80@example.com/x"):
        mac.want(channel_url=url)
        assert "expected https://" in mac.run("plan", expect=3).json["message"]
    mac.want(channel_url=f"file://{mac.publisher.site.folder}", prefix=str(mac.desired_file))
    assert f"{mac.desired_file} is no folder" in mac.run("apply", expect=58).json["message"]


def test_a_plan_changes_nothing(mac: Mac) -> None:
    first = mac.release("1", 1)
    mac.publisher.promote(first)
    assert mac.run("status", expect=21).json["result"] == "absent"
    assert mac.run("plan", expect=10).json["release"] == first
    assert sorted(path.name for path in mac.prefix.iterdir()) == ["launchd"]


def test_messages_hold_no_password_and_no_value_of_an_unknown_key(mac: Mac) -> None:
    for key, value, code in (
        ("channel_url", "https://me:hush@127.0.0.1:1/x", 40), ("channel_url", "ftp://me:hush@host/x", 3),
        ("env.api-key", "hush", 3), ("SECRET", "hush", 3),
    ):  # fmt: skip
        mac.want(**{key: value})
        said = mac.run("plan", expect=code, TURBOQUANT_PATIENCE_S="1")
        assert "hush" not in f"{said.json}{said.log}"
        mac.want(**{key: None})


def test_any_prefix_will_do_that_is_no_other_programs(mac: Mac) -> None:
    mac.publisher.promote(mac.release("1", 1))
    for path in (mac.prefix / "bin/other", mac.prefix / "releases/2026/file"):
        path.parent.mkdir(parents=True)
        path.write_text("of another")
        for verb in ("plan", "apply", "uninstall"):
            assert "another program's" in mac.run(verb, expect=58).json["message"]
        assert path.read_text() == "of another"
        shutil.rmtree(mac.prefix)
    odd = mac.site.folder / "we[i]rd *'\"$HOME `x` ünï & <b>{a,b}@TQ_LOG@ \\n%s"
    mac.want(prefix=str(odd))
    mac.run("apply", expect=10)
    mac.run("uninstall", expect=10)
    assert {path.name for path in odd.iterdir()} == {"lock", "logs"}
    for prefix in ("/opt//x", "/opt/x/../y", "//"):
        mac.want(prefix=prefix)
        assert mac.run("plan", expect=3).json["error"] == "desired-invalid"


def test_a_file_that_others_may_change_decides_nothing(mac: Mac) -> None:
    mac.publisher.promote(mac.release("1", 1))
    for path in (mac.desired_file, mac.publisher.signers):
        path.chmod(0o666)
        assert "can be changed by others" in mac.run("plan", expect=58).json["message"]
        path.chmod(0o644)
    mac.prefix.chmod(0o777)
    assert mac.run("apply", expect=58).json["error"] == "prefix-unsafe"
    mac.prefix.chmod(0o755)
    linked = mac.site.folder / "linked"
    linked.symlink_to(mac.publisher.signers)
    mac.want(signers=str(linked))
    mac.run("plan", expect=58)
    mac.want(signers=str(mac.publisher.signers), revoked_keys=str(mac.desired_file))
    assert "no list of keys" in mac.run("plan", expect=31).json["message"]


@pytest.mark.parametrize("program", ["flock", "perl"])
def test_the_lock_is_deploys(program: str, tmp_path: Path) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    lock, folder = tmp_path / "lock", tmp_path / "bin"
    folder.mkdir()
    (folder / program).symlink_to(shutil.which(program) or "")
    text = f'{_function("lock_now")}\nexec 9<> "$1"\nlock_now && PATH=$2 && read -r _'
    words = [shutil.which(SHELLS[0][0]) or "sh", *SHELLS[0][1:], "-c", text, "tq", str(lock), os.environ["PATH"]]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(words, stdin=subprocess.PIPE, env={"PATH": str(folder)})

    with locks.held(lock, "busy", hint=""):
        with start() as process:
            process.communicate()
        assert process.returncode != 0
    with start() as process:
        deadline = time.monotonic() + 30
        while not _is_held(lock):
            assert time.monotonic() < deadline, "the lock was never held"
            time.sleep(0.01)
        process.communicate(b"\n")
    assert not _is_held(lock)


def _is_held(lock: Path) -> bool:
    try:
        with locks.held(lock, "busy", hint=""):
            return False
    except LockHeld:
        return True


def test_a_lost_sequence_lets_no_older_statement_in(mac: Mac) -> None:
    release = mac.release("1", 1)
    mac.publisher.promote(release)
    mac.publisher.promote(release)
    newest = mac.run("apply", expect=10).json["sequence"]
    (mac.prefix / "channel/stable.sequence").unlink()
    mac.publisher.promote(release, sequence=newest - 1)
    assert mac.run("apply", expect=36).json["error"] == "older-sequence"
    mac.publisher.promote(release, sequence=newest + 1)
    mac.run("apply", expect=0)
