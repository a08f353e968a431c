"""Rollouts on real sshd servers with a scripted tq: waves, halts, the way back, and hosts of every kind."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.site import free_port
from toolchain.core.delivery_errors import (
    DriftFound,
    HostKeyRejected,
    HostUnreachable,
    InventoryInvalid,
    RolloutHalted,
)  # fmt: skip
from toolchain.core.errors import LockHeld
from toolchain.core.locks import held
from toolchain.fleet import controller, journal, survey
from toolchain.publishing.keyfiles import generate

from .fleets import NEW, OLD, Fleet, outcomes
from .servers import fingerprint, needs_sshd

pytestmark = [needs_sshd, pytest.mark.slow]
AT_ONCE = {"min_healthy_time": 0, "healthy_deadline": "0.3s"}
"""for hosts that never become healthy: the first look decides about all others"""


@contextlib.contextmanager
def generating(tokens_per_second: float) -> Iterator[int]:
    """A service that answers /api/generate as Ollama does."""

    class Service(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            count = asked["options"]["num_predict"]
            said = {"model": asked["model"], "eval_count": count, "eval_duration": int(count / tokens_per_second * 1e9)}
            body = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Service) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        yield service.server_port
        service.shutdown()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet.make(tmp_path_factory.mktemp("rollout"))
    for number in (1, 2, 3):
        made.host(f"mac-{number}", wave=min(number, 2))
    yield made
    made.close()


@pytest.fixture
def macs(shared: Fleet, tmp_path: Path) -> Fleet:
    """Three hosts in two waves that run OLD, while the channel names NEW; a workspace of its own."""
    for server in shared.servers.values():
        server.reset(OLD)
    shared.names(NEW)
    entries = [dict(entry) for entry in shared.entries]
    return Fleet(shared.folder, dict(shared.servers), entries, workspace=tmp_path / "workspace")


def test_waves_and_then_nothing_to_do(macs: Fleet) -> None:
    macs.desired["env.HOSTILE"] = "$(touch pwned) `touch pwned` ; touch pwned ' \" \\ & | * ~"
    planned = survey.plan(macs.run())
    assert [(one.state, one.release) for one in planned.hosts] == [("would-change", NEW)] * 3
    assert {server.active for server in macs.servers.values()} == {OLD}
    assert not (macs.servers["mac-1"].home / ".turboquant/fleet/desired").exists()  # a plan leaves nothing
    report = macs.apply()
    assert outcomes(report) == {"mac-1": "changed", "mac-2": "changed", "mac-3": "changed"}
    assert report.failure() is None
    ended = [event.host for event in report.events if event.event == "ended"]
    assert ended == ["mac-1", "mac-2", "mac-3"]  # one at a time, by waves
    for server in macs.servers.values():
        assert server.applied == [NEW]
        assert "env.HOSTILE=$(touch pwned) `touch" in (server.home / ".turboquant/fleet/desired").read_text()
        assert not list(server.home.rglob("pwned"))
        assert (server.home / ".turboquant/fleet/desired").stat().st_mode & 0o777 == 0o600  # it may hold a key
    before = (macs.servers["mac-1"].home / ".turboquant/fleet/tq").stat().st_ino
    assert outcomes(macs.apply()) == {"mac-1": "unchanged", "mac-2": "unchanged", "mac-3": "unchanged"}
    assert (macs.servers["mac-1"].home / ".turboquant/fleet/tq").stat().st_ino == before
    assert survey.status(macs.run()).failure() is None
    assert sorted(Path(report.folder).iterdir()) == [
        Path(report.folder) / name for name in ("journal.jsonl", "report.html", "report.json", "rollout.json")
    ]


def test_a_failed_canary_halts_and_everyone_goes_back(macs: Fleet) -> None:
    macs.servers["mac-2"].does(sick=NEW)
    macs.rollout |= AT_ONCE
    report = macs.apply()
    assert outcomes(report) == {"mac-1": "changed reverted", "mac-2": "failed reverted", "mac-3": "waiting"}
    assert report.halted_wave == 2
    assert report.halted_because.startswith("canary mac-2 failed: not healthy for 0 s within 0.3 s")
    assert isinstance(report.failure(), RolloutHalted)
    assert {server.active for server in macs.servers.values()} == {OLD}
    assert macs.servers["mac-3"].verbs == []
    found = survey.status(macs.run())
    assert [(one.state, one.facts and one.facts.healthy) for one in found.hosts] == [("drift", True)] * 3
    assert isinstance(found.failure(), DriftFound)


def test_only_the_halted_wave_goes_back_where_the_rules_say_so(macs: Fleet) -> None:
    macs.servers["mac-3"].does(cpu=NEW)
    macs.rollout |= {"auto_revert": "wave", **AT_ONCE}
    report = macs.apply()
    assert outcomes(report) == {"mac-1": "changed", "mac-2": "changed reverted", "mac-3": "failed reverted"}
    assert "tq did not see the GPU in use" in report.halted_because
    assert [macs.servers[name].active for name in ("mac-1", "mac-2", "mac-3")] == [NEW, OLD, OLD]
    taken = controller.rollback(macs.run())  # on request, the rest
    assert outcomes(taken) == {"mac-1": "changed reverted", "mac-2": "changed reverted", "mac-3": "failed reverted"}
    assert taken.end == "rolled-back"
    assert macs.servers["mac-1"].active == OLD


def test_what_tq_takes_back_itself_is_not_taken_back_twice(macs: Fleet) -> None:
    macs.servers["mac-1"].does(refuse=NEW)
    report = macs.apply()
    assert outcomes(report) == {"mac-1": "failed by-tq", "mac-2": "waiting", "mac-3": "waiting"}
    assert "rollback" not in " ".join(macs.servers["mac-1"].verbs)


@pytest.mark.parametrize("settles", ["none", "release-0"])
def test_a_way_back_that_the_shim_took_already_ends_at_the_release_of_before(macs: Fleet, settles: str) -> None:
    del macs.entries[1:]
    macs.servers["mac-1"].does(sick=NEW, settles=settles)
    macs.rollout |= AT_ONCE
    report = macs.apply()
    assert outcomes(report) == {"mac-1": "failed reverted"}
    assert macs.servers["mac-1"].active == OLD


def test_a_failure_that_is_allowed_does_not_halt(macs: Fleet) -> None:
    macs.servers["mac-3"].does(error="30 tampered")
    macs.rollout |= {"max_failures": 1, "auto_revert": False}
    report = macs.apply()
    assert outcomes(report) == {"mac-1": "changed", "mac-2": "changed", "mac-3": "failed"}
    assert report.end == "done"
    assert macs.servers["mac-3"].applied == []


def test_settings_alone_go_back_with_the_file_of_before(macs: Fleet) -> None:
    macs.names(OLD)
    macs.desired["kv_cache_type"] = "f16"
    assert outcomes(macs.apply())["mac-1"] == "changed"
    macs.desired["kv_cache_type"] = "turbo4"
    macs.servers["mac-2"].does(error="5 disk-full")
    report = macs.apply()
    assert outcomes(report)["mac-1"] == "changed reverted"
    assert (macs.servers["mac-1"].state / "settings").read_text() == "f16"
    assert "kv_cache_type=f16" in (macs.servers["mac-1"].home / ".turboquant/fleet/desired").read_text()


def test_another_key_an_absent_host_and_a_first_installation(macs: Fleet, tmp_path: Path) -> None:
    macs.entries[0]["fingerprint"] = fingerprint(generate(tmp_path / "other"))
    macs.entries[1]["port"] = free_port()
    macs.servers["mac-3"].reset("")
    macs.entries[2]["folder"] = "a place's $(touch pwned)"
    for entry in macs.entries:
        entry["wave"] = 1
    report = macs.apply()
    assert outcomes(report) == {"mac-1": "rejected", "mac-2": "unreachable", "mac-3": "changed"}
    assert report.end == "done"
    assert isinstance(report.failure(), HostKeyRejected)
    assert macs.servers["mac-1"].verbs == []
    attempts = {one.name: one.attempts for one in report.waves[0].hosts}
    assert attempts == {"mac-1": 1, "mac-2": 2, "mac-3": 1}  # who was away is asked again at the end
    assert (macs.servers["mac-3"].home / "a place's $(touch pwned)/tq").exists()
    assert not list(macs.servers["mac-3"].home.rglob("pwned"))
    back = controller.rollback(macs.run())
    assert outcomes(back)["mac-3"] == "changed nothing-before"
    assert macs.servers["mac-3"].active == NEW


def test_a_wave_that_nobody_of_is_reached_halts(macs: Fleet) -> None:
    macs.entries[0]["port"] = free_port()
    report = macs.apply()
    assert outcomes(report) == {"mac-1": "unreachable", "mac-2": "waiting", "mac-3": "waiting"}
    assert isinstance(report.failure(), HostUnreachable)


def test_a_host_that_vanishes_in_the_middle_is_unreachable_and_not_failed(macs: Fleet) -> None:
    macs.entries[0]["wave"] = 2
    macs.rollout |= AT_ONCE
    macs.servers["mac-1"].does(die=NEW)
    report = macs.apply()
    macs.servers["mac-1"].stop()
    macs.servers["mac-1"].start()
    assert outcomes(report) == {"mac-1": "unreachable", "mac-2": "changed", "mac-3": "changed"}
    assert "lost while tq changed it" in report.waves[0].hosts[0].message
    assert report.failure() is None
    assert outcomes(macs.apply())["mac-1"] == "changed"


def test_a_channel_that_moves_meanwhile_halts(macs: Fleet) -> None:
    macs.servers["mac-2"].does(names="release-3")
    report = macs.apply()
    assert outcomes(report) == {"mac-1": "changed reverted", "mac-2": "failed", "mac-3": "waiting"}
    assert "names release-3 now, and this rollout is of release-2" in report.halted_because


def test_several_at_once_after_the_canary(macs: Fleet) -> None:
    for entry in macs.entries:
        entry["wave"] = 1
    for server in macs.servers.values():
        server.does(slow=1)
    macs.rollout["max_parallel"] = 3
    report = macs.apply()
    kinds = [(event.event, event.host) for event in controller.find(macs.run()).events() if event.host]
    assert kinds.index(("ended", "mac-1")) < kinds.index(("begun", "mac-2"))
    assert kinds.index(("begun", "mac-3")) < kinds.index(("ended", "mac-2"))
    assert report.failure() is None


def test_a_host_that_is_too_slow_halts(macs: Fleet) -> None:
    with generating(tokens_per_second=7.5) as port:
        macs.desired |= {"port": port, "host": "0.0.0.0"}
        macs.rollout |= {"min_tokens_per_second": 20, "speed_model": "gemma3:4b", "max_failures": 3}
        report = macs.apply()
    assert outcomes(report) == {"mac-1": "failed reverted", "mac-2": "waiting", "mac-3": "waiting"}
    assert report.halted_because == "mac-1: under the floor of tokens per second: 7.5 tokens/s, not 20"


def test_sudo_is_asked_for_no_password(macs: Fleet) -> None:
    del macs.entries[1:]
    macs.entries[0] |= {"sudo": True, "folder": "of root"}
    sudo = macs.servers["mac-1"].folder / "bin/sudo"  # models `sudo -n -H` of an account with NOPASSWD, and another
    sudo.write_text('#!/bin/sh\n[ "$1 $2" = "-n -H" ] || exit 9\nshift 2\necho "$1" >>"$HOME/sudo.log"\nexec "$@"\n')
    sudo.chmod(0o755)
    assert outcomes(macs.apply()) == {"mac-1": "changed"}
    assert set((macs.servers["mac-1"].home / "sudo.log").read_text().split()) == {"sh"}
    macs.names("release-3")
    sudo.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    report = macs.apply()
    assert "a password is required" in report.halted_because
    assert report.waves[0].hosts[0].error == "sudo"
    sudo.unlink()


def test_what_is_unfinished_is_not_mixed_with_another(macs: Fleet) -> None:
    run = macs.run()
    found, kit = controller.loaded(run)
    assert kit.tq
    controller._begin(run, found, "release-9", "another")
    with pytest.raises(InventoryInvalid, match="is unfinished, and this is another one"):
        macs.apply()
    with held(controller.home(run) / "lock", "x", hint=""), pytest.raises(LockHeld):
        macs.apply()
    assert {server.active for server in macs.servers.values()} == {OLD}
    assert outcomes(macs.apply(NEW, abandon=True))["mac-1"] == "changed"
    first, second = journal.rollouts(controller.home(run))
    assert (first.state.end, second.state.end) == ("abandoned", "done")


def test_the_page_shows_what_hosts_say_and_runs_none_of_it(macs: Fleet) -> None:
    del macs.entries[1:]
    macs.servers["mac-1"].does(error="30 <script>alert(1)</script>")
    report = macs.apply()
    page = (Path(report.folder) / "report.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert not [part for part in ("http://", "https://", "src=", "@import", "url(") if part in page]
    assert json.loads((Path(report.folder) / "report.json").read_text())["halted_wave"] == 1
