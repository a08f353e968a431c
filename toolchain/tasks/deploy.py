"""`./inv deploy`: the service, installed, rolled back, looked at, removed."""

from __future__ import annotations

from .. import deploy, pipeline
from ..build import find_release
from ..core.run import Run
from .command import Group

group = Group("deploy")


@group.task(
    "workspace",
    "prefix",
    "port",
    "kv_cache_type",
    release="id or directory; empty: the newest one built",
    unverified="install it even without a successful verification",
)
def install(run: Run, release: str = "", unverified: bool = False) -> None:
    """Make a verified release the service."""
    run.finish(pipeline.install(run, find_release(run, release), unverified=unverified))


@group.task("prefix", "port", to="release to go back to; empty: the one before the active one")
def rollback(run: Run, to: str = "") -> None:
    """Go back to the release before."""
    run.finish(deploy.rollback(run.config, run.console, to))


@group.task("prefix", "port")
def status(run: Run) -> None:
    """What is active and whether it is healthy."""
    run.finish(deploy.status(run.config, run.console))


@group.task("prefix", "port")
def environment(run: Run) -> None:
    """What the service is given: its variables, and where each comes from."""
    run.finish(deploy.given_environment(run.config, run.console))


@group.task("prefix", lines="how many lines")
def logs(run: Run, lines: int = 100) -> None:
    """The end of the service's log."""
    run.finish(deploy.logs(run.config, lines))


@group.task("prefix")
def prune(run: Run) -> None:
    """Delete old releases."""
    run.finish(deploy.prune(run.config, run.console))


@group.task("prefix")
def uninstall(run: Run) -> None:
    """Stop and remove the service."""
    run.finish(deploy.uninstall(run.config, run.console))
