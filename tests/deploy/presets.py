"""llama-server of a real release with several models, as a script: what a client sees of it, step by step.

    .venv/bin/python -m tests.deploy.presets RELEASE RELEASE --model GGUF --mute GGUF --openai PYTHON

--model has a chat template, --mute has none and is another model: it is refused as it is, and served in a copy that has
a template. The first release is installed as Ollama, which makes the store; the second as llama-server. PYTHON is an
interpreter that has the package `openai`. Each line is one check; 1 if one failed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import psutil

from toolchain.core.errors import ModelNotServable
from toolchain.deploy import environment, installer, processes
from toolchain.models.memory.gguf import load
from toolchain.service.units import presets
from toolchain.serving.ollama import OllamaClient

from .serving import Checks
from .site import Site, identifier

SMALL, LARGE, ALSO, MUTE = "x:8b-instruct-q4_K_M", "x:70b-instruct-q4_K_M", "also:latest", "mute:latest"
"""llama-server itself would take the first two for one model; the third is the first's file"""
NAMES = (SMALL, LARGE, ALSO)
_BACK_S = 20.0
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message.role == 'assistant' else 'user' }}\n"
    "{{ message.content }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_CHAT = """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2], max_retries=0)
for name in sys.argv[3:]:
    try:
        done = client.chat.completions.create(
            model=name, max_tokens=24, temperature=0, messages=[{"role": "user", "content": "What is the sea?"}]
        )
    except openai.APIStatusError as error:
        print(f"{type(error).__name__} {error.status_code} {error.body}")
    else:
        print(f"{done.choices[0].message.content!r} by {done.model}")
"""


def with_template(source: Path, target: Path) -> Path:
    """A copy of a model that has a chat template."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, str(load(str(source)).metadata["general.architecture"]))
    for field in reader.fields.values():
        kind = field.types[0]
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
    writer.add_chat_template(_TEMPLATE)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


class Client:
    """What asks the service."""

    def __init__(self, site: Site, python: str, key: str) -> None:
        self._port, self._python, self._key = site.config.deploy.port, python, key

    def ask(self, method: str, path: str, body: object = None, *, key: bool = True) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            headers = {"Authorization": f"Bearer {self._key}"} if key else {}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            data = answer.read()
            with contextlib.suppress(ValueError):
                return answer.status, json.loads(data)
            return answer.status, data
        finally:
            connection.close()

    def chat(self, *names: str) -> list[str]:
        """One line for each."""
        url = f"http://127.0.0.1:{self._port}"
        argv = [self._python, "-c", _CHAT, url, self._key, *names]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
        return done.stdout.splitlines() or [done.stderr[-300:]]

    def models(self) -> dict[str, tuple[str, ...]]:
        """Names of each id."""
        _, found = self.ask("GET", "/v1/models", key=False)
        return {one["id"]: tuple(one["aliases"]) for one in found["data"]}


@contextlib.contextmanager
def timed(seconds: float = 60) -> Iterator[list[float]]:
    begun, found = time.monotonic(), [0.0]
    yield found
    found[0] = time.monotonic() - begun


def _until_ended(found: list[psutil.Process]) -> float:
    with timed() as took:
        processes.gone(found, 60)
    return took[0]


def _children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children()


def _told(error: BaseException) -> str:
    return str(error).replace("\n", " ")


def _store(site: Site, releases: list[Path], files: dict[str, Path]) -> None:
    site.install(releases[0])
    url = f"http://127.0.0.1:{site.config.deploy.port}"
    for name, file in files.items():
        OllamaClient(url).create_from_gguf(name, file)


def _routes(client: Client, check: Checks) -> None:
    for method, path, key, wanted in (
        ("GET", "/health", False, 200), ("GET", "/v1/models", False, 200), ("GET", "/models", False, 200),
        ("GET", "/props", False, 401), ("GET", "/props", True, 200), ("POST", "/models", False, 401),
        ("DELETE", f"/models?model={SMALL}", False, 401), ("POST", "/models/load", False, 401),
        ("POST", "/models/unload", False, 401), ("GET", f"/slots?model={SMALL}", True, 501),
        ("GET", "/tools", True, 403), ("GET", "/", False, 404),
    ):  # fmt: skip
        status, _ = client.ask(method, path, {"model": "someone/none:Q4"} if method == "POST" else None, key=key)
        check(f"{method} {path} {'with' if key else 'without'} the key", status == wanted, status)
    status, _ = client.ask("POST", "/models", {"model": "someone/none:Q4"})
    time.sleep(3)
    check("a download with the key changes nothing", len(client.models()) == 2, f"{status}, {list(client.models())}")


def _served(site: Site) -> list[Path]:
    given = environment.read(site.prefix.current)
    return [one.file for one in presets.read(Path(given["LLAMA_ARG_MODELS_PRESET"]))]


def _count(said: list[str]) -> int:
    return sum(" by " in one for one in said)


def _kills(site: Site, client: Client, check: Checks) -> None:
    client.chat(*NAMES)
    state = site.status()
    running = _children(state.pid)
    check("one process for each file", len(running) == 2, [one.cmdline()[-1][-20:] for one in running])
    for one in running:
        one.kill()
    _until_ended(running)
    check("killed models answer again", all(" by " in one for one in client.chat(*NAMES)), site.status().healthy)
    blob = next(file for file in _served(site) if file.is_file())
    for one in _children(state.pid):
        one.kill()
    blob.rename(blob.with_name("away"))
    said = client.chat(*NAMES)
    check("a model whose file is gone fails, others answer", _count(said) in (1, 2), [one[:90] for one in said])
    blob.with_name("away").rename(blob)
    begun = time.monotonic()
    while _count(said := client.chat(*NAMES)) < 3 and time.monotonic() - begun < _BACK_S:
        time.sleep(0.5)  # the router may still be at the end of the failed process
    check(
        "and answers when it is back",
        _count(said) == 3,
        f"{time.monotonic() - begun:.1f} s, {[one[:90] for one in said]}",
    )
    running = _children(state.pid)
    os.kill(state.pid, signal.SIGKILL)
    seconds = _until_ended(running)
    check("models end with a killed router", seconds < 30, f"{seconds:.1f} s")
    with timed() as took:
        site.until(lambda: site.status().healthy and site.status().pid != state.pid)
    check("and it serves again", " by " in client.chat(LARGE)[0], f"{took[0]:.1f} s")


