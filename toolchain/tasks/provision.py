"""`./inv provision`: what puts the service onto Macs."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import ConfigError
from ..core.run import Run
from ..provisioning.adapters import rendering
from ..publishing import adapting, packing
from .command import Group
from .flags import Names

group = Group("provision")


@group.task(
    "workspace",
    out="folder for the files; empty: adapters in the workspace",
    only=f"{', '.join(rendering.ADAPTERS)} (repeatable, or with commas); empty: all",
    desired="desired-state file of the Macs",
    channel="channel whose release is rendered; empty: publish.channel",
)
def adapters(run: Run, out: str = "", only: Names = Names(), desired: str = "", channel: str = "") -> None:
    """Files for the tools that manage Macs."""
    publish = run.config.publish
    if not desired:
        raise ConfigError("--desired is missing", hint="--desired FILE, with at least channel_url=https://...")
    if not publish.signers:
        raise ConfigError("publish.signers is not set", hint="--set publish.signers=FILE with the publisher's keys")
    given = adapting.inputs(
        packing.publication(run),
        channel or publish.channel,
        Path(desired).expanduser(),
        Path(publish.signers).expanduser(),
        Path(publish.revoked).expanduser() if publish.revoked else None,
    )
    run.finish(rendering.write(given, run.output(out, "adapters"), only))
