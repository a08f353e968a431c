"""llama-server as the service of a real release, as a script: what a client sees of it, step by step.

    .venv/bin/python -m tests.deploy.serving RELEASE RELEASE --model GGUF --openai PYTHON

The first release is installed as Ollama, the second as llama-server with the model by its name in Ollama's store, under
the emulator. PYTHON is an interpreter that has the package `openai`. Each line is one check; 1 if one failed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path

import psutil

from toolchain.core import records
from toolchain.deploy import installer
from toolchain.serving.ollama import OllamaClient
from toolchain.stages import Deployment

from .site import Site, identifier

NAME = "smollm2:135m"
_CHAT = """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2] or "none", max_retries=0)
headers = None if sys.argv[2] else {"Authorization": openai.Omit()}
try:
    done = client.chat.completions.create(
        model=sys.argv[3], max_tokens=24, temperature=0, messages=[{"role": "user", "content": "Say hello."}],
        extra_headers=headers,
    )
except openai.APIStatusError as error:
    print(f"{type(error).__name__} {error.status_code}")
else:
    print(f"answer: {done.choices[0].message.content!r} by {done.model}")
"""


class Checks:
    """Prints each check, and knows whether one failed."""

    failed = 0

    def __call__(self, what: str, good: bool, seen: object = "") -> None:
        self.failed += not good
        sys.stdout.write(f"{'ok    ' if good else 'FAILED'}  {what}{f': {seen}' if seen != '' else ''}\n")
        sys.stdout.flush()


def _ask(site: Site, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", site.config.deploy.port, timeout=10)
    try:
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def _chat(site: Site, python: str, key: str) -> str:
    url = f"http://127.0.0.1:{site.config.deploy.port}"
    done = subprocess.run([python, "-c", _CHAT, url, key, NAME], capture_output=True, text=True, timeout=120)
    return done.stdout.strip() or done.stderr[-300:]


def _until(condition: Callable[[], bool], seconds: float = 60) -> float:
    """Wait until it holds; how long that took."""
    begun = time.monotonic()
    while not condition() and time.monotonic() - begun < seconds:
        time.sleep(0.1)
    return time.monotonic() - begun


def _caches() -> set[str]:
    """Where llama.cpp keeps what it downloads."""
    folders = (Path.home() / ".cache", Path.home() / "Library/Caches")
    return {str(path) for folder in folders for path in folder.glob("llama.cpp*/**/*")}


def _leaks(site: Site, state: Deployment, key: str) -> list[str]:
    """Where the key can be read, but for the environment file."""
    found = []
    for path in site.prefix.folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 22 and path.name != "environment":
            found += [str(path)] if key.encode() in path.read_bytes() else []
    modes = {path.stat().st_mode & 0o777 for path in site.prefix.releases.glob("*/environment")}
    found += [f"environment with mode {mode:o}" for mode in modes if mode != 0o600]
    words = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
    found += ["the arguments of a process"] if any(key in line for line in words) else []
    shown = records.to_json(installer.given_environment(site.config, site.console)) + records.to_json(state)
    found += ["deploy.environment"] if key in shown else []
    return found + (["the end of the key in the log"] if key[-4:] in site.log() else [])


def _make(site: Site, model: Path) -> int:
    """Make Ollama take the model into its store, with a system prompt and a parameter; the status of its answer."""
    OllamaClient(f"http://127.0.0.1:{site.config.deploy.port}").create_from_gguf("base", model)
    made = {"model": NAME, "from": "base", "system": "You are terse.", "parameters": {"temperature": 0.2}}
    connection = http.client.HTTPConnection("127.0.0.1", site.config.deploy.port, timeout=60)
    try:
        connection.request("POST", "/api/create", json.dumps(made | {"stream": False}))
        return connection.getresponse().status
    finally:
        connection.close()


def show(releases: list[Path], model: Path, python: str, folder: Path, given: Mapping[str, str]) -> int:
    """Run all checks; how many failed."""
    old, new = releases
    check, key, caches = Checks(), secrets.token_hex(24), _caches()
    site = Site.make(folder, health_timeout_s=120, stability_s=1, environment=given)
    ollama = site.install(old)
    check("Ollama installed", ollama.healthy, ollama.version)
    check("a model with a system prompt and parameters made by Ollama", _make(site, model) == HTTPStatus.OK)
    (folder / "keys").write_text(f"# of the test\n{key}\n")
    (folder / "keys").chmod(0o600)
    other = site.configured(serve="llama-server", serve_models=(NAME,), context=1024, api_key_file=str(folder / "keys"))
    state = other.install(new)
    check("llama-server installed", state.healthy, f"{state.version}, {psutil.Process(state.pid).exe()}")
    for warning in state.warnings:
        check("said at install", True, f"{warning.about}: {warning.message}")
    check("the cache line", "turbo4" in site.log(), [x for x in site.log().splitlines() if "K (turbo4)" in x][-1])
    right = _chat(site, python, key)
    check("chat with the right key", right.startswith("answer: "), right)
    for what, sent in (("a wrong", key[::-1]), ("no", "")):
        said = _chat(site, python, sent)
        check(f"chat with {what} key", said == "AuthenticationError 401", said)
    headers = {"Access-Control-Request-Method": "POST"}
    for origin, allowed in (("https://evil.example", None), ("http://localhost:3000", "http://localhost:3000")):
        status, got = _ask(site, "OPTIONS", "/v1/chat/completions", headers | {"Origin": origin})
        found = got.get("access-control-allow-origin")
        check(f"preflight from {origin}", found == allowed, f"{status}, allowed origin {found}")
    bearer = {"Authorization": f"Bearer {key}"}
    for path, given, wanted in (
        ("/health", {}, 200), ("/v1/models", {}, 200), ("/props", {}, 401), ("/props", bearer, 200),
        ("/slots", bearer, 501), ("/metrics", bearer, 501), ("/", {}, 404), ("/tools", bearer, 403),
    ):  # fmt: skip
        status, _ = _ask(site, "GET", path, given)
        check(f"{path} {'with' if given else 'without'} the key", status == wanted, status)
    check("the key is nowhere else", not (leaks := _leaks(site, state, key)), leaks)

    os.kill(state.pid, signal.SIGKILL)
    seconds = _until(lambda: site.status().healthy and site.status().pid != state.pid)
    check("killed, and serves again", site.status().healthy, f"{seconds:.1f} s")
    after = _chat(site, python, key)
    check("the same answer as before", after == right, after)

    file = site.prefix.current / "environment"
    text = file.read_text()
    file.write_text("".join(
        f"LLAMA_ARG_MODEL={model}\n" if line.startswith("LLAMA_ARG_MODEL=") else line for line in text.splitlines(True)
    ))  # fmt: skip
    reason = site.status().reason
    check("another model than asked is unhealthy, by name", f"not {model}" in reason, reason)
    file.write_text(text)

    back = installer.rollback(site.config, site.console)
    status, _ = _ask(site, "GET", "/api/version", {})
    check("rolled back to Ollama", back.healthy and status == 200, f"{back.active}, {_chat(site, python, '')}")
    again = installer.rollback(site.config, site.console, identifier(new))
    check("and to llama-server again", again.healthy and again.active == state.active, _chat(site, python, key))
    pid = again.pid
    gone = installer.uninstall(site.config, site.console)
    left = sorted(path.name for path in site.prefix.folder.iterdir() if path.name != "launchd")
    check("uninstalled", not gone.active and not psutil.pid_exists(pid), f"left: {left}")
    check("nothing was downloaded", _caches() == caches)
    site.close()
    return check.failed


def main() -> int:
    """Run in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", type=Path, nargs=2)
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file with a chat template")
    parser.add_argument("--openai", default=sys.executable, help="a Python that has the package openai")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a variable of both services")
    given = parser.parse_args()
    variables = dict(word.split("=", 1) for word in given.set)
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        return int(show(given.releases, given.model.absolute(), given.openai, Path(folder), variables) > 0)


if __name__ == "__main__":
    sys.exit(main())
