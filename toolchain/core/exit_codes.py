"""The exit codes of all errors, as docs/reference/exit-codes.md lists them."""

from __future__ import annotations

from collections.abc import Iterator

from . import delivery_errors as delivery_errors  # its classes count, too
from . import validation_errors as validation_errors
from .errors import ToolchainError


def all_errors() -> Iterator[type[ToolchainError]]:
    """Every class of error, in order of exit code."""
    todo, found = [ToolchainError], set[type[ToolchainError]]()
    while todo:
        for sub in todo.pop().__subclasses__():
            found.add(sub)
            todo.append(sub)
    return iter(sorted(found, key=lambda cls: cls.exit_code))


def exit_code_table() -> str:
    """The exit codes as a Markdown table, for docs/reference/exit-codes.md and `./inv --help`."""
    rows = [(0, "success", ""), (1, "a bug (with a traceback)", ""), (2, "wrong usage of a task", "")]
    rows += [(cls.exit_code, (cls.__doc__ or "").splitlines()[0].rstrip("."), cls.__name__) for cls in all_errors()]
    lines = ["| code | meaning | error |", "|---|---|---|"]
    lines += [f"| {code} | {meaning} | {f'`{name}`' if name else ''} |" for code, meaning, name in rows]
    return "\n".join(lines) + "\n"
