"""Rules for workflows of GitHub Actions: what runs there is pinned, may do little, and cannot be told what to run.

These hold without actionlint, which knows the syntax but few of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from .findings import Fault
from .tree import File

_PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}|docker://\S+@sha256:[0-9a-f]{64}|\./\S*")
_VERSION = re.compile(r"#\s*v?\d+(\.\d+)*\b")
_SECRET = re.compile(r"\bsecrets\s*(?:\.\s*(\w+)|\[)|\btoJSON\(\s*secrets\b", re.IGNORECASE)
_EXPRESSION = re.compile(r"\$\{\{")
_FORBIDDEN_EVENTS = ("pull_request_target", "workflow_run")
_LEAST = ("", "none", "read")

Node = yaml.Node
Entries = dict[str, Node]


def is_workflow(file: File) -> bool:
    """Whether a YAML file has the parts of a workflow."""
    if file.suffix not in (".yml", ".yaml") or file.text is None:
        return False
    return bool(
        re.search(r"^jobs:", file.text, re.MULTILINE) and re.search(r"^[\"']?on[\"']?:", file.text, re.MULTILINE)
    )


def faults(file: File) -> Iterator[Fault]:
    """Every breach of a rule; nothing for a file that does not parse, which the parser reports."""
    try:
        root = yaml.compose(file.text or "", Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return
    for line, reason in sorted(_workflow(_entries(root), (file.text or "").splitlines())):
        yield Fault(path=file.name, line=line, reason=reason)


def _workflow(top: Entries, lines: list[str]) -> Iterator[tuple[int, str]]:
    on = top.get("on")
    for event in _FORBIDDEN_EVENTS:
        for node in _scalars(on) if not isinstance(on, yaml.MappingNode) else (_keys(on)):
            if node.value == event:
                yield _line(node), f"on: {event} runs code of strangers with this repository's rights"
    if "permissions" not in top:
        yield 1, "no permissions: at the top, so that every job gets the repository's default"
    else:
        yield from _permissions(top["permissions"])
    for name, node in top.items():
        if name != "jobs":
            yield from _secrets(node, "outside of a job")
    for name, job in _entries(top.get("jobs")).items():
        yield from _job(name, job, lines)


def _permissions(node: Node) -> Iterator[tuple[int, str]]:
    """At the top at most read; a job that needs more says so itself."""
    if isinstance(node, yaml.ScalarNode) and node.value:
        yield _line(node), f"permissions: {node.value} at the top is not the least; name single ones, or {{}}"
    for scope, value in _entries(node).items():
        if getattr(value, "value", "") not in _LEAST:
            yield _line(value), f"permissions: {scope} is more than read at the top; give it to the job that needs it"


def _job(name: str, node: Node, lines: list[str]) -> Iterator[tuple[int, str]]:
    job = _entries(node)
    if "uses" in job:  # another workflow, which has limits of its own
        yield from _pin(job["uses"], lines)
        if getattr(job.get("secrets"), "value", "") == "inherit":
            yield _line(job["secrets"]), f"job {name}: secrets: inherit hands on every secret"
    elif "timeout-minutes" not in job:
        yield _line(node), f"job {name}: no timeout-minutes, so that it may hang for six hours"
    if "environment" not in job:
        yield from _secrets(node, f"in job {name}, which has no protected environment")
    for step in _items(job.get("steps")):
        yield from _step(_entries(step), lines)


def _step(step: Entries, lines: list[str]) -> Iterator[tuple[int, str]]:
    if run := step.get("run"):
        for number, text in _block(run):
            if _EXPRESSION.search(text):
                yield number, "${{ }} inside run: is pasted into the script before the shell reads it; use env:"
    if uses := step.get("uses"):
        yield from _pin(uses, lines)
        inputs = _entries(step.get("with"))
        credentials = inputs.get("persist-credentials")
        if str(uses.value).startswith("actions/checkout@") and getattr(credentials, "value", "") != "false":
            yield _line(uses), "actions/checkout leaves the token in .git: persist-credentials: false"


def _pin(node: Node, lines: list[str]) -> Iterator[tuple[int, str]]:
    if not _PINNED.fullmatch(str(node.value)):
        yield _line(node), f"uses: {node.value} is not pinned by a commit of 40 digits; a tag can be moved"
    elif "@" in str(node.value) and not _VERSION.search(lines[node.start_mark.line]):
        yield _line(node), f"uses: {node.value} has no comment with its version, as in # v4.2.1"


def _secrets(node: Node, where: str) -> Iterator[tuple[int, str]]:
    """Secrets that are used; GITHUB_TOKEN is none of the repository's, `permissions` limits it."""
    for scalar in _scalars(node):
        for number, text in _block(scalar):
            for match in _SECRET.finditer(text):
                if match[1] != "GITHUB_TOKEN":
                    yield number, f"a secret {where}: {match[1] or match[0]}"


def _block(node: Node) -> Iterator[tuple[int, str]]:
    """The lines of a scalar, numbered as in the file."""
    first = _line(node) + (1 if getattr(node, "style", None) in ("|", ">") else 0)
    yield from enumerate(str(node.value).split("\n"), first)


def _entries(node: Node | None) -> Entries:
    """The values of a mapping by key, empty for anything else. `on` is a truth value in YAML, here a key."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {str(key.value): value for key, value in node.value}


def _keys(node: yaml.MappingNode) -> list[Node]:
    return [key for key, _ in node.value]


def _items(node: Node | None) -> list[Node]:
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _scalars(node: Node | None) -> Iterator[Node]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.SequenceNode):
        for one in node.value:
            yield from _scalars(one)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _scalars(key)
            yield from _scalars(value)


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
