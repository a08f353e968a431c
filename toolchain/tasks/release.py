"""`./inv release`: from a verified release to files that anyone can check."""

from __future__ import annotations

from ..core.run import Run
from ..publishing import forge
from .command import Group

group = Group("release")


@group.task(
    "workspace",
    release="id of a release in publish.folder, packed and signed",
    repo="owner/name of the repository at publish.forge; empty: publish.repository",
    tag="tag of the release there; empty: the id",
    target="commit or branch that the tag is made on; empty: the default branch",
    prerelease="mark it as one that is not ready for everybody",
)
def upload(run: Run, release: str, repo: str = "", tag: str = "", target: str = "", prerelease: bool = False) -> None:
    """Publish at a forge: draft, compare, publish."""
    run.finish(forge.upload(run, release, repo, tag=tag, target=target, prerelease=prerelease))
