"""The two servers: started from the release when a test asks, side by side where memory allows, else in turn.

A server counts only once its own log states the requested cache types; an endpoint that was given, and has no log
here, proves nothing, and voids the run.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from ..core import records
from ..core.cachetypes import grammar
from ..core.cachetypes.table import type_table
from ..core.config import Config
from ..core.deadline import Deadline
from ..core.errors import ToolchainError, VerificationFailed
from ..core.records import record
from ..models.memory.together import need
from ..serving import cachelog, ollama_server
from ..serving.llama_server import serve
from ..sources.eras.era import LLAMA_SERVER
from ..stages import Release
from . import given
from .endpoint import Endpoint
from .leftovers import HOME
from .llama_endpoint import LlamaEndpoint
from .ollama_endpoint import OllamaEndpoint
from .plan import SIDES, Plan, Side
from .store import Store

MODEL = "validated"
"""the model's name in the temporary Ollama"""
_SHARE = 0.8
"""of the memory that is available now, which both servers together may take"""
_LOG_S = 10.0


@record
class _Unproven:
    why: str = ""


def _key(side: Side) -> str:
    return f"unproven/{side}"


@dataclass
class _Running:
    """A server; `explain` adds to a failed call how it ended, which `end` tells (empty while it runs)."""

    endpoint: Endpoint
    url: str
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    load_s: float = 0.0
    end: Callable[[], str] = lambda: ""
    explain: Callable[[ToolchainError], ToolchainError] = lambda error: error


class Sides:
    """The servers of a validation. `close` stops them."""

    def __init__(self, plan: Plan, release: Release | None, store: Store, config: Config) -> None:
        self.plan = plan
        self._release, self._store, self._config = release, store, config
        self._running: dict[Side, _Running] = {}
        kept = [side for side in SIDES if store.has(_key(side))]
        self.unproven = [store.kept(_key(side), _Unproven, _Unproven).why for side in kept]
        """endpoints whose cache type nothing stated, also when an earlier run asked them"""

    def at(self, side: Side, context: int) -> Endpoint:
        """The side's server with this context in tokens. Another one of that side, or one that died, is stopped first.

        Raises `ModelLoadFailed`, `ServerFailed`, `VerificationFailed` when the log states another cache, and
        `WrongModelServed`.
        """
        running = self._running.get(side)
        if running and running.endpoint.context == context and not running.end():
            return running.endpoint
        self.stop(side)
        if self.plan.url(side):
            self._running[side] = self._given(side, context)
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

    def explained(self, error: ToolchainError) -> ToolchainError:
        """An error of a test with more detail: the side whose server it is about, how that ended, and its log."""
        about = [one for one in self._running if self._running[one].url in error.message]
        for side in about or [one for one in self._running if self._running[one].end()]:
            running = self._running[side]
            more, log = running.explain(error), running.endpoint.log
            place = f"\n  log: {log}" if log and str(log) not in more.message else ""
            title = self._title(side, running.endpoint.context)
            return type(error)(f"{title}: {more.message}{place}", hint=more.hint)
        return error

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
            start = self._llama_server if self.plan.backend == "llama-server" else self._ollama
            running = start(stack, side, context, log)
            running.load_s = time.monotonic() - began
            self._prove(side, log)
        except ToolchainError as error:
            stack.close()
            place = "" if str(log) in error.message else f"\n  log: {log}"
            unfit = "does not divide" in error.message  # llama.cpp's words for heads that its blocks do not divide
            hint = f"this model cannot have it: another --{side}" if unfit else error.hint
            raise type(error)(f"{self._title(side, context)}: {error.message}{place}", hint=hint) from error
        except BaseException:
            stack.close()
            raise
        return running

    def _title(self, side: Side, context: int) -> str:
        return f"{side} ({self.plan.cache(side)}, context {context})"

    def _llama_server(self, stack: contextlib.ExitStack, side: Side, context: int, log: Path) -> _Running:
        home = self._store.folder / HOME / side
        records.make_folder(home)
        assert self.plan.release_dir is not None
        program = self.plan.release_dir / LLAMA_SERVER
        found = home / "server.log"
        found.unlink(missing_ok=True)
        found.symlink_to(log)  # the log stays when the server is started again
        server = stack.enter_context(
            serve(
                program,
                self.plan.model,
                home=home,
                context=context,
                timeout_s=self._config.validate.timeout_s,
                cache_type=self.plan.cache(side),
                environment=self.plan.environment,
            )
        )
        endpoint = LlamaEndpoint(server, context=context, log=log, template=given.has_template(self.plan.model))
        return _Running(endpoint, server.url, stack, end=server.end, explain=server.explain)

    def _ollama(self, stack: contextlib.ExitStack, side: Side, context: int, log: Path) -> _Running:
        assert self.plan.release_dir is not None
        assert self._release is not None
        home = self._store.folder / HOME / side
        store = self._store.folder / HOME / "models"
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
                timeout_s=self._config.validate.timeout_s,
            )
        )
        template = given.has_template(self.plan.model)
        endpoint = OllamaEndpoint(
            server.client, MODEL, context=context, pid=server.pid, log=log, options={}, template=template
        )
        try:
            if f"{MODEL}:latest" not in server.client.names():
                server.client.create_from_gguf(MODEL, self.plan.model)
            endpoint.generate("a", tokens=1)
        except ToolchainError as error:
            raise server.explain(error) from error
        return _Running(endpoint, server.client.base_url, stack, end=server.end, explain=server.explain)

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
        while not cachelog.stated(said := log.read_text(encoding="utf-8", errors="replace")):
            if deadline.passed:
                raise VerificationFailed(f"{asked}: {cachelog.unstated(said)}\n  log: {log}")
            time.sleep(0.05)
        if wrong := cachelog.objection(said, asked, self.plan.environment):
            raise VerificationFailed(f"{wrong}\n  log: {log}", hint="is the release built with the series?")

    def _given(self, side: Side, context: int) -> _Running:
        """A server that runs already; what nothing proves is noted. Raises as `at`."""
        timeout_s = self._config.validate.timeout_s
        try:
            endpoint = given.endpoint(self.plan, side, context, folder=self._store.folder, timeout_s=timeout_s)
            if self.plan.backend == "ollama" and self.plan.log(side):
                endpoint.generate("a", tokens=1)  # loads the model, and its log then states the cache
            why = given.unproven(self.plan, side)
        except ToolchainError as error:
            raise type(error)(f"{self._title(side, context)}: {error.message}", hint=error.hint) from error
        if why and why not in self.unproven:
            self.unproven.append(self._store.kept(_key(side), _Unproven, lambda: _Unproven(why=why)).why)
        return _Running(endpoint=endpoint, url=self.plan.url(side))
