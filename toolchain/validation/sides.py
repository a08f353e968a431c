"""The two servers: started from the release when a test asks, side by side where memory allows, else in turn.

A server counts only once its own log states the requested cache types; an endpoint that was given, and has no log
here, proves nothing, and voids the run.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil

from ..core import records
from ..core.cachetypes import grammar
from ..core.cachetypes.table import type_table
from ..core.config import Config
from ..core.console import Console
from ..core.deadline import Deadline
from ..core.errors import ServerFailed, VerificationFailed
from ..core.records import sha256_file
from ..core.validation_errors import WrongModelServed
from ..models.memory import gguf
from ..models.memory.together import need
from ..serving import cachelog, ollama_server
from ..serving.llama_server import LlamaServer, serve
from ..serving.ollama import OllamaClient
from ..stages import Release
from .endpoint import Endpoint, LlamaEndpoint, OllamaEndpoint
from .plan import SIDES, Plan, Side
from .store import Store

MODEL = "validated"
"""the model's name in the temporary Ollama"""
_SHARE = 0.8
"""of the memory that is available now, which both servers together may take"""
_LOG_S = 10.0


class _Running:
    def __init__(self, endpoint: Endpoint, stack: contextlib.ExitStack, load_s: float) -> None:
        self.endpoint, self.stack, self.load_s = endpoint, stack, load_s


