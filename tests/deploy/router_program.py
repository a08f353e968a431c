"""The part of the small llama-server that serves several models, by one more process of it for each, as llama.cpp does.

The tests install it beside llama_server_program.py, which runs it when it is given presets in place of a model.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

EXIT = "exit\n"
_BLANKS = " \t"


def canonical(section: str) -> str:
    """Of a name with a tag, llama.cpp keeps the tag's last word, in capitals."""
    head, colon, tag = section.rpartition(":")
    found = re.search(r"[-.]([A-Za-z0-9_]+)$", tag)
    return head + colon + (found[1] if found else tag).upper() if colon else section


def read(path: Path) -> dict[str, dict[str, str]]:
    """Sections of options, as llama.cpp reads them: a value ends before ; and #."""
    found: dict[str, dict[str, str]] = {}
    now: dict[str, str] = {}
    for line in path.read_text().split("\n"):
        text = re.split("[;#]", line)[0].strip(_BLANKS)
        if header := re.fullmatch(r"\[([^\]]+)\]", text):
            now = found[canonical(header[1].strip(_BLANKS))] = {}
        elif "=" in text:
            key, _, value = text.partition("=")
            now[key.strip(_BLANKS)] = value.strip(_BLANKS)
    shared = found.pop("*", {})
    return {section: shared | options for section, options in found.items()}


class Router:
    """The models, and the processes of those in memory."""

    def __init__(self, behaviour: dict[str, Any]) -> None:
        self.behaviour = behaviour
        self.presets = read(Path(os.environ["LLAMA_ARG_MODELS_PRESET"]))
        if behaviour["does"] == "lose-model":
            self.presets.popitem()
        self._most = int(os.environ["LLAMA_ARG_MODELS_MAX"])
        self._children: dict[str, tuple[subprocess.Popen[str], int]] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> str:
        """The section of that name or alias; empty if there is none."""
        aliases = {alias: section for section, one in self.presets.items() for alias in one["alias"].split(",")}
        return name if name in self.presets else aliases.get(name, "")

    def listed(self) -> list[dict[str, Any]]:
        return [
            {
                "id": section,
                "aliases": sorted(options["alias"].split(",")),
                "status": {"value": "loaded" if self._running(section) else "unloaded"},
            }
            for section, options in self.presets.items()
        ]

    def port(self, section: str) -> int:
        """That of the model's process, which is started if it does not run. 0: it does not start."""
        with self._lock:
            if not self._running(section):
                while sum(map(self._running, self._children)) >= self._most:
                    self._end(next(one for one in self._children if self._running(one)))
                self._children.pop(section, None)
                self._children[section] = self._start(section)
            return self._children[section][1]

    def close(self) -> None:
        for section in list(self._children):
            self._end(section)

    def _start(self, section: str) -> tuple[subprocess.Popen[str], int]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        names = list(self.presets)
        other = names[names.index(section) - 1] if self.behaviour["does"] == "swap-models" else section
        given = {"HOST": "127.0.0.1", "PORT": port, "ALIAS": section, "MODEL": self.presets[other]["model"]}
        say(f"I srv          load: spawning server instance with name={section} on port {port}")
        child = subprocess.Popen(
            [sys.argv[0]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **{f"LLAMA_ARG_{key}": str(value) for key, value in given.items()},
                 "LLAMA_SERVER_ROUTER_PORT": os.environ["LLAMA_ARG_PORT"]},
        )  # fmt: skip
        threading.Thread(target=_forward, args=(child, port), daemon=True).start()
        return child, port

    def _running(self, section: str) -> bool:
        return section in self._children and self._children[section][0].poll() is None

    def _end(self, section: str) -> None:
        child, _ = self._children[section]
        if child.poll() is None and child.stdin:
            child.stdin.write(EXIT)
            child.stdin.close()
        child.wait()


def _forward(child: "subprocess.Popen[str]", port: int) -> None:
    for line in child.stdout or ():
        sys.stdout.write(f"[{port:5}] {line}")
        sys.stdout.flush()


def say(line: str) -> None:
    sys.stdout.write(f"0.00.191.264 {line}\n")
    sys.stdout.flush()


class Handler(BaseHTTPRequestHandler):
    router: Router

    def do_OPTIONS(self) -> None:
        self._answer(200, {})

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        model = urllib.parse.parse_qs(query).get("model", [""])[0]
        if path == "/health":
            self._answer(200, {"status": "ok"})
        elif path == "/v1/models":
            self._answer(200, {"object": "list", "data": self.router.listed()})
        elif not self._has_key():
            self._answer(401, {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}})
        elif path == "/props" and not model:
            build = self.router.behaviour["build"]
            self._answer(200, {"role": "router", "model_path": "none", "build_info": f"b{build}-0123456"})
        else:
            self._proxy(model, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._has_key():
            self._answer(401, {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}})
        else:
            self._proxy(json.loads(body).get("model", ""), body)

    def _has_key(self) -> bool:
        keys = os.environ.get("LLAMA_API_KEY", "")
        return not keys or (self.headers["Authorization"] or "").removeprefix("Bearer ") in keys.split(",")

    def _proxy(self, name: str, body: bytes) -> None:
        section = self.router.find(name)
        if not section:
            self._answer(400, {"error": {"code": 400, "message": f"model '{name}' not found"}})
            return
        url = f"http://127.0.0.1:{self.router.port(section)}"
        key = {"Authorization": self.headers["Authorization"] or ""}
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=10).close()
                    break
                except urllib.error.HTTPError:  # it is loading
                    threading.Event().wait(0.05)
                except urllib.error.URLError:
                    if not self.router._running(section):
                        raise
                    threading.Event().wait(0.05)
            asked = urllib.request.Request(f"{url}{self.path.partition('?')[0]}", body or None, key)
            with urllib.request.urlopen(asked, timeout=30) as answer:
                self._answer(answer.status, json.load(answer))
        except urllib.error.HTTPError as error:
            self._answer(error.code, json.load(error))
        except (OSError, ValueError):
            self._answer(500, {"error": {"code": 500, "message": f"model name={section} failed to load"}})

    def _answer(self, status: int, data: dict[str, Any]) -> None:
        text = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Quiet: the log belongs to what the tests look for."""


def follow_the_router() -> None:
    """End with the router, which holds the other end of stdin."""

    def wait() -> None:
        os._exit(0 if sys.stdin.readline() == EXIT else 1)

    threading.Thread(target=wait, daemon=True).start()


def main(behaviour: dict[str, Any]) -> int:
    if behaviour["does"] == "no-router":
        say("E srv  llama_server: failed to initialize router models: subprocess is not enabled on this build")
        return 1
    Handler.router = Router(behaviour)
    server = ThreadingHTTPServer((os.environ["LLAMA_ARG_HOST"], int(os.environ["LLAMA_ARG_PORT"])), Handler)

    def stop(*_: object) -> None:
        Handler.router.close()
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever()
    return 0
