"""What a deploy costs the clients of the service: generations cut, requests refused, and the time without a token.

    .venv/bin/python -m bench.cuts RELEASE RELEASE [--deploys N] [--kill] [--serve llama-server]

Installs the two release directories in turn under the launchd emulator, while clients generate in a loop. With `--kill`
a restart is `kickstart -k` alone, which is SIGKILL.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import requests

from toolchain.core import config as configuration
from toolchain.core.config import Config
from toolchain.core.console import Console
from toolchain.deploy import installer
from toolchain.host import ports
from toolchain.service.emulator import settings
from toolchain.service.launchd import LaunchdManager
from toolchain.serving.ollama import OllamaClient
from toolchain.serving.probe_model import write_probe

_CLIENTS = 4
_TOKENS = 300
_MODEL = "cuts-probe"
_PAUSE_S = 0.1
_SIZES = {"head_size": 128, "heads": 2, "kv_heads": 1, "context": 2048, "layers": 2}


@dataclass
class Tally:
    """What all clients saw together. `tokens` are the times at which one came."""

    url: str
    serve: str
    finished: int = 0
    cut: int = 0
    refused: int = 0
    tokens: list[float] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def clients(self) -> None:
        """Generate in a loop until `ended`."""
        body: Mapping[str, object] = {
            "model": _MODEL, "prompt": "a b c", "options": {"num_predict": _TOKENS, "num_ctx": 1024}
        }  # fmt: skip
        if self.serve == "llama-server":
            body = {"prompt": "a b c", "n_predict": _TOKENS, "ignore_eos": True, "stream": True}
        with requests.Session() as session:
            session.trust_env = False
            while not self.ended.is_set():
                outcome = self._generate(session, body)
                with self.lock:
                    setattr(self, outcome, getattr(self, outcome) + 1)
                if outcome != "finished":
                    time.sleep(_PAUSE_S)

    def _generate(self, session: requests.Session, body: Mapping[str, object]) -> str:
        begun, path = False, "/completion" if self.serve == "llama-server" else "/api/generate"
        try:
            with session.post(self.url + path, json=body, stream=True, timeout=60) as answer:
                if answer.status_code != 200:
                    return "refused"
                for line in filter(None, answer.iter_lines()):
                    told = json.loads(line.removeprefix(b"data: "))
                    if "error" in told:
                        break
                    begun = True
                    self.tokens.append(time.monotonic())
                    if told.get("done") or told.get("stop"):
                        return "finished"
        except (requests.RequestException, ValueError):
            pass
        return "cut" if begun else "refused"


def _kill(manager: LaunchdManager) -> bool:
    manager.must("kickstart", "-k", manager.target)
    return False


def _configured(folder: Path, serve: str) -> Config:
    port = next(number for number in range(18000, 19000) if not ports.listeners(number))
    values = {
        "deploy.prefix": str(folder / "prefix"),
        "deploy.service_manager": "emulator",
        "deploy.port": port,
        "deploy.models": str(folder / "models"),
        "deploy.stability_s": 1,
        "deploy.allow_unverified": True,
    }
    if serve == "llama-server":
        template = {"LLAMA_ARG_CHAT_TEMPLATE": "chatml", "LLAMA_ARG_N_PARALLEL": "1"}
        model = [str(folder / "probe.gguf")]
        values |= {"deploy.serve": serve, "deploy.serve_models": model, "deploy.environment": template}
    (folder / "turboquant.yaml").write_text(json.dumps(values))
    (folder / "models").mkdir()
    root = folder / "prefix" / "launchd"
    root.mkdir(parents=True)
    settings.write(root, settings.Settings(owner_pid=os.getpid()))
    return configuration.load(file=folder / "turboquant.yaml", environ={})


def measure(releases: list[Path], deploys: int, folder: Path, serve: str) -> None:
    """Print one line for each deploy."""
    write_probe(folder / "probe.gguf", **_SIZES, seed=1)
    config, console = _configured(folder, serve), Console()
    installer.install(releases[0], config, console)
    tally = Tally(f"http://127.0.0.1:{config.deploy.port}", serve)
    if serve == "ollama":
        OllamaClient(tally.url).create_from_gguf(_MODEL, folder / "probe.gguf")
    threads = [threading.Thread(target=tally.clients) for _ in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, deploys + 1):
            _settle(tally)
            before, begun = (tally.finished, tally.cut, tally.refused, len(tally.tokens)), time.monotonic()
            installer.install(releases[number % 2], config, console)
            seconds = time.monotonic() - begun
            _settle(tally)
            times = sorted(tally.tokens[max(0, before[3] - 1) :])
            gap = max(later - earlier for earlier, later in itertools.pairwise(times))
            print(  # noqa: T201
                f"deploy {number}: {seconds:.1f} s; finished {tally.finished - before[0]}, "
                f"cut {tally.cut - before[1]}, refused {tally.refused - before[2]}, longest pause {gap:.2f} s",
                flush=True,
            )
    finally:
        tally.ended.set()
        for thread in threads:
            thread.join()
        installer.uninstall(config, console)


def _settle(tally: Tally) -> None:
    """Wait until a few more generations have finished."""
    wanted, deadline = tally.finished + 2 * _CLIENTS, time.monotonic() + 120
    while tally.finished < wanted and time.monotonic() < deadline:
        time.sleep(0.05)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", type=Path, nargs=2)
    parser.add_argument("--deploys", type=int, default=4)
    parser.add_argument("--kill", action="store_true", help="restart with kickstart -k alone")
    parser.add_argument("--serve", choices=("ollama", "llama-server"), default="ollama")
    asked = parser.parse_args()
    if asked.kill:
        setattr(LaunchdManager, "restart", _kill)  # noqa: B010  mypy refuses the assignment
    with tempfile.TemporaryDirectory(prefix="turboquant-") as temporary:
        measure(asked.releases, asked.deploys, Path(temporary), asked.serve)
