"""Attention on the model's own keys and queries: do the cache's keys give the weights that the exact ones give?

turbo-dump runs the model once with each cache. llama-server, with the candidate's cache, reads the same tokens and
saves its cache. So four things are known of each layer: what it wanted to store, what the server stored, what our
reference quantizer makes of the same numbers, and what each query does with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ...core.errors import MissingTool, ReleaseInvalid
from ...core.records import record
from ...models.quality import kernels, queries
from ...models.quality.codec import Codec
from ...models.quality.dump import read_heads
from ...models.quality.fidelity import LayerFidelity, compare, paired
from ...models.quality.references import REFERENCES
from ...series import manifest
from ...serving import slot
from ...serving.launcher import require_program
from ...verify import evidence
from ..plan import SIDES, Side
from ..result import TestResult
from ..trial import Trial
from . import keys_alone, saved_cache
from .attention_verdict import NAME, judge

STRIDE = 16
"""one token of so many is a query"""


@record
class Compared:
    """All layers, or why none can be compared; `unreferenced`: why the series' types have no reference quantizer."""

    layers: tuple[LayerFidelity, ...] = ()
    unasked: str = ""
    unreferenced: str = ""


def measure(trial: Trial) -> TestResult:
    """Each layer's weights. Raises as the servers and turbo-dump do."""
    plan = trial.plan
    if plan.release_dir is None:
        return _not_asked("a server that was not started here hands out no cache")
    if plan.backend == "ollama":
        return _not_asked("Ollama hands out no cache; --against llama-server asks the same files")
    try:
        require_program(plan.release_dir / queries.PROGRAM, "")
    except ReleaseInvalid:
        return keys_alone.measure(trial, NAME, "the release has no turbo-dump: build it with this series")
    with trial.progress("attention: the model's own keys and queries", 4) as progress:
        tokens = saved_cache.tokens(trial)
        saved = saved_cache.stored(trial, "candidate", tokens)
        progress.advance("what the server stored")
        for side in SIDES:
            trial.sides.stop(side)  # the model is loaded once more
        files = {}
        for side in SIDES:
            files[side] = _dumped(trial, side, tokens)
            progress.advance(f"queries and keys with {plan.cache(side)}")
        found = trial.kept("attention/layers", Compared, lambda: _compare(trial, saved, files))
        progress.advance("all layers")
    if found.unasked:
        return _not_asked(found.unasked)
    return judge(found.layers, trial.added, tokens=len(tokens), unreferenced=found.unreferenced)


def _not_asked(why: str) -> TestResult:
    return TestResult(test=NAME, verdict="not asked", summary=why)


def _dumped(trial: Trial, side: Side, tokens: tuple[int, ...]) -> Path:
    """The layers of a side's run."""
    plan = trial.plan
    assert plan.release_dir is not None
    directory = plan.release_dir

    def take(path: Path) -> None:
        layers = queries.dump(
            directory,
            plan.model,
            tokens,
            cache=plan.cache(side),
            context=plan.working_context,
            stride=STRIDE,
            environment=plan.environment,
            timeout_s=trial.config.validate.timeout_s,
        )
        queries.save(path, layers)

    return saved_cache.beside(trial, f"attention/{side}", ".npz", take)


def _compare(trial: Trial, saved: Path, files: Mapping[Side, Path]) -> Compared:
    directory = trial.plan.release_dir
    assert directory is not None
    layers = list(queries.load(files["candidate"]))
    baseline = {one.layer: one for one in queries.load(files["baseline"])}
    if not layers or set(baseline) != {one.layer for one in layers}:
        return Compared(unasked="not every layer computes flash attention over a cache of its own")
    if any(one.alibi for one in layers):
        return Compared(unasked="the model's scores have the bias of ALiBi, which turbo-dump does not tell by head")
    names = {one.id_k: one.type_k for one in layers} | {one.id_v: one.type_v for one in layers}
    has_v = read_heads(trial.plan.model).has_v
    found = slot.load(saved, has_v=has_v, decode=lambda kind, blocks: evidence.decode(directory, names[kind], blocks))
    references, why = _references(trial, {*names.values()})
    compared = [compare(exact, stored, baseline[exact.layer], references) for exact, stored in paired(layers, found)]
    return Compared(layers=tuple(sorted(compared, key=lambda one: one.layer)), unreferenced=why)


def _references(trial: Trial, names: Collection[str]) -> tuple[dict[str, Codec], str]:
    """Reference quantizers by type, for those of `names` that have one; and why those of the series lack."""
    own: Iterable[Codec] = ()
    why = ""
    if not {kind.name for kind in trial.added} & set(names):
        return {codec.name: codec for codec in REFERENCES}, ""
    try:
        series = manifest.load(manifest.root_of(trial.config))
        if series.types == trial.added:
            own = kernels.load(series, trial.config, trial.workspace)
        else:
            why = "the release was built with other types than those of this series"
    except MissingTool as error:
        why = error.message
    return {codec.name: codec for codec in (*own, *REFERENCES)}, why
