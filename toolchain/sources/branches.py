"""The branches of a repository."""

from __future__ import annotations

import re

from .repository import Repository


def branches(repository: Repository) -> dict[str, str]:
    """Tips by branch, newest first: local branches, and remote ones unless equal to the local one of that name."""
    listed = repository.git(
        "for-each-ref", "--format=%(refname)%00%(objectname)%00%(symref)", "refs/heads", "refs/remotes"
    )
    tips: dict[str, str] = {}
    for line in listed.splitlines():
        ref, tip, symbolic = line.split("\0")
        name = re.sub(r"^refs/(heads|remotes)/", "", ref)
        if symbolic or (ref.startswith("refs/remotes/") and tips.get(name.partition("/")[2]) == tip):
            continue
        tips[name] = tip
    dates = (
        repository.git(
            *("log", "--no-walk=unsorted", "--ignore-missing", "--stdin", "--format=%H %ct"),
            stdin="".join(f"{tip}\n" for tip in tips.values()).encode(),
        )
        if tips
        else ""
    )
    date = {commit: int(seconds) for commit, seconds in (line.split() for line in dates.splitlines())}
    there = {name: tip for name, tip in tips.items() if tip in date}
    return dict(sorted(there.items(), key=lambda item: (-date[item[1]], item[0])))
