from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.verify.conftest import write_release
from toolchain.core.errors import ModelLoadFailed, ServerFailed
from toolchain.serving.ollama import OllamaClient
from toolchain.serving.ollama_server import Server, serve
from toolchain.serving.probe_model import write_probe

Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a scripted server with the given behaviour; it lives as long as the test."""
    with ExitStack() as stack:

        def started(**behaviour: Any) -> Server:
            folder = tmp_path / f"release-{len(list(tmp_path.iterdir()))}"
            release = write_release(folder, **behaviour)
            context = serve(
                release, version="9.9.9", home=folder / "home", log=folder / "log", environment={}, timeout_s=10
            )
            return stack.enter_context(context)

        yield started


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    path = tmp_path / "probe.gguf"
    write_probe(path, head_size=64, heads=2, kv_heads=1, layers=1, context=256, seed=1)
    return path


@pytest.fixture
def nobody() -> str:
    """The URL of a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def test_the_life_of_a_model(start: Start, probe: Path) -> None:
    server = start()
    client = OllamaClient(server.client.base_url + "/", 10)
    assert client.version() == "9.9.9"
    assert client.names() == ()
    client.create_from_gguf("probe", probe)
    client.create_from_gguf("again", probe)
    assert client.names() == ("again:latest", "probe:latest")
    log = server.said_since(0, until="/api/tags 200")
    assert log.count("POST /api/blobs/") == 1, "the second import uploads nothing"

    made = client.generate("probe", "hello", 4, {"num_ctx": 256})
    assert (made.text, made.eval_count, made.prompt_eval_count, made.done_reason) == ("xxxx", 4, 6, "length")
    assert made.load_s == 0.25

    client.delete("again")
    assert client.names() == ("probe:latest",)
    with pytest.raises(ServerFailed, match="model 'again' not found"):
        client.delete("again")


def test_the_operators_proxy_is_not_asked(start: Start, nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, nobody)
    assert start().client.version() == "9.9.9"


def test_a_model_that_cannot_be_loaded(start: Start, probe: Path) -> None:
    client = start(unloadable=["f16"]).client
    with pytest.raises(ModelLoadFailed, match="model 'probe' not found"):
        client.generate("probe", "a", 1, {"num_ctx": 256})
    client.create_from_gguf("probe", probe)
    with pytest.raises(ModelLoadFailed, match="llama-server process has terminated: exit status 1"):
        client.generate("probe", "a", 1, {"num_ctx": 256})


def test_a_file_that_is_no_gguf(start: Start, tmp_path: Path) -> None:
    text = tmp_path / "model.gguf"
    text.write_text("not a model")
    client = start().client
    with pytest.raises(ModelLoadFailed, match="not in GGUF format"):
        client.create_from_gguf("text", text)
    assert client.names() == ()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("html", "not an Ollama"),
        ("cut", "broke off after 1 characters"),
        ("error", "the runner was lost"),
        ("drip", "not finished after 0.5 s"),
    ],
)
def test_an_answer_that_is_none(start: Start, answer: str, reason: str) -> None:
    client = OllamaClient(start(answer=answer).client.base_url, 0.5)
    started = time.monotonic()
    with pytest.raises(ServerFailed, match=reason):
        client.generate("any", "a", 1)
    assert time.monotonic() - started < 5


def test_nobody_there(nobody: str, probe: Path) -> None:
    client = OllamaClient(nobody, 5)
    for call in (
        client.version,
        client.names,
        lambda: client.generate("any", "a", 1),
        lambda: client.create_from_gguf("any", probe),
        lambda: client.delete("any"),
    ):
        with pytest.raises(ServerFailed, match=rf"{nobody}.*refused"):
            call()


def test_a_listener_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = OllamaClient(f"http://127.0.0.1:{listener.getsockname()[1]}", 0.2)
        with pytest.raises(ServerFailed, match="timed out"):
            client.version()


def test_waiting_ends_with_the_time(nobody: str) -> None:
    started = time.monotonic()
    with pytest.raises(ServerFailed, match=r"refused \(waited 0\.3 s\)"):
        OllamaClient(nobody, 5).wait_until_ready(0.3)
    assert 0.3 <= time.monotonic() - started < 3


def test_waiting_ends_when_the_process_is_gone(nobody: str) -> None:
    calls = 0

    def check_alive() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ServerFailed("it is gone")

    with pytest.raises(ServerFailed, match=r"^it is gone$"):
        OllamaClient(nobody, 5).wait_until_ready(60, check_alive=check_alive)


def test_waiting_takes_no_other_version(start: Start) -> None:
    client = start().client
    assert client.wait_until_ready(5) == client.wait_until_ready(5, version="9.9.9") == "9.9.9"
    started = time.monotonic()
    with pytest.raises(ServerFailed, match=r"'9\.9\.9' answers, expected '9\.9\.9-turbo1'"):
        client.wait_until_ready(60, version="9.9.9-turbo1")
    assert time.monotonic() - started < 5