class Sides:
    """The servers of a validation. `close` stops them; `stopped` counts how often one was given up for memory."""

    def __init__(self, plan: Plan, release: Release | None, store: Store, config: Config, console: Console) -> None:
        self.plan = plan
        self._release, self._store, self._config, self._console = release, store, config, console
        self._running: dict[Side, _Running] = {}
        self.unproven: list[str] = []
        """endpoints whose cache type nothing states"""

    def at(self, side: Side, context: int) -> Endpoint:
        """The side's server with this context in tokens. Another one of that side is stopped first.

        Raises `ModelLoadFailed`, `ServerFailed`, `VerificationFailed` when the log states another cache, and
        `WrongModelServed`.
        """
        running = self._running.get(side)
        if running and running.endpoint.context == context:
            return running.endpoint
        self.stop(side)
        if url := self.plan.url(side):
            self._running[side] = _Running(self._given(side, url, context), contextlib.ExitStack(), 0.0)
            return self._running[side].endpoint
        other: Side = SIDES[1 - SIDES.index(side)]
        if other in self._running and not self._both_fit(side, context):
            self.stop(other)
        self._running[side] = self._started(side, context)
        return self._running[side].endpoint

    def load_s(self, side: Side) -> float:
        """Seconds from the start of the side's running server until its model was loaded."""
        return self._running[side].load_s

    def stop(self, side: Side) -> None:
        """Stop a side's server, if it runs."""
        if running := self._running.pop(side, None):
            running.stack.close()

    def close(self) -> None:
        """Stop both."""
        for side in SIDES:
            self.stop(side)

    def __enter__(self) -> Sides:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _both_fit(self, side: Side, context: int) -> bool:
        types = type_table(self._release.cache_types if self._release else ())
        taken = need(self.plan.model, 0, grammar.parse(self.plan.cache(side)), types, context)
        return taken <= _SHARE * psutil.virtual_memory().available

    def _started(self, side: Side, context: int) -> _Running:
        """A server of the release. Its log is kept as logs/SIDE-CONTEXT-N.log."""
        assert self.plan.release_dir is not None
        records.make_folder(self._store.logs)
        number = len(list(self._store.logs.glob(f"{side}-{context}-*.log")))
        log = self._store.logs / f"{side}-{context}-{number}.log"
        stack = contextlib.ExitStack()
        began = time.monotonic()
        try:
            if self.plan.backend == "llama-server":
                endpoint: Endpoint = self._llama_server(stack, side, context, log)
            else:
                endpoint = self._ollama(stack, side, context, log)
            load_s = time.monotonic() - began
            self._prove(side, log)
        except BaseException:
            stack.close()
            raise
        return _Running(endpoint, stack, load_s)

    def _llama_server(self, stack: contextlib.ExitStack, side: Side, context: int, log: Path) -> Endpoint:
        home = self._store.folder / "home" / side
        records.make_folder(home)
        assert self.plan.release_dir is not None
        program = self.plan.release_dir / "lib" / "ollama" / "llama-server"
        found = home / "server.log"
        found.unlink(missing_ok=True)
        found.symlink_to(log)  # the log stays when the server is started again
        server = stack.enter_context(
            serve(
                program,
                self.plan.model,
                home=home,
                context=context,
                timeout_s=self._config.verify.timeout_s,
                cache_type=self.plan.cache(side),
                environment=self.plan.environment,
            )
        )
        return LlamaEndpoint(server, context=context, log=log, template=_has_template(self.plan.model))

    def _ollama(self, stack: contextlib.ExitStack, side: Side, context: int, log: Path) -> Endpoint:
        assert self.plan.release_dir is not None
        assert self._release is not None
        home = self._store.folder / "home" / side
        store = self._store.folder / "home" / "models"
        self._lend_blob(store)
        environment = {
            **self.plan.environment,
            "OLLAMA_KV_CACHE_TYPE": self.plan.cache(side),
            "OLLAMA_MODELS": str(store),
            "OLLAMA_MAX_LOADED_MODELS": "1",
        }
        server = stack.enter_context(
            ollama_server.serve(
                self.plan.release_dir,
                version=self._release.version,
                home=home,
                log=log,
                environment=environment,
                timeout_s=self._config.verify.timeout_s,
            )
        )
        if f"{MODEL}:latest" not in server.client.names():
            server.client.create_from_gguf(MODEL, self.plan.model)
        template = _has_template(self.plan.model)
        endpoint = OllamaEndpoint(
            server.client, MODEL, context=context, pid=server.pid, log=log, options={}, template=template
        )
        endpoint.generate("a", tokens=1)
        return endpoint

    def _lend_blob(self, store: Path) -> None:
        """Put the model into the temporary store without a copy, where the file system can."""
        blob = store / "blobs" / f"sha256-{self.plan.model_sha256}"
        records.make_folder(blob.parent)
        if not blob.exists():
            with contextlib.suppress(OSError):  # another disk: then it is uploaded
                os.link(self.plan.model, blob)

    def _prove(self, side: Side, log: Path) -> None:
        """Raises `VerificationFailed` unless the log states the side's cache types; the log comes from a thread."""
        asked = self.plan.cache(side)
        deadline = Deadline(_LOG_S)
        while not (found := cachelog.stated(log.read_text(encoding="utf-8", errors="replace"))):
            if deadline.passed:
                raise VerificationFailed(f"{asked}: the log states no KV cache\n  log: {log}")
            time.sleep(0.05)
        proofs = [one.proof for one in found]
        if wrong := cachelog.mismatch(proofs, asked, sum(one.layers for one in proofs)):
            raise VerificationFailed(f"{wrong}\n  log: {log}", hint="is the release built with the series?")

    def _given(self, side: Side, url: str, context: int) -> Endpoint:
        """An endpoint that runs already. Raises `WrongModelServed` when it serves another model, `ServerFailed`."""
        note = f"{side}: {url}: nothing here states its cache type"
        if note not in self.unproven:
            self.unproven.append(note)
        timeout_s = self._config.verify.timeout_s
        if self.plan.backend == "llama-server":
            server = LlamaServer(url, self._store.folder, timeout_s)
            loaded = server.loaded()
            if loaded is None or loaded.key_refused:
                raise ServerFailed(f"{url}: its model is not loaded, or it wants an API key")
            if loaded.model and not self._is_the_model(loaded.model):
                raise WrongModelServed(
                    f"{url} serves {Path(loaded.model).name}, not {self.plan.model.name}",
                    hint="--model names the file that it serves",
                )
            return LlamaEndpoint(server, context=context, log=None, template=_has_template(self.plan.model))
        client = OllamaClient(url, timeout_s)
        names = client.names()
        wanted = self.plan.model_name if ":" in self.plan.model_name else f"{self.plan.model_name}:latest"
        if wanted not in names:
            raise WrongModelServed(f"{url} has no model {wanted}", hint=f"it has {', '.join(names) or 'none'}")
        return OllamaEndpoint(client, wanted, context=context, pid=0, log=None, options={})

    def _is_the_model(self, served: str) -> bool:
        path = Path(served)
        if path.is_file():
            return path.samefile(self.plan.model) or sha256_file(path) == self.plan.model_sha256
        return path.name == self.plan.model.name or self.plan.model_sha256 in path.name


def _has_template(model: Path) -> bool:
    return bool(gguf.load(str(model)).metadata.get("tokenizer.chat_template"))
