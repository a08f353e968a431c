"""A connection to a real sshd: the host's key is checked before anything else, every word arrives as it is."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.deploy.site import free_port
from toolchain.core.deadline import Deadline
from toolchain.core.delivery_errors import HostKeyRejected, InventoryInvalid
from toolchain.fleet import inventory
from toolchain.fleet.connection import Answer, Remote, TimedOut, Unreachable, check_known_hosts
from toolchain.fleet.inventory import Host
from toolchain.publishing.keyfiles import generate

from .fleets import Fleet
from .servers import Server, fingerprint, needs_sshd

pytestmark = needs_sshd
HOSTILE = (
    "", " ", "$(touch pwned)", "`touch pwned`", "; touch pwned", "'", "'; touch pwned #", '"$HOME"', "\\", "\\'",
    "a\nb", "*", "~", "-n", "--", "!!", "$'x'", "&& touch pwned", "| touch pwned", "ü 漢 \u202e", "%s%n", "{a,b}", "\t",
)  # fmt: skip


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet of one host, which all tests here share."""
    fleet = Fleet.make(tmp_path_factory.mktemp("connection"))
    fleet.host("mac-1")
    yield fleet
    fleet.close()


@pytest.fixture
def host(one: Fleet) -> Host:
    return inventory.load(one.write()).hosts[0]


@pytest.fixture
def server(one: Fleet) -> Server:
    return one.servers["mac-1"]


def ask(host: Host, *words: str, given: bytes = b"", timeout_s: float = 20.0) -> Answer:
    with Remote(host, Deadline(30), 5.0) as remote:
        return remote.run(words, given=given, timeout_s=timeout_s)


def logins(server: Server) -> int:
    return (server.folder / "sshd.log").read_text().count("Accepted publickey")


def test_words_and_bytes_arrive_as_they_are(host: Host, server: Server) -> None:
    answer = ask(host, "printf", "%s\\0", *HOSTILE)
    assert answer.stdout == "".join(f"{word}\0" for word in HOSTILE)
    assert not list(server.home.rglob("pwned"))
    data = bytes(range(256)) * 8192  # more than the channel's window
    answer = ask(
        host, "sh", "-c", '$(command -v sha256sum || echo shasum -a 256); echo "a line" >&2; exit 7', given=data
    )
    assert (answer.code, answer.stderr) == (7, "a line\n")
    assert answer.stdout.split()[0] == hashlib.sha256(data).hexdigest()
    assert ask(host, "cat", given=data[:65536]).stdout == data[:65536].decode(errors="replace")


def test_another_key_gets_no_login_and_no_command(host: Host, server: Server, tmp_path: Path) -> None:
    before, other = logins(server), fingerprint(generate(tmp_path / "other"))
    with pytest.raises(HostKeyRejected) as error:
        ask(replace(host, fingerprints=(other,)), "touch", f"{server.home}/pwned")
    assert error.value.exit_code == 76
    assert all(part in error.value.message for part in ("mac-1", server.fingerprint, other))
    assert logins(server) == before
    assert not (server.home / "pwned").exists()


def test_one_of_several_keys_is_enough(host: Host, tmp_path: Path) -> None:
    other = fingerprint(generate(tmp_path / "other"))
    assert ask(replace(host, fingerprints=(other, *host.fingerprints)), "true").code == 0


def test_known_hosts_is_read_and_never_written(host: Host, server: Server, tmp_path: Path) -> None:
    known, kind = tmp_path / "known_hosts", (server.folder / "host_key.pub").read_text()
    by_file = replace(host, fingerprints=(), known_hosts=str(known))
    for text, accepted in (
        (f"[127.0.0.1]:{server.port} {kind}", True),
        ("", False),  # an unknown host: Fabric would accept it
        (f"[127.0.0.1]:{server.port} {generate(tmp_path / 'other').with_suffix('.pub').read_text()}", False),
        (f"127.0.0.1 {kind}", False),  # of another port
    ):
        known.write_text(text)
        if accepted:
            assert ask(by_file, "true").code == 0
        else:
            with pytest.raises(HostKeyRejected, match="known_hosts"):
                ask(by_file, "true")
        assert known.read_text() == text
    known.write_text(f"@revoked * {kind}[127.0.0.1]:{server.port} {kind}")
    with pytest.raises(InventoryInvalid, match="@revoked"):
        check_known_hosts(by_file)


def test_what_this_machine_says_of_hosts_is_not_followed(
    host: Host, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text(f"Host *\n  Port {free_port()}\n  User nobody\n  ProxyJump jump@127.0.0.1\n")
    (tmp_path / ".fabric.yaml").write_text("gateway: nobody@127.0.0.1\n")
    (tmp_path / ".ssh/known_hosts").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FABRIC_GATEWAY", "nobody@127.0.0.1")
    assert ask(host, "printenv", "HOME").stdout == f"{server.home}\n"


def test_a_host_that_does_not_answer_is_unreachable(host: Host, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1 port \d+: Connection refused"):
        ask(replace(host, port=free_port()), "true")
    with pytest.raises(Unreachable, match=r"address|resol|not known|lookup"):
        ask(replace(host, address="nowhere.invalid"), "true")
    with pytest.raises(Unreachable, match=r"login as .* refused"):
        ask(replace(host, key=str(generate(tmp_path / "stranger"))), "true")


def test_a_command_has_a_limit(host: Host) -> None:
    started = time.monotonic()
    with pytest.raises(TimedOut, match="no answer within 1 s"):
        ask(host, "sleep", "60", timeout_s=1)
    assert time.monotonic() - started < 20


def test_what_a_command_leaves_running_does_not_hold_it(host: Host) -> None:
    assert ask(host, "sh", "-c", "sleep 15 & echo started").stdout == "started\n"


def test_lines_of_stderr_come_as_they_are_written(host: Host) -> None:
    came: list[str] = []
    seen = threading.Event()

    def add(line: str) -> None:
        came.append(line)
        seen.set()

    with Remote(host, Deadline(30), 5.0) as remote:
        waiting = threading.Thread(
            target=remote.run, args=[("sh", "-c", 'printf "\\033[31mred\\nrest" >&2; read go; echo end >&2')],
            kwargs={"given": b"", "timeout_s": 20.0, "on_line": add},
        )  # fmt: skip
        waiting.start()
        assert seen.wait(20)
        waiting.join(20)
    assert came[0] == "red"


def test_a_connection_that_breaks_is_named_and_made_anew(host: Host, server: Server) -> None:
    with Remote(host, Deadline(60), 5.0) as remote:
        cut = threading.Thread(target=server.cut, args=[server.home / "ready"])
        cut.start()
        with pytest.raises(Unreachable, match="the connection broke"):
            remote.run(("sh", "-c", ': >"$HOME/ready"; sleep 60'), timeout_s=20)
        cut.join(20)
        assert remote.run(("echo", "back"), timeout_s=20).stdout == "back\n"


def test_a_signal_is_no_answer_of_the_command(host: Host) -> None:
    assert ask(host, "sh", "-c", "kill -9 $$").code < 0
