"""A release's Ollama, started for one purpose on a loopback port of its own, and gone without a trace afterwards."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..core.errors import PortInUse, ServerFailed, ToolchainError
from .launcher import Launched, claim_port, launch, require_program
from .ollama import OllamaClient

_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
_COMPLAINT = re.compile(r"error|assert|fatal", re.IGNORECASE)
_SETTLE_S = 3.0


class Server:
    """A running server. `client` calls it, `log` is what it and its llama-server children say."""

    def __init__(self, launched: Launched, client: OllamaClient) -> None:
        self._launched = launched
        self.client = client
        self.log = launched.log
        self.pid = launched.pid

    def check_alive(self, within: float = 0.0) -> None:
        """Raise when the process has ended, or does in so many seconds: `PortInUse` when its log says so, else
        `ServerFailed` with its tail."""
        how = self._launched.end(within)
        if not how:
            return
        tail = self.tail()
        if "address already in use" in tail:
            raise PortInUse(f"{self.client.base_url} is taken by another program", hint="choose another port")
        raise ServerFailed(f"the server {how}\n  log: {self.log}\n  last lines:\n{tail}".rstrip())

    def explain(self, error: ToolchainError) -> ToolchainError:
        """A failed call's fuller reason: that the server died of it, or what llama-server complained about."""
        try:
            self.check_alive(0.5 if isinstance(error, ServerFailed) else 0)
        except ToolchainError as death:
            return death
        lines = [line.strip() for line in self.tail().splitlines()]
        complaints = [line for line in lines if _COMPLAINT.search(line) and not line.startswith(("time=", "[GIN]"))]
        return type(error)("\n    ".join([error.message, *list(dict.fromkeys(complaints))[-3:]]), hint=error.hint)

    def tail(self) -> str:
        """The last lines of the log, indented for a message."""
        return self._launched.tail()

    def mark(self) -> int:
        """The log's present end, for `said_since`."""
        return self.log.stat().st_size

    def said_since(self, mark: int, *, until: str) -> str:
        """What the log gained since `mark`.

        llama-server writes its log from a thread of its own, so that a line can come after the answer that it
        belongs to: wait up to 3 s until the text holds `until`.
        """
        said = ""

        def complete() -> bool:
            nonlocal said
            with self.log.open("rb") as file:
                file.seek(mark)
                text = file.read().decode(errors="replace")
            said = text[: text.rfind("\n") + 1]
            return until in said

        self._launched.wait_until(complete, _SETTLE_S)
        return said


@contextlib.contextmanager
def serve(
    release_dir: Path,
    *,
    version: str,
    home: Path,
    log: Path,
    environment: Mapping[str, str],
    timeout_s: float,
    ready_s: float = 30.0,
    port: int = 0,
) -> Iterator[Server]:
    """Start `release_dir`/bin/ollama and wait until it answers with `version`.

    It gets a clean environment (nothing of the operator's OLLAMA_* or LLAMA_ARG_*) with `environment` laid over
    it, `home` for its home, keys, temporary files and models, and a free loopback port unless `port` names one.
    `timeout_s` bounds each call of its client. On leaving, the server and everything that it started are killed.
    Raises `ReleaseInvalid` without a binary, `PortInUse`, and `ServerFailed` when it dies or is never ready.
    """
    binary = require_program(release_dir / "bin" / "ollama", "./inv build makes the release directory").resolve()
    port = claim_port(port)
    home = home.resolve()
    temporary = home / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    base = {
        "PATH": _PATH,
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(home / "models"),
        "OLLAMA_NUM_PARALLEL": "1",
        "OLLAMA_NO_CLOUD": "1",
        "GGML_NO_BACKTRACE": "1",  # a debugger's view of an abort takes seconds and buries its reason
    }
    with launch([binary, "serve"], home=home, log=log, base=base, env=environment) as launched:
        server = Server(launched, OllamaClient(f"http://127.0.0.1:{port}", timeout_s))
        server.client.wait_until_ready(ready_s, version=version, check_alive=server.check_alive)
        server.check_alive()  # it may have lost the port to a server that answers just the same
        yield server
