"""A llama-server as far as a dump goes: it reads a real GGUF, tokenizes by bytes, and saves a slot of known numbers.

Its keys and values are drawn from the seed 7 in the order of layers, K before V. TQ_TEST_FAIL makes one thing go wrong.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.quality import slots

SEED = 7


def _flag(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def main() -> None:
    fail = os.environ.get("TQ_TEST_FAIL", "")
    fields = gguf.GGUFReader(_flag("--model")).fields
    layers = int(fields["llama.block_count"].contents())
    width = int(fields["llama.attention.head_count_kv"].contents()) * int(
        fields["llama.attention.key_length"].contents()
    )
    assert (_flag("--cache-type-k"), _flag("--cache-type-v"), _flag("--parallel")) == ("f16", "f16", "1")
    if fail == "load":
        sys.exit("error: unknown architecture of the scripted model")
    read: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"status": "ok"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/tokenize":
                self._answer({"tokens": list(body["content"].encode())})
            elif self.path == "/completion":
                if fail == "die":
                    os.write(1, b"fatal: the scripted end\n")
                    os._exit(134)
                if len(body["prompt"]) >= int(_flag("--ctx-size")):
                    self._answer({"error": "exceeds the context"}, 400)
                    return
                read[:] = body["prompt"]
                self._answer({"content": ""})
            else:
                assert self.path == "/slots/0?action=save"
                rng = np.random.default_rng(SEED)
                pairs = [slots.numbers(rng, 2, len(read), width) for _ in range(layers)]
                data = slots.header(read) + slots.cache([k for k, _ in pairs], [v for _, v in pairs], transposed=True)
                kept = data[: len(data) // 2] if fail == "truncate" else data
                Path(_flag("--slot-save-path") + body["filename"]).write_bytes(kept)
                self._answer({"n_written": len(kept if fail == "truncate" else data) + (fail == "short")})

        def _answer(self, body: dict[str, Any], status: int = 200) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    HTTPServer((_flag("--host"), int(_flag("--port"))), Handler).serve_forever()


if __name__ == "__main__":
    main()
