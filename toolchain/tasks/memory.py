"""`./inv memory`: what fits."""

from __future__ import annotations

from ..core.run import Run
from ..host import machine as host
from ..models.memory import planning
from .command import Group
from .flags import CacheSettings, Names

group = Group("memory", default="plan")


@group.task(
    model="GGUF file, its http(s) URL, or a model in Ollama's store",
    context="tokens, such as 65536 or 64K (repeatable, or with commas); empty: 8K to 128K",
    types="cache types to compare (repeatable, or with blanks); empty: six types",
    ram="GiB of a Mac to plan for; 0: this machine",
    parallel="sequences at once (OLLAMA_NUM_PARALLEL)",
    unified="the sequences share one cache (llama-server --kv-unified)",
    batch="tokens that are processed at once (Ollama's num_batch)",
)
def plan(
    run: Run,
    model: str = "",
    context: Names = Names(),
    types: CacheSettings = CacheSettings(),
    ram: float = 0.0,
    parallel: int = 1,
    unified: bool = False,
    batch: int = 512,
) -> None:
    """What fits: contexts by cache types."""
    run.finish(planning.plan_for(run, model, context, types, ram, parallel, unified, batch))


@group.task("workspace", "port")
def machine(run: Run) -> None:
    """What this machine is."""
    run.finish(host.look(run.config))
