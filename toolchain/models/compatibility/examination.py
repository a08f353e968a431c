"""From the flags of `./inv quality.guard` to a verdict."""

from __future__ import annotations

from ...core.records import write
from ...core.run import Run
from ...proofs import Compatibility
from ...series.manifest import load_series
from ..memory import pinned
from ..quality.choices import find_server
from ..quality.samples import read_text
from . import verdict


def examine(run: Run, model: str, text: str, release: str, server: str, weights_only: bool) -> Compatibility:
    """Judge the service's cache type, and store the verdict."""
    config, added = run.config, load_series(run).types
    found = verdict.examine(
        verdict.find_model(model or config.verify.model, config, run.console),
        config.deploy.kv_cache_type,
        added=added,
        server=None if weights_only else find_server(run, server, release),
        text=read_text(text),
        config=config,
        console=run.console,
        dialect=pinned.dialect(config, [kind.name for kind in added]),
    )
    write(run.workspace / "quality" / "guard.json", found)
    return found
