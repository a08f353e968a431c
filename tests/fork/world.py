"""An upstream and a fork of it, as real repositories with dates that mean something."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.sources.gitrepo import WEB, git, new, snapshot
from toolchain.core.console import Console
from toolchain.sources import Repository
from toolchain.upstream.fork.branch import Branch
from toolchain.upstream.fork.conflicts import Conflicts, conflicts
from toolchain.upstream.fork.freshness import Freshness, freshness
from toolchain.upstream.fork.join import Joined

NOW = datetime(2026, 8, 1, tzinfo=UTC)
KV = "src/llama-kv-cache.cpp"
METAL = "ggml/src/ggml-metal/ggml-metal.metal"
ARG = "common/arg.cpp"


def lines(*changed: tuple[int, str], count: int = 40) -> str:
    """A file of `count` lines, some of them replaced."""
    new_lines = dict(changed)
    return "".join(f"{new_lines.get(number, f'line {number}')}\n" for number in range(count))


class World:
    """`upstream` lands pull requests; `fork` is a clone of it with commits of its own."""

    def __init__(self, folder: Path, upstream: Mapping[str, str] | None = None) -> None:
        self.upstream = new(folder / "upstream")
        self.fork = folder / "fork"
        self._request = 20_000
        self.land(upstream or {KV: lines(), METAL: lines(), ARG: lines(), "README.md": "hello\n"}, days=100)
        git(folder, "clone", "--quiet", str(self.upstream), str(self.fork))

    def land(self, files: Mapping[str, str | None], *, days: float) -> str:
        """Upstream lands a pull request `days` before now."""
        self._request += 1
        return commit(self.upstream, files, f"a change (#{self._request})", days=days, who=WEB)

    def work(self, files: Mapping[str, str | None], subject: str = "turbo work", *, days: float = 1) -> str:
        """The fork commits."""
        return commit(self.fork, files, subject, days=days)

    def fetch(self) -> None:
        """The fork learns of upstream's commits."""
        git(self.fork, "fetch", "--quiet", "origin")

    def joined(self) -> Joined:
        """Both, as the toolkit opens them."""
        return Joined(Repository.open(self.fork), Repository.open(self.upstream))

    def freshness(self, *names: str, now: datetime = NOW) -> Freshness:
        """The fork's local branch, unless others are named."""
        with self.joined() as both:
            return freshness(both, Console(), now=now, names=names or ("master",))

    def branch(self) -> Branch:
        """The fork's master."""
        return self.freshness().branches[0]

    def conflicts(self, patches: Mapping[str, bytes] | None = None, onto: str = "") -> Conflicts:
        """The fork's master onto upstream's newest commit."""
        with self.joined() as both:
            branch = freshness(both, Console(), now=NOW, names=["master"]).branches[0]
            onto = onto or git(self.upstream, "rev-parse", "HEAD")
            return conflicts(both, branch, onto, Console(), patches=patches or {})


def untouched(where: Path) -> dict[str, bytes]:
    """Every file of a repository with its time, but without the times of objects, which git renews when it reads on."""
    files = snapshot(where)
    return {name: data.partition(b" ")[2] if "objects/" in name else data for name, data in files.items()}


def commit(where: Path, files: Mapping[str, str | None], subject: str, *, days: float, who: str = "ada@a.org") -> str:
    """Write the files (None deletes one) and commit them, dated `days` before now; returns the id."""
    for name, content in files.items():
        path = where / name
        if content is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "--allow-empty", "-m", subject, env=dated(days, who))
    return git(where, "rev-parse", "HEAD")


def dated(days: float, who: str = "ada@a.org") -> dict[str, str]:
    """Author and committer, `days` before now."""
    date = (NOW - timedelta(days=days)).isoformat()
    return {
        "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_DATE": date,
        "GIT_AUTHOR_EMAIL": who,
        "GIT_COMMITTER_EMAIL": who,
    }
