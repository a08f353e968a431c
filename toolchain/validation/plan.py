"""What a validation measures, fixed before its first answer.

The id is a digest of all that decides a result, so that the same command goes on with an interrupted validation, and
another one never mixes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Literal

from ..core.records import record, sha256_bytes, to_json

Backend = Literal["llama-server", "ollama"]
Side = Literal["baseline", "candidate"]
SIDES: tuple[Side, ...] = ("baseline", "candidate")


@record
class Plan:
    """All that decides what is measured. Contexts are in tokens."""

    model: Path
    model_name: str
    """as in SmolLM2 135M Instruct"""
    model_sha256: str
    trained_context: int
    release: str
    """id of the release that serves; empty with two endpoints"""
    release_dir: Path | None
    content_sha256: str
    """of the release, as in its verification"""
    backend: Backend
    baseline: str
    """a cache setting in its canonical form"""
    candidate: str
    baseline_url: str = ""
    """a running server to ask instead of one of the release"""
    candidate_url: str = ""
    baseline_log: Path | None = None
    """of the running server: proves its cache type"""
    candidate_log: Path | None = None
    contexts: tuple[int, ...]
    tests: tuple[str, ...]
    seed: int
    text: Path
    """that the model reads"""
    text_sha256: str
    text_bytes: int
    perplexity_bytes: int
    """of the text, that the perplexity is measured on at most"""
    prompts_sha256: str
    """of all fixed prompts and questions of the tests"""
    environment: Mapping[str, str] = field(default_factory=dict)
    """further variables of the servers: `deploy.environment`"""

    @property
    def id(self) -> str:
        """Name of the validation's folder: model, candidate, backend and 10 digits of the digest.

        Where files lie does not count: their content does. Nor do the tests: one may be added after the other.
        """
        here = Path()
        deciding = replace(self, model=here, release_dir=None, text=here, tests=())
        digest = sha256_bytes(to_json(deciding).encode())[:10]
        words = (self.model.stem[:40], self.candidate, self.backend, digest)
        return "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in word)[:60] for word in words)

    @property
    def baseline_id(self) -> str:
        """The same of the baseline alone: equal for all candidates that are compared with it."""
        return replace(
            self, candidate="", candidate_url="", candidate_log=None, tests=(), contexts=(), perplexity_bytes=0
        ).id

    def cache(self, side: Side) -> str:
        """The cache setting of a side."""
        return self.baseline if side == "baseline" else self.candidate

    def url(self, side: Side) -> str:
        """The running server of a side; empty when one is started."""
        return self.baseline_url if side == "baseline" else self.candidate_url

    def log(self, side: Side) -> Path | None:
        """The log of a side's running server, if it was named."""
        return self.baseline_log if side == "baseline" else self.candidate_log

    @property
    def working_context(self) -> int:
        """Context of the tests that do not go through `contexts`."""
        return min(8192, self.trained_context)
