"""A stand-in for Ollama's server, installed by the tests as bin/ollama of a small release.

It is a real process that listens on OLLAMA_HOST and answers the calls that a health check makes, with what Ollama
would answer: blobs are held against their digest, an import needs a GGUF file, and a cache type that the release
does not have fails every generation. Its fault is named in lib/ollama/behaviour.json; faults_program.py, which lies
beside that, has those of what it sends, and of its processes.
"""

import contextlib
import hashlib
import importlib.util
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
UPSTREAM_TYPES = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
BYTES = {**UPSTREAM_TYPES, **BEHAVIOUR["types"]}
"""of a value"""
KV_WIDTH = 128

_spec = importlib.util.spec_from_file_location("faults", RELEASE / "lib/ollama/faults_program.py")
assert _spec
assert _spec.loader
faults = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(faults)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    blobs: ClassVar[dict[str, bytes]] = {}
    models: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        if faults.answer(BEHAVIOUR["does"], self):
            return
        if self.path == "/api/version":
            self._answer(200, {"version": BEHAVIOUR["answers"]})
        elif self.path == "/api/ps":
            self._answer(200, {"models": []})
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
            if not faults.answer(BEHAVIOUR["does"], self):
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
        elif any(kind not in BYTES for kind in wanted.split(":")):
            self._answer(500, {"error": f"unknown cache type {wanted}"})
        elif BEHAVIOUR["does"] == "fail-to-generate":
            self._answer(500, {"error": "llama runner process has terminated"})
        else:
            if BEHAVIOUR["does"] not in faults.SILENT:
                data = self.blobs[self.models[request["model"]]]
                place = data.index(b"llama.block_count") + len(b"llama.block_count") + 4  # after the type of the value
                layers = int.from_bytes(data[place : place + 4], "little")
                _say(cache_line("f16" if BEHAVIOUR["does"] == "use-f16" else wanted, request["options"], layers))
            count = request["options"]["num_predict"]
            last = {"response": "", "done": True, "eval_count": count}
            lines = [{"response": "x", "done": False}] * count + [last]
            body = "".join(json.dumps(line) + "\n" for line in lines).encode()
            self._send(200, faults.changed(BEHAVIOUR["does"], body))

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


def cache_line(kinds: str, options: dict[str, Any], layers: int) -> str:
    """As llama-server states a cache."""
    type_k, _, type_v = kinds.partition(":")
    type_v = type_v or type_k
    mib = [options["num_ctx"] * layers * KV_WIDTH * BYTES[kind] / (1 << 20) for kind in (type_k, type_v)]
    return (
        f"llama_kv_cache: size = {sum(mib):7.2f} MiB ({options['num_ctx']:6} cells, {layers:3} layers,  1/1 seqs), "
        f"K ({type_k}): {mib[0]:7.2f} MiB, V ({type_v}): {mib[1]:7.2f} MiB"
    )


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # a full disk: Ollama ignores it, too
        os.write(1, f"{line}\n".encode())


def main() -> int:
    if sys.argv[1:] != ["serve"]:
        return 2
    _say(f"started {RELEASE.name} with {os.environ.get('OLLAMA_KV_CACHE_TYPE')}")
    if BEHAVIOUR["does"] == "exit":
        _say("error: \x1b[31mcannot load the library\x1b[0m")
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
    faults.begin(BEHAVIOUR["does"], lambda layers, cells: _say(cache_line("turbo4", {"num_ctx": cells}, layers)))
    host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
    if BEHAVIOUR["does"] == "wrong-port":
        port = "0"
    try:
        server = ThreadingHTTPServer((host, int(port)), Handler)
    except OSError as error:
        _say(f"Error: listen tcp {host}:{port}: {error.strerror}")
        return 1
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
