"""A release's Ollama as a temporary server on its own loopback port, removed completely afterwards."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..core.errors import PortInUse, ServerFailed, ToolchainError
from .launcher import Launched, claim_port, hint_on, launch, require_program
from .ollama import OllamaClient

_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
_COMPLAINT = re.compile(r"error|assert|fatal", re.IGNORECASE)
_SETTLE_S = 3.0


class Server:
    """A running server. `client` calls it, `log` is the output of it and its llama-server children."""

    def __init__(self, launched: Launched, client: OllamaClient) -> None:
        self._launched = launched
        self.client = client
        self.log = launched.log
        self.pid = launched.pid

    def end(self) -> str:
        """How its process ended; empty while it runs."""
        return self._launched.end()

    def check_alive(self, within: float = 0.0) -> None:
        """Raise when the process has ended, or ends within some seconds: `PortInUse` when its log says so, else
        `ServerFailed` with its tail."""
        how = self._launched.end(within)
        if not how:
            return
        tail = self.tail()
        if "address already in use" in tail:
            raise PortInUse(f"{self.client.base_url} is taken by another program", hint="choose another port")
        raise ServerFailed(
            f"the server {how}\n  log: {self.log}\n  last lines:\n{tail}".rstrip(), hint=hint_on(how, "")
        )

    def explain(self, error: ToolchainError) -> ToolchainError:
        """A failed call with more detail: that the server died, or llama-server's error message."""
        try:
            self.check_alive(0.5 if isinstance(error, ServerFailed) else 0)
        except ToolchainError as death:
            return death
        lines = [line.strip() for line in self.tail().splitlines()]
        complaints = [line for line in lines if _COMPLAINT.search(line) and not line.startswith(("time=", "[GIN]"))]
        message = "\n    ".join([error.message, *list(dict.fromkeys(complaints))[-3:]])
        return type(error)(message, hint=hint_on(error.message, error.hint))

    def tail(self) -> str:
        """The last lines of the log, indented for a message."""
        return self._launched.tail()

    def mark(self) -> int:
        """The log's current end, for `said_since`."""
        return self.log.stat().st_size

    def said_since(self, mark: int, *, until: str | tuple[str, ...] = ()) -> str:
        """What was logged since `mark`.

        llama-server logs from a separate thread, so a line can come after its answer: wait up to 3 s until the text
        contains one of `until`, if given.
        """
        said, texts = "", (until,) if isinstance(until, str) else until

        def complete() -> bool:
            nonlocal said
            with self.log.open("rb") as file:
                file.seek(mark)
                text = file.read().decode(errors="replace")
            said = text[: text.rfind("\n") + 1]
            return not texts or any(text in said for text in texts)

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

    It gets a clean environment (nothing of the operator's OLLAMA_* or LLAMA_ARG_*) plus `environment`,
     `home` for its home, keys, temporary files and models, and a free loopback port unless `port` names one.
    `timeout_s` bounds each call of its client. On exit, the server and all its descendants are killed.
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
        "GGML_NO_BACKTRACE": "1",  # a debugger's backtrace takes seconds and hides the reason
    }
    with launch([binary, "serve"], home=home, log=log, base=base, env=environment) as launched:
        server = Server(launched, OllamaClient(f"http://127.0.0.1:{port}", timeout_s))
        server.client.wait_until_ready(ready_s, version=version, check_alive=server.check_alive)
        server.check_alive()  # another server with the same version may have the port
        yield server
