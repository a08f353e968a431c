from __future__ import annotations

import json
import os
import re
import socket
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.processes import alive, ended
from toolchain.core.errors import ModelLoadFailed, PortInUse, ReleaseInvalid, ServerFailed
from toolchain.serving.ollama_server import Server, serve

from .conftest import MakeRelease


def _serve(release: Path, tmp_path: Path, **changes: Any) -> AbstractContextManager[Server]:
    arguments: dict[str, Any] = {
        "version": "9.9.9",
        "home": tmp_path / "home",
        "log": tmp_path / "logs" / "server.log",
        "environment": {"OLLAMA_KV_CACHE_TYPE": "turbo4"},
        "timeout_s": 20,
    }
    return serve(release, **(arguments | changes))


def test_the_environment_is_its_own(make_release: MakeRelease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_CACHE_TYPE_K", "q4_0")
    monkeypatch.setenv("OLLAMA_FLASH_ATTENTION", "0")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with _serve(make_release(), tmp_path) as server:
        said = server.said_since(0, until="environment:")
        assert server.client.version() == "9.9.9"
        server.check_alive()
    names = set(json.loads(said.partition("environment: ")[2].splitlines()[0]))
    assert {"HOME", "OLLAMA_HOST", "OLLAMA_MODELS", "OLLAMA_KV_CACHE_TYPE"} <= names
    assert not names & {"LLAMA_ARG_CACHE_TYPE_K", "OLLAMA_FLASH_ATTENTION", "HTTP_PROXY"}


@pytest.mark.parametrize("fail", [False, True])
def test_nothing_outlives_it(make_release: MakeRelease, tmp_path: Path, fail: bool) -> None:
    """Children in its process group and children that left it, after a good end and after an exception."""
    try:
        with _serve(make_release(child=True), tmp_path) as server:
            pid, base_url = server.pid, server.client.base_url
            said = server.said_since(0, until="child:")
            children = [int(child) for child in re.findall(r"child: (\d+)", said)]
            assert len(children) == 2
            assert os.getpgid(children[0]) == pid
            assert os.getpgid(children[1]) == children[1]
            assert all(alive(child) for child in (pid, *children))
            if fail:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fail
    assert all(ended(child) for child in (pid, *children))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(base_url.rpartition(":")[2]))) != 0


def test_said_since_gives_whole_lines_and_stops_waiting(make_release: MakeRelease, tmp_path: Path) -> None:
    with _serve(make_release(), tmp_path) as server:
        mark = server.mark()
        server.client.names()
        assert "/api/tags" in server.said_since(mark, until="/api/tags 200")
        with server.log.open("a") as log:
            log.write("half a li")
        assert "half" not in server.said_since(mark, until="/api/tags 200")


def test_a_port_in_use(make_release: MakeRelease, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortInUse, match=f"127.0.0.1:{port}"), _serve(make_release(), tmp_path, port=port):
            pytest.fail("it started")
    assert not (tmp_path / "logs").exists()


def test_a_port_that_is_lost_between_the_check_and_the_start(make_release: MakeRelease, tmp_path: Path) -> None:
    with pytest.raises(PortInUse), _serve(make_release(die="bind"), tmp_path):
        pytest.fail("it started")


def test_a_port_of_choice_can_be_taken_again_at_once(make_release: MakeRelease, tmp_path: Path) -> None:
    release = make_release()
    with _serve(release, tmp_path) as server:
        port = int(server.client.base_url.rpartition(":")[2])
    with _serve(release, tmp_path, port=port) as server:
        assert server.client.base_url == f"http://127.0.0.1:{port}"


def test_one_that_dies_at_the_start(make_release: MakeRelease, tmp_path: Path) -> None:
    started = time.monotonic()
    release, reason = make_release(die="start"), r"ended with 1(.|\n)*the scripted start failed"
    with pytest.raises(ServerFailed, match=reason), _serve(release, tmp_path):
        pytest.fail("it started")
    assert time.monotonic() - started < 10


def test_one_that_dies_later(make_release: MakeRelease, tmp_path: Path) -> None:
    with _serve(make_release(die="generate"), tmp_path) as server:
        with pytest.raises(ServerFailed) as caught:
            server.client.generate("any", "a", 1)
        assert "no answer" in caught.value.message
        death = server.explain(caught.value)
        assert type(death) is ServerFailed
        assert "ended with 134" in death.message
        assert "the scripted end" in death.message


def test_explain_adds_what_the_log_complains_about(make_release: MakeRelease, tmp_path: Path) -> None:
    with _serve(make_release(), tmp_path) as server:
        with server.log.open("a") as log:
            log.write('error while handling argument "-ctk"\ntime=now level=INFO error=noise\nfine\n')
        explained = server.explain(ModelLoadFailed("exit status 1", hint="try"))
        assert type(explained) is ModelLoadFailed
        assert explained.message == 'exit status 1\n    error while handling argument "-ctk"'
        assert explained.hint == "try"


def test_another_version_answers(make_release: MakeRelease, tmp_path: Path) -> None:
    release, reason = make_release(version="1.2.3"), r"'1\.2\.3' answers, expected '9\.9\.9'"
    with pytest.raises(ServerFailed, match=reason), _serve(release, tmp_path):
        pytest.fail("it was taken for ready")


def test_no_binary(tmp_path: Path) -> None:
    with pytest.raises(ReleaseInvalid, match="bin/ollama"), _serve(tmp_path, tmp_path):
        pytest.fail("it started")


def test_a_binary_for_another_machine(make_release: MakeRelease, tmp_path: Path) -> None:
    release = make_release()
    (release / "bin" / "ollama").write_bytes(b"\xca\xfe\xba\xbe" + bytes(64))
    with pytest.raises(ServerFailed, match="cannot be started"), _serve(release, tmp_path):
        pytest.fail("it started")
