"""The commits of a fork and its upstream as a graph in memory: which are upstream's, which are the fork's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set

from ...core.records import record
from ...sources import pin
from ...sources.repository import Repository

_LANDED = re.compile(r"\(#(\d+)\)$")


@record
class Node:
    """One commit. Dates are seconds since 1970."""

    id: str
    tree: str
    parents: tuple[str, ...]
    date: int
    """committer date"""
    committer: str
    author: str
    subject: str


class CommitGraph:
    """Every commit that the tips reach.

    `build` is the length of a commit's history, which is how llama.cpp numbers its builds.
    """

    def __init__(self, repository: Repository, tips: Iterable[str]) -> None:
        log = repository.git(
            *("log", "--topo-order", "--reverse", "--stdin"),
            "--format=%H%x00%T%x00%P%x00%ct%x00%ce%x00%ae%x00%s",
            stdin="".join(f"{tip}\n" for tip in tips).encode(),
        )
        self.nodes: dict[str, Node] = {}
        for line in log.splitlines():
            commit, tree, parents, date, committer, author, subject = line.split("\0", 6)
            self.nodes[commit] = Node(
                id=commit,
                tree=tree,
                parents=tuple(parents.split()),
                date=int(date),
                committer=committer,
                author=author,
                subject=subject,
            )
        self.build = pin.counts_of({node.id: list(node.parents) for node in self.nodes.values()})

    def ancestors(self, tips: Iterable[str], without: Set[str] = frozenset()) -> set[str]:
        """The tips and all their ancestors, not following commits in `without`."""
        found: set[str] = set()
        todo = [tip for tip in tips if tip not in without]
        while todo:
            commit = todo.pop()
            if commit not in found:
                found.add(commit)
                todo += [parent for parent in self.nodes[commit].parents if parent not in without]
        return found

    def in_order(self, commits: Set[str]) -> list[Node]:
        """The commits, parents before children."""
        return [node for node in self.nodes.values() if node.id in commits]

    def edge(self, own: Set[str]) -> set[str]:
        """Parents of `own` commits that are outside of `own`: where the fork began, and what it merged."""
        return {parent for commit in own for parent in self.nodes[commit].parents} - own

    def bases(self, own: Set[str], tip: str) -> list[str]:
        """Upstream's newest commits below `own`, none an ancestor of another; what git calls merge bases.

        `own` are the commits of `tip` that upstream lacks; if empty, the tip is upstream's and its own base.
        """
        if not own:
            return [tip]
        edge = self.edge(own)
        best: list[str] = []
        below: set[str] = set()
        for commit in sorted(edge, key=lambda one: self.build[one], reverse=True):
            if commit not in below:
                best.append(commit)
                below |= self.ancestors([commit], below)
        return best

    def beyond(self, newest: str) -> str:
        """The newest commit of upstream's that only the fork has: a straight line of landed pull requests on `newest`.

        Forks number their own pull requests from 1, so the numbers on that line must continue upstream's.
        """
        children: dict[str, list[str]] = {}
        for node in self.nodes.values():
            for parent in node.parents:
                children.setdefault(parent, []).append(node.id)
        last = _landed(self.nodes[newest])
        while last is not None:
            following = [
                child
                for child in children.get(newest, ())
                if (number := _landed(self.nodes[child])) is not None and number > 0.9 * last
            ]
            if not following:
                break
            newest = max(following, key=lambda child: (self.nodes[child].date, child))
            last = max(last, _landed(self.nodes[newest]) or 0)
        return newest


def _landed(node: Node) -> int | None:
    """Number of the pull request that upstream landed as this commit."""
    found = _LANDED.search(node.subject)
    made_on_the_web = node.committer == pin.WEB_COMMITTER and len(node.parents) == 1
    return int(found.group(1)) if found and made_on_the_web else None
