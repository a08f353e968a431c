"""What a running llama-server says that it has loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.answering import answering
from toolchain.core.variables import SERVE
from toolchain.service import units

MODEL = f"/models/{'long/' * 120}of\u200bmine \x1b[31m.gguf"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        said = {"/health": {"status": "ok"}, "/props": {"build_info": "b7-abc", "model_path": MODEL}}[self.path]
        data = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def port() -> Iterator[int]:
    with answering(ThreadingHTTPServer(("127.0.0.1", 0), _Handler)) as port:
        yield port


def test_a_path_of_any_length_and_letters_is_compared_as_it_is(port: int) -> None:
    given = {SERVE: "llama-server", "LLAMA_ARG_PORT": str(port), "LLAMA_ARG_MODEL": str(Path(MODEL))}
    assert units.choose(given).ready(given) == "b7"
    other = units.choose(given).ready(given | {"LLAMA_ARG_MODEL": "/other"})
    assert other.startswith("b7 with the model /models/long/")
    assert other.isprintable()
    assert other.endswith(", not /other")
