"""`./inv profile`: configurations of clients for the service."""

from __future__ import annotations

from ..core.run import Run
from ..profiles import clients, rendering
from .command import Group
from .flags import Names

group = Group("profile", default="list")


@group.task(name="list")
def list_clients(run: Run) -> None:
    """The clients that a profile can be rendered for."""
    run.finish(clients.clients())


@group.task(
    "port", "kv_cache_type",
    client="a name of profile.list",
    model="GGUF file, its http(s) URL, or a model in Ollama's store",
    served_as="name by which the service knows the model; empty: --model",
    memory_gb="GiB of the Mac that serves; 0: this machine",
    context="tokens; 0: the most that fits",
    fallback="another model of the service, or NAME@URL at another one (repeatable)",
    key_variable="environment variable that holds the service's key",
    address="host by which the client reaches the service; empty: deploy.host",
    out="file to write; a file that is none of ours is left alone",
)  # fmt: skip
def render(
    run: Run,
    client: str,
    model: str,
    served_as: str = "",
    memory_gb: float = 0.0,
    context: int = 0,
    fallback: Names = Names(),
    key_variable: str = "",
    address: str = "",
    out: str = "",
) -> None:
    """A client's configuration for the service."""
    wanted = rendering.Wanted(
        client=client, model=model, served_as=served_as, memory_gb=memory_gb, context=context, fallbacks=fallback,
        key_variable=key_variable, address=address, out=out,
    )  # fmt: skip
    run.finish(rendering.render(run, wanted))
