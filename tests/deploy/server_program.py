"""A stand-in for Ollama's server, installed by the tests as bin/ollama of a small release.

It is a real process that listens on OLLAMA_HOST and answers the calls that a health check makes, with what Ollama
would answer: blobs are held against their digest, an import needs a GGUF file, and a cache type that the release
does not have fails every generation. Its faults are configured in lib/ollama/behaviour.json beside it.
"""

import contextlib
import hashlib
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

RELEASE = Path(__file__).resolve().parent.parent
BEHAVIOUR = json.loads((RELEASE / "lib/ollama/behaviour.json").read_text())
UPSTREAM_TYPES = ["f16", "q8_0", "q4_0"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    blobs: ClassVar[dict[str, bytes]] = {}
    models: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        if self.path == "/api/version":
            self._answer(200, {"version": BEHAVIOUR["answers"]})
        elif self.path == "/api/tags":
            self._answer(200, {"models": [{"name": f"{name}:latest"} for name in self.models]})
        else:
            self._answer(404, {"error": "not found"})

    def do_HEAD(self) -> None:
        self.send_response(200 if self.path.removeprefix("/api/blobs/") in self.blobs else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_DELETE(self) -> None:
        name = json.loads(self._body())["model"]
        found = self.models.pop(name, None) is not None
        self._answer(200 if found else 404, {} if found else {"error": f"model '{name}' not found"})

    def do_POST(self) -> None:
        body = self._body()
        if self.path.startswith("/api/blobs/"):
            digest = self.path.removeprefix("/api/blobs/")
            good = digest == f"sha256:{hashlib.sha256(body).hexdigest()}"
            if good:
                self.blobs[digest] = body
            self._answer(201 if good else 400, {} if good else {"error": "digest mismatch"})
        elif self.path == "/api/create":
            self._create(json.loads(body))
        elif self.path == "/api/generate":
            self._generate(json.loads(body))
        else:
            self._answer(404, {"error": "not found"})

    def _create(self, request: dict[str, Any]) -> None:
        digest = next(iter(request["files"].values()))
        if not self.blobs.get(digest, b"").startswith(b"GGUF"):
            self._answer(400, {"error": "unsupported model format"})
            return
        self.models[request["model"]] = digest
        self._answer(200, {"status": "success"})

    def _generate(self, request: dict[str, Any]) -> None:
        wanted = os.environ.get("OLLAMA_KV_CACHE_TYPE", "f16")
        if request["model"] not in self.models:
            self._answer(404, {"error": f"model '{request['model']}' not found"})
        elif any(kind not in BEHAVIOUR["types"] + UPSTREAM_TYPES for kind in wanted.split(":")):
            self._answer(500, {"error": f"unknown cache type {wanted}"})
        elif BEHAVIOUR["does"] == "fail-to-generate":
            self._answer(500, {"error": "llama runner process has terminated"})
        else:
            type_k, _, type_v = ("f16" if BEHAVIOUR["does"] == "use-f16" else wanted).partition(":")
            _say(
                f"llama_kv_cache: size =    0.13 MiB ({request['options']['num_ctx']:6} cells,   2 layers,  1/1 seqs), "
                f"K ({type_k}):    0.07 MiB, V ({type_v or type_k}):    0.07 MiB"
            )
            count = request["options"]["num_predict"]
            lines = [{"response": "x", "done": False}] * count + [{"response": "", "done": True, "eval_count": count}]
            self._send(200, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, data: dict[str, Any]) -> None:
        self._send(status, json.dumps(data).encode())

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet: the log belongs to what the tests look for."""


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # a full disk: Ollama ignores it, too
        os.write(1, f"{line}\n".encode())


def main() -> int:
    if sys.argv[1:] != ["serve"]:
        return 2
    _say(f"started {RELEASE.name} with {os.environ.get('OLLAMA_KV_CACHE_TYPE')}")
    if BEHAVIOUR["does"] == "exit":
        _say("error: cannot load the library")
        return 3
    if BEHAVIOUR["does"] == "sleep":
        time.sleep(600)
    if BEHAVIOUR["does"] == "exit-once":
        marker = Path(os.environ["OLLAMA_MODELS"]) / "started-before"
        if not marker.exists():
            marker.parent.mkdir(exist_ok=True)
            marker.touch()
            return 3
    if BEHAVIOUR["does"].startswith("die-after-"):
        delay = float(BEHAVIOUR["does"].removeprefix("die-after-"))
        threading.Timer(delay, os._exit, [9]).start()
    host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
