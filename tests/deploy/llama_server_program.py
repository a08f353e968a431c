"""A small server that answers as llama-server does, installed by the tests as lib/ollama/llama-server.

It is a real process that takes its settings from llama-server's own variables, loads for a moment, and states its
caches as llama.cpp does. Its faults are configured in behaviour.json beside it.
"""

import importlib.util
import itertools
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BEHAVIOUR = json.loads(Path(__file__).with_name("behaviour.json").read_text())
BEHAVIOUR_ANSWERS: dict[str, dict[str, Any]] = {
    "null-count": {"tokens_predicted": None},
    "text-count": {"tokens_predicted": "four"},
    "empty-text": {"content": ""},
}
LOADING_S = 0.2
LAYERS = 3
_loaded = threading.Event()


class Handler(BaseHTTPRequestHandler):
    def do_OPTIONS(self) -> None:
        self._answer(200, {})

    def do_GET(self) -> None:
        if not _loaded.is_set():
            self._answer(503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}})
        elif self.path == "/health":
            self._answer(200, {"status": "ok"})
        elif self.path == "/v1/models":
            self._answer(200, {"object": "list", "data": [{"id": _setting("ALIAS")}]})
        elif not self._has_key():
            self._answer(401, {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}})
        elif self.path == "/props":
            model = "/another/model.gguf" if BEHAVIOUR["does"] == "another-model" else _setting("MODEL")
            self._answer(200, {"build_info": f"b{BEHAVIOUR['build']}-0123456", "model_path": model})
        else:
            self._answer(404, {"error": {"code": 404, "message": "File Not Found"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._has_key():
            self._answer(401, {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}})
        elif self.path != "/completion":
            self._answer(404, {"error": {"code": 404, "message": "File Not Found"}})
        elif BEHAVIOUR["does"] == "fail-to-generate":
            self._answer(500, {"error": {"code": 500, "message": "Compute error."}})
        else:
            answer = {"content": "x" * body["n_predict"], "tokens_predicted": body["n_predict"]}
            self._answer(200, answer | BEHAVIOUR_ANSWERS.get(BEHAVIOUR["does"], {}))

    def _has_key(self) -> bool:
        keys = os.environ.get("LLAMA_API_KEY", "")
        return not keys or (self.headers["Authorization"] or "").removeprefix("Bearer ") in keys.split(",")

    def _answer(self, status: int, data: dict[str, Any]) -> None:
        text = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Quiet: the log belongs to what the tests look for."""


def _setting(name: str) -> str:
    return os.environ[f"LLAMA_ARG_{name}"]


def _say(line: str) -> None:
    sys.stdout.write(f"0.00.191.264 I {line}\n")
    sys.stdout.flush()


def _load() -> None:
    time.sleep(LOADING_S)
    sides = {side: _layers(_setting(f"CACHE_TYPE_{side}")) for side in "KV"}
    if BEHAVIOUR["does"] == "no-line":
        _loaded.set()
        return
    names = {side: "+".join(dict.fromkeys(types)) for side, types in sides.items()}
    _say(
        f"llama_kv_cache: size =    0.14 MiB (   256 cells, {LAYERS:3} layers,  1/1 seqs), "
        f"K ({names['K']}):    0.07 MiB, V ({names['V']}):    0.07 MiB"
    )
    if any("," in _setting(f"CACHE_TYPE_{side}") for side in "KV"):
        for side, types in sides.items():
            for number, kind in enumerate(types):
                _say(f"llama_kv_cache: {side} of attention layers {number} (of {LAYERS}): {kind}, 0.02 MiB")
    _loaded.set()


def _layers(setting: str) -> list[str]:
    """The type of each layer; of the rules only first=N:TYPE is known here."""
    base, _, rule = setting.partition(",first=")
    count, _, other = rule.partition(":")
    if BEHAVIOUR["does"] == "use-f16":
        base = other = "f16"
    return [other] * int(count or 0) + [base] * (LAYERS - int(count or 0))


def _router() -> Any:
    spec = importlib.util.spec_from_file_location("router", Path(__file__).with_name("router_program.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    if "LLAMA_ARG_MODEL" not in os.environ:
        return int(_router().main(BEHAVIOUR))
    if "LLAMA_SERVER_ROUTER_PORT" in os.environ:
        _router().follow_the_router()
    keys = os.environ.get("LLAMA_API_KEY", "").split(",")
    if len(keys) == 1 and keys[0]:
        _say(f"api_keys: ****{keys[0][-4:]}")
    if not Path(_setting("MODEL")).read_bytes().startswith(b"GGUF") or BEHAVIOUR["does"] == "no-load":
        _say("error: failed to load model")
        return 1
    if BEHAVIOUR["does"] == "wait-for-clients":
        signals = itertools.count()
        signal.signal(signal.SIGTERM, lambda *_: os._exit(1) if next(signals) else None)
    threading.Thread(target=_load, daemon=True).start()
    ThreadingHTTPServer((_setting("HOST"), int(_setting("PORT"))), Handler).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