def show(releases: list[Path], model: Path, mute: Path, python: str, folder: Path, variables: dict[str, str]) -> int:
    """Run all checks; how many failed."""
    check, key = Checks(), secrets.token_hex(24)
    (folder / "keys").write_text(f"{key}\n")
    (folder / "keys").chmod(0o600)
    ollama = Site.make(folder, health_timeout_s=120, stability_s=1).configured(environment=variables)
    files = {SMALL: model, LARGE: with_template(mute, folder / "templated.gguf"), ALSO: model, MUTE: mute}
    _store(ollama, releases, files)
    check("Ollama installed, with four models", ollama.status().healthy, ollama.status().version)
    site = ollama.configured(serve="llama-server", serve_models=NAMES, context=1024, api_key_file=str(folder / "keys"))
    client = Client(site, python, key)
    try:
        site.configured(serve_models=(*NAMES, MUTE)).install(releases[1])
        check("a model without a chat template is refused", False)
    except ModelNotServable as error:
        check("a model without a chat template is refused", MUTE in str(error), _told(error))
    check("and Ollama still serves", ollama.status().healthy)

    state = site.install(releases[1])
    check("llama-server installed with several", state.healthy, f"{state.version} {psutil.Process(state.pid).exe()}")
    for warning in state.warnings:
        check("said at install", True, f"{warning.about}: {warning.message}")
    given = environment.read(site.prefix.current)
    asked = presets.read(Path(given["LLAMA_ARG_MODELS_PRESET"]))
    check("the presets", len(asked) == 2, Path(given["LLAMA_ARG_MODELS_PRESET"]).read_text().split("\n"))
    check("models at a time", True, given["LLAMA_ARG_MODELS_MAX"])
    line = next((one for one in site.log().splitlines() if one.startswith("[") and "K (turbo4)" in one), "")
    check("the cache line", bool(line), line)
    check("the models", client.models() == {one.section: tuple(sorted(one.names)) for one in asked}, client.models())
    answers = dict(zip(NAMES, client.chat(*NAMES), strict=True))
    for name, answer in answers.items():
        check(f"chat with {name}", " by " in answer, answer)
        _, found = client.ask("GET", f"/props?model={name}")
        own = next(one.file for one in asked if name in one.names)
        check(f"the file of {name}", found["model_path"] == str(own), Path(found["model_path"]).name[:20])
    check("different answers", answers[SMALL] == answers[ALSO] != answers[LARGE])
    said = client.chat("x:8b", "nobody", SMALL.upper())
    check("wrong names", all("BadRequestError 400" in one and "not found" in one for one in said), said[0])
    _routes(client, check)
    _kills(site, client, check)

    fewer = site.configured(serve_models=(LARGE, ALSO))
    check("other models by a deploy, with one at work", *_deployed_at_work(fewer, client, releases[1]))
    one = site.configured(serve_models=(SMALL,)).install(releases[0])
    check("one model of another release", one.healthy, client.chat(LARGE)[0])
    back = installer.rollback(site.config, site.console, identifier(releases[1]))
    check(
        "rolled back to several", back.healthy and all(" by " in x for x in client.chat(LARGE, ALSO)), client.models()
    )

    pids = [*processes.of_release(*site.prefix.releases.iterdir())]
    gone = installer.uninstall(site.config, site.console)
    left = sorted(path.name for path in site.prefix.folder.iterdir() if path.name != "launchd")
    check("uninstalled", not gone.active and not processes.gone(pids, 5), f"left: {left}")
    site.close()
    return check.failed


def _deployed_at_work(site: Site, client: Client, release: Path) -> tuple[bool, str]:
    """Deploy while a model generates: a router lets answers end, until the service manager kills it."""
    body = {"model": LARGE, "prompt": "a", "n_predict": 100_000, "ignore_eos": True}

    def generate() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            client.ask("POST", "/completion", body)

    asking = threading.Thread(target=generate)
    asking.start()
    time.sleep(3)
    old = processes.tree(site.status().pid)
    with timed() as took:
        state = site.install(release)
    asking.join()
    left = [one for one in old if processes.alive(one)]
    good = state.healthy and not left and len(old) > 1 and SMALL not in str(client.models())
    return good, f"{took[0]:.1f} s, {len(old)} processes before, {len(left)} of them left, {client.models()}"


def main() -> int:
    """Run in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", type=Path, nargs=2)
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file with a chat template")
    parser.add_argument("--mute", type=Path, required=True, help="a GGUF file of another model without one")
    parser.add_argument("--openai", default=sys.executable, help="a Python that has the package openai")
    parser.add_argument("--variable", action="append", default=[], help="NAME=VALUE of the service, repeatable")
    given = parser.parse_args()
    variables = dict(text.split("=", 1) for text in given.variable)
    with tempfile.TemporaryDirectory(prefix="presets-") as folder:
        files = given.model.absolute(), given.mute.absolute()
        return int(show(given.releases, *files, given.openai, Path(folder), variables) > 0)


if __name__ == "__main__":
    sys.exit(main())
