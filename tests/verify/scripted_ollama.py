"""A scripted server for the tests: it takes the place of bin/ollama, speaks the same HTTP, and lies on request.

It really stores blobs, reads the geometry of the imported GGUF, and writes the log lines that llama-server would.
A file behaviour.json beside it says what it does differently; `Behaviour` lists the choices. It generates no text
of a model: every token is the letter x.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BEHAVIOUR: dict[str, Any] = {
    "version": "9.9.9",
    "types": {"f16": [1, 2], "q8_0": [32, 34], "turbo4": [64, 34]},
    "state_type": "",  # the type that the log states, whatever was asked for
    "state_scale": 1.0,  # the size that the log states, against the true one
    "state_rotation": 1,
    "state_cells": 0,
    "shift": True,
    "state_shift": True,
    "missing_tokens": 0,
    "die": "",  # at "start", "bind" or "generate"
    "child": False,  # start a child that would outlive it
    "vague": False,  # answer an unknown type without naming it
    "refuse_nothing": False,  # accept any type
    "unloadable": [],  # types that it knows, and that its llama-server does not
    "gpu": "",  # "used", "cache on the CPU", or "idle", where /api/ps states no memory of a GPU
    "answer": "",  # to /api/generate: "html", "cut", "error" or "drip"
}
BEHAVIOUR |= json.loads((Path(__file__).parent / "behaviour.json").read_text())
STORE = Path(os.environ["OLLAMA_MODELS"])
MIB = 1 << 20


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def load_model(name: str) -> dict[str, int]:
    """The sizes of a model in the store, read from its GGUF."""
    import gguf

    reader = gguf.GGUFReader(STORE / "blobs" / (STORE / "names" / name).read_text())
    keys = {"layers": "block_count", "kv_heads": "attention.head_count_kv", "head_size": "attention.key_length"}
    return {key: int(reader.fields[f"llama.{field}"].contents()) for key, field in keys.items()}


def state_cache(model: dict[str, int], num_ctx: int, type_k: str, type_v: str) -> None:
    """The lines of llama-server's log for a cache of these types."""
    cells = BEHAVIOUR["state_cells"] or -(-num_ctx // 256) * 256
    sizes = []
    for kind in (type_k, type_v):
        block, size = BEHAVIOUR["types"].get(kind, (1, 2))
        values = cells * model["layers"] * model["kv_heads"] * model["head_size"]
        sizes.append(values / block * size / MIB * BEHAVIOUR["state_scale"])
    if BEHAVIOUR["gpu"]:
        where = "CPU" if BEHAVIOUR["gpu"] == "cache on the CPU" else "MTL0"
        say(f"llama_kv_cache: {where:>10} KV buffer size = {sum(sizes):8.2f} MiB")
    stated = [BEHAVIOUR["state_type"] or kind for kind in (type_k, type_v)]
    say(
        f"llama_kv_cache: size = {sum(sizes):7.2f} MiB ({cells:6d} cells, {model['layers']:3d} layers,  1/1 seqs), "
        f"K ({stated[0]}): {sizes[0]:7.2f} MiB, V ({stated[1]}): {sizes[1]:7.2f} MiB"
    )
    say(f"llama_kv_cache: attn_rot_k = {BEHAVIOUR['state_rotation']}, n_embd_head_k_all = {model['head_size']}")
    say(f"llama_kv_cache: attn_rot_v = {BEHAVIOUR['state_rotation']}, n_embd_head_k_all = {model['head_size']}")


class Handler(BaseHTTPRequestHandler):
    loaded: frozenset[str] = frozenset()

    def log_message(self, format: str, *args: Any) -> None:
        say(f"[HTTP] {self.command} {self.path.partition('sha256')[0]} {args[1]}")

    def answer(self, status: int, body: Any = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def lines(self, *lines: dict[str, Any]) -> None:
        self.send_response(200)
        self.end_headers()
        for line in lines:
            self.wfile.write(json.dumps(line).encode() + b"\n")

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def do_HEAD(self) -> None:
        self.answer(200 if (STORE / "blobs" / Path(self.path).name).exists() else 404)

    def do_GET(self) -> None:
        if self.path == "/api/version":
            self.answer(200, {"version": BEHAVIOUR["version"]})
        elif self.path == "/api/tags":
            found = sorted(path.name for path in (STORE / "names").iterdir())
            self.answer(200, {"models": [{"name": f"{name}:latest"} for name in found]})
        elif self.path == "/api/ps":
            used = 9 * MIB if BEHAVIOUR["gpu"] == "used" else 0
            loaded = [{"name": f"{name}:latest", "size_vram": used} for name in Handler.loaded]
            self.answer(200, {"models": loaded})
        else:
            self.answer(404)

    def do_DELETE(self) -> None:
        name = json.loads(self.body())["model"]
        path = STORE / "names" / name
        if not path.exists():
            return self.answer(404, {"error": f"model '{name}' not found"})
        path.unlink()
        return self.answer(200)

    def do_POST(self) -> None:
        body = self.body()
        if self.path.startswith("/api/blobs/"):
            (STORE / "blobs" / Path(self.path).name).write_bytes(body)
            return self.answer(201)
        if self.path == "/api/create":
            return self.create(json.loads(body))
        return self.generate(json.loads(body))

    def create(self, request: dict[str, Any]) -> None:
        (digest,) = request["files"].values()
        if (STORE / "blobs" / digest).read_bytes()[:4] != b"GGUF":
            return self.lines({"status": "parsing GGUF"}, {"error": "supplied file was not in GGUF format"})
        (STORE / "names" / request["model"]).write_text(digest)
        return self.lines({"status": "parsing GGUF"}, {"status": "success"})

    def generate(self, request: dict[str, Any]) -> None:
        if BEHAVIOUR["die"] == "generate":
            say("GGML_ASSERT(the scripted end) failed")
            os._exit(134)
        if BEHAVIOUR["answer"]:
            return self.misbehave(BEHAVIOUR["answer"])
        name, options = request["model"], request["options"]
        if not (STORE / "names" / name).exists():
            return self.answer(404, {"error": f"model '{name}' not found"})
        asked = os.environ.get("OLLAMA_KV_CACHE_TYPE", "f16")
        type_k, _, type_v = asked.partition(":")
        type_v = type_v or type_k
        for kind in (type_k, type_v):
            if kind not in BEHAVIOUR["types"] and not BEHAVIOUR["refuse_nothing"]:
                known = ", ".join(BEHAVIOUR["types"])
                words = f"unknown cache type {kind}: known are {known}"
                return self.answer(500, {"error": "exit status 1" if BEHAVIOUR["vague"] else words})
        if unloadable := {type_k, type_v} & set(BEHAVIOUR["unloadable"]):
            say(f"error while handling argument: Unsupported cache type: {unloadable.pop()}")
            return self.answer(500, {"error": "llama-server process has terminated: exit status 1"})
        if name not in Handler.loaded:
            Handler.loaded |= {name}
            state_cache(load_model(name), options["num_ctx"], type_k, type_v)
        prompt = len(request["prompt"]) + 1
        tokens = options["num_predict"] - BEHAVIOUR["missing_tokens"]
        if prompt + tokens > options["num_ctx"]:
            if not BEHAVIOUR["shift"]:
                tokens = options["num_ctx"] - prompt
            elif BEHAVIOUR["state_shift"]:
                say("slot   operator(): id  0 | task 2 | slot context shift, n_keep = 5, n_left = 506, n_discard = 253")
        counts = {"prompt_eval_count": prompt, "eval_count": tokens, "load_duration": 250_000_000}
        last = {"response": "", "done": True, "done_reason": "length", **counts}
        return self.lines(*({"response": "x", "done": False} for _ in range(tokens)), last)

    def misbehave(self, how: str) -> None:
        if how == "html":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>a router's login page</html>")
        elif how == "cut":
            self.lines({"response": "x", "done": False})
        elif how == "error":
            self.lines({"response": "x", "done": False}, {"error": "the runner was lost"})
        elif how == "drip":
            self.lines()
            while True:
                self.wfile.write(b'{"response": "x", "done": false}\n')
                time.sleep(0.05)


def main() -> None:
    if BEHAVIOUR["die"] == "start":
        sys.exit("Error: the scripted start failed")
    host, port = os.environ["OLLAMA_HOST"].split(":")
    if BEHAVIOUR["die"] == "bind":
        sys.exit(f"Error: listen tcp {host}:{port}: bind: address already in use")
    for folder in ("blobs", "names"):
        (STORE / folder).mkdir(parents=True, exist_ok=True)
    say(f"environment: {json.dumps(sorted(os.environ))}")
    if BEHAVIOUR["child"]:
        child = [sys.executable, "-c", "import time; time.sleep(600)"]
        say(f"child: {subprocess.Popen(child).pid}")
        say(f"child: {subprocess.Popen(child, start_new_session=True).pid}")
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
