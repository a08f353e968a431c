"""The toolkit's own tasks as a user runs them: each in a process of its own, whose output is evidence."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..core import config as configuration
from ..core import process, records
from ..core.checkout import MINIATURE, ROOT
from ..core.config import Config
from ..core.errors import ToolchainError
from ..core.records import record
from ..models.named import find_model
from ..stages import Release, Scratch
from .bench import NOT_STARTED, Bench, Evidence

R = TypeVar("R")

START = "import tasks; tasks.start()"
_FILE = "turboquant-{}.yaml"
_SECONDS = 7200.0
_END_S = 60.0
"""how long an interrupted task may clean up"""
_MOST_CHARACTERS = 400_000
_DOCUMENT = re.compile(r"^\{$|^\{(?=[\"}])", re.MULTILINE)
"""where a JSON document of the console begins: what is inside of it is indented"""


@record
class Answer:
    """A task's run, and the JSON document that it ended with; None without one."""

    evidence: Evidence
    document: Any = None

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.evidence.code == 0

    @property
    def complaint(self) -> str:
        """Why it failed, and what to try, in one line; empty if it did not."""
        if self.ok:
            return ""
        if isinstance(self.document, dict) and str(self.document.get("message", "")).strip():
            lines = [line.strip() for line in str(self.document["message"]).splitlines() if line.strip()]
            cause = f": {lines[-1]}" if len(lines) > 1 else ""  # behind the command and its log: what that said last
            hint = f"; try: {self.document['try']}" if self.document.get("try") else ""
            return f"exit code {self.evidence.code}: {lines[0]}{cause}{hint}"
        said = [line for line in self.evidence.output.splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("error: ")]
        return f"exit code {self.evidence.code}: {(errors or said or ['nothing was printed'])[-1]}"

    def read(self, kind: type[R]) -> R | None:
        """The document as a record; None if it is none of that kind."""
        try:
            return msgspec.convert(self.document, kind, dec_hook=_path, strict=False)
        except msgspec.ValidationError:
            return None


def task(
    bench: Bench,
    *words: str,
    config: Config | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = _SECONDS,
) -> Answer:
    """Run a task of `./inv` to its end with `config`, by default the bench's, and with no setting from elsewhere.

    Never raises for its failure. When this process is interrupted, the task is interrupted too, and may clean up.
    """
    file = _written(bench, config or bench.run.config)
    argv = [*_without_settings(), sys.executable, "-P", "-c", START, *words, "--config", str(file), "--json"]
    started = time.monotonic()
    code, output = NOT_STARTED, ""
    with tempfile.TemporaryFile() as said:
        try:
            with process.owned(
                argv,
                cwd=bench.folder,
                env={"PYTHONPATH": str(ROOT), **(env or {})},
                stdout=said,
                stderr=subprocess.STDOUT,
            ) as child:
                code = _wait(child, timeout)
        except ToolchainError as error:
            output = error.message
        said.seek(0)
        output += said.read().decode(errors="replace")
    seen = Evidence(
        command=shlex.join(argv), code=code, seconds=round(time.monotonic() - started, 3), output=_shortened(output)
    )
    bench.kept.append(seen)
    return Answer(evidence=seen, document=document(output))


def document(output: str) -> Any:
    """The JSON document at the end of what a task printed to both streams; None without one."""
    for found in reversed([*_DOCUMENT.finditer(output)]):
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(output[found.start() :].encode())
    return None


def is_miniature(config: Config) -> bool:
    """Whether the sources are the miniature upstream of this checkout, which shows nothing about real ones."""
    mark = "README.md"
    try:
        return (Path(config.sources.ollama) / mark).read_bytes() == (MINIATURE / "ollama" / mark).read_bytes()
    except OSError:
        return False


def scratch_of(bench: Bench, release: Release) -> Scratch:
    """The trees that a release was built from. Raises `RecordError`."""
    return records.read(bench.run.records_of(release.id) / "scratch.json", Scratch)


def model_of(config: Config) -> Path | None:
    """The file of the model that the user names in verify.model; None without one. Raises as `find_model`.

    A bench has a model store of its own: names are looked for in Ollama's usual one.
    """
    if not config.verify.model:
        return None
    return find_model(config.verify.model, replace(config, deploy=replace(config.deploy, models="")))


def with_suffix(config: Config, suffix: str) -> Config:
    """The configuration of another release of the same sources."""
    return replace(config, build=replace(config.build, suffix=suffix))


def _wait(child: process.Child, timeout: float) -> int:
    """The exit code, or that of an interrupt after `timeout` seconds."""
    try:
        return child.wait(timeout)
    except subprocess.TimeoutExpired:
        return _end(child)
    except BaseException:
        _end(child)
        raise


def _end(child: process.Child) -> int:
    """Interrupt a task, which ends what it started; then kill what is left."""
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGTERM)
    try:
        return child.wait(_END_S)
    except subprocess.TimeoutExpired:
        return NOT_STARTED
    finally:
        process.kill_group(child.pid)
        child.wait()


def _written(bench: Bench, config: Config) -> Path:
    """A file with every setting."""
    values = records.to_builtins(config)
    del values["origins"]
    text = records.to_json(values).encode()
    file = bench.folder / _FILE.format(records.sha256_bytes(text)[:8])
    if not file.is_file():
        records.write_bytes(file, text, mode=0o600)
    return file


def _without_settings() -> list[str]:
    """Settings in the environment would win over those in the file."""
    names = [name for name in sorted(os.environ) if name.startswith(configuration.ENV_PREFIX)]
    return ["env", *(word for name in names for word in ("-u", name))] if names else []


def _shortened(output: str) -> str:
    if len(output) <= _MOST_CHARACTERS:
        return output
    half = _MOST_CHARACTERS // 2
    return f"{output[:half]}\n[... {len(output) - 2 * half} characters left out ...]\n{output[-half:]}"


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError
