"""From the flags of `./inv quality.guard` to a verdict, and from a model's verdict to the service's cache type."""

from __future__ import annotations

from pathlib import Path

from ...build.release import llama_server
from ...core.records import write
from ...core.run import Run
from ...proofs import Compatibility
from ...series.manifest import load_series
from ...stages import Release
from ..memory import pinned
from ..named import find_model
from ..quality.choices import find_server
from ..quality.samples import read_text
from . import verdict


def examine(
    run: Run, model: str, text: str, release: str, server: str, weights_only: bool, cheapest: bool
) -> Compatibility:
    """Judge the service's cache type, or find the `cheapest` one that is fine, and store the verdict."""
    config, added = run.config, load_series(run).types
    found = verdict.examine(
        find_model(model or config.verify.model, config, run.console),
        verdict.cheapest(added) if cheapest else config.deploy.kv_cache_type,
        added=added,
        server=None if weights_only else find_server(run, server, release),
        text=read_text(text),
        config=config,
        console=run.console,
        dialect=pinned.dialect(config, [kind.name for kind in added]),
    )
    write(run.workspace / "quality" / "guard.json", found)
    return found


def suited(run: Run, release: Release, folder: Path) -> Run:
    """The run with the cheapest cache type that is fine for the model `verify.model`, measured on the release in
    `folder`. The run itself where no model is named, where somebody chose the type, or where none is fine."""
    config = run.config
    if not config.verify.model or run.chosen("deploy.kv_cache_type") or not release.cache_types:
        return run
    found = verdict.examine(
        find_model(config.verify.model, config, run.console),
        verdict.cheapest(release.cache_types),
        added=release.cache_types,
        server=llama_server(folder),
        text=read_text(""),
        config=config,
        console=run.console,
    )
    chosen = verdict.fine(found)
    if not chosen:
        return run
    run.console.note(f"{found.model}: {chosen} is the cheapest cache type that is fine, of {len(found.trials)} tried")
    return run.with_deploy("kv_cache_type", chosen, found.model)
