"""The generated parts of docs/reference: `python -m tests.docs.reference` writes them, tests/docs compares them.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`. What surrounds it is written by hand. The tasks,
their flags, the settings, the exit codes and the fields of every record come out of the code.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from invoke.tasks import Task

import tasks
import toolchain
from toolchain.core.config import Config, rows
from toolchain.core.exit_codes import exit_code_table

from .pages import ROOT

REFERENCE = ROOT / "docs/reference"
SHARED = ("config", "set", "json")
"""flags of every task; the page describes them once"""
PLATFORM_FOLDERS = {
    "workspace": "~/.cache/turboquant; macOS: ~/Library/Caches/turboquant",
    "deploy.prefix": "~/.local/share/turboquant; macOS: ~/Library/Application Support/turboquant",
}
"""settings whose default depends on the platform"""
ROOMS = {
    "audited": "metal",
    "finding": "host",
    "machine": "host",
    "report": "validation",
}
"""which of several records of one name tasks.md means: the one in this room"""

_PART = re.compile(r"(<!-- generated: ([\w. -]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_RECORD_LINK = re.compile(r"\]\(records\.md#([\w-]+)\)")


def parts(text: str) -> dict[str, str]:
    """The generated parts of a page by name."""
    return {match[2]: match[3] for match in _PART.finditer(text)}


def renewed(text: str) -> str:
    """The page with every generated part as the code has it now. Raises `KeyError` for a part that nobody makes."""
    return _PART.sub(lambda match: f"{match[1]}{_made(match[2])}{match[4]}", text)


def _made(name: str) -> str:
    kind, _, which = name.partition(" ")
    match kind:
        case "tasks":
            return _table(
                "| task | what it does |",
                [f"| [`{name}`](#{_anchor(name)}) | {_summary(task)} |" for name, task in all_tasks().items()],
            )
        case "flags":
            return _flags(all_tasks()[which])
        case "settings":
            return _settings(which)
        case "exit-codes":
            return f"\n{exit_code_table()}\n"
        case "records":
            return _records(linked_records())
    raise KeyError(name)


def all_tasks() -> dict[str, Task[Any]]:
    """Every task of `./inv --list` by its full name, in that order."""
    collection = tasks.namespace()
    return {name: collection[name] for name in sorted(collection.task_names, key=lambda name: ("." in name, name))}


def flags(task: Task[Any]) -> dict[str, Any]:
    """The task's own flags: name on the command line -> Invoke's argument."""
    twin = copy.copy(task)
    twin.help = dict(task.help)  # Invoke takes the texts out of it
    found = {}
    for argument in twin.get_arguments():
        name = str(argument.name).strip("_").replace("_", "-")
        if name not in SHARED:
            found[f"--no-{name}" if argument.kind is bool and argument.default else f"--{name}"] = argument
    return dict(sorted(found.items()))


def _summary(task: Task[Any]) -> str:
    return (inspect.getdoc(task) or "").splitlines()[0]


def _flags(task: Task[Any]) -> str:
    lines = []
    for name, argument in flags(task).items():
        default = argument.default if argument.kind is not bool and argument.default else ""
        lines.append(f"| `{name}` | {_cell(argument.help or '')} | {default} |")
    return _table("| flag | meaning | default |", lines) if lines else "\nIt takes the shared flags alone.\n\n"


def _settings(section: str) -> str:
    lines = []
    for row in rows(Config()):
        if row.key.rpartition(".")[0] != section.replace("top-level", ""):
            continue
        value = " ".join(row.value) if isinstance(row.value, tuple) else str(row.value)
        value = value.lower() if isinstance(row.value, bool) else value
        value = PLATFORM_FOLDERS.get(row.key, value)
        lines.append(f"| `{row.key}` | {_cell(row.help)} | {_code(value)} | {_code(row.allowed)} |")
    if not lines:
        raise KeyError(section)
    return _table("| setting | meaning | default | allowed |", lines)


def _table(head: str, lines: list[str]) -> str:
    return "\n".join(["", head, "|" + "---|" * (head.count("|") - 1), *lines, "", ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text and text != "text" else text


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def linked_records() -> list[type]:
    """The records that tasks.md names, by their links into records.md. Raises `LookupError` for one that is gone."""
    wanted = dict.fromkeys(_RECORD_LINK.findall((REFERENCE / "tasks.md").read_text(encoding="utf-8")))
    known: dict[str, list[type]] = {}
    for cls in _dataclasses():
        known.setdefault(cls.__name__.lower(), []).append(cls)
    found = []
    for name in wanted:
        those = known.get(name, [])
        if len(those) > 1:
            those = [cls for cls in those if ROOMS.get(name) in cls.__module__.split(".")[:-1]]
        if len(those) != 1:
            raise LookupError(f"tasks.md names the record {name!r}, of which there are {len(those)}")
        found += those
    return found


def _dataclasses() -> Iterator[type]:
    for module in pkgutil.walk_packages(toolchain.__path__, "toolchain."):
        if module.name.endswith("__main__"):
            continue
        loaded = importlib.import_module(module.name)
        for value in vars(loaded).values():
            if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == module.name:
                yield value


def _records(first: list[type]) -> str:
    ordered, todo = list(first), list(first)
    while todo:
        for inner in _inner(todo.pop(0)):
            if inner not in ordered:
                ordered.append(inner)
                todo.append(inner)
    ordered.sort(key=lambda cls: (cls.__name__, cls.__module__))
    names = Counter(cls.__name__ for cls in ordered)
    titles = {
        cls: cls.__name__
        if cls in first or names[cls.__name__] == 1
        else f"{cls.__name__} ({cls.__module__.rpartition('.')[2]})"
        for cls in ordered
    }
    return "\n" + "".join(_record(cls, titles) for cls in ordered)


def _inner(cls: type) -> Iterator[type]:
    for kind in typing.get_type_hints(cls).values():
        yield from _named(kind)


def _named(kind: Any) -> Iterator[type]:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        yield kind
    for argument in typing.get_args(kind):
        yield from _named(argument)


def _record(cls: type, titles: Mapping[type, str]) -> str:
    hints = typing.get_type_hints(cls)
    notes = _notes(cls)
    lines = [
        f"| `{field.name}` | {_cell(_spelled(hints[field.name], titles))} | {_cell(notes.get(field.name, ''))} |"
        for field in dataclasses.fields(cls)
    ]
    about = " ".join((inspect.getdoc(cls) or "").split())
    return f"### {titles[cls]}\n\n{about}\n{_table('| field | type | meaning |', lines)}"


def _spelled(kind: Any, titles: Mapping[type, str]) -> str:
    """A type as JSON has it: lists for tuples, objects for mappings and records."""
    if kind is None or kind is type(None):
        return "null"
    arguments, origin = typing.get_args(kind), typing.get_origin(kind)

    def spelled(one: Any) -> str:
        return _spelled(one, titles)

    if origin is typing.Literal:
        return " or ".join(f'"{one}"' for one in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(spelled, arguments))
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"list ({', '.join(map(spelled, arguments))})"
    if origin in (tuple, list):
        return f"list of {spelled(arguments[0])}"
    if origin is not None and len(arguments) == 2:
        return f"object: {spelled(arguments[0])} to {spelled(arguments[1])}"
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return f"[{titles[kind]}](#{_anchor(titles[kind])})"
    plain = {str: "text", int: "integer", float: "number", bool: "boolean", Path: "path"}
    return plain.get(kind) or str(kind.__name__)


def _notes(cls: type) -> dict[str, str]:
    """The string literal below a field in the class body, which says what the field means."""
    import ast
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for one, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and isinstance(after, ast.Expr):
            value = after.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found[one.target.id] = " ".join(value.value.split())
    return found


def main() -> None:
    """Write the generated parts anew."""
    for page in sorted(REFERENCE.glob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = renewed(before)
        if after != before:
            page.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
