"""What no file of the repository may have, whatever its kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .findings import Fault
from .tree import File

LARGEST = 1 << 20
"""bytes; what is larger stays in every clone for ever"""
_MARKER = re.compile(r"^(<{7}|\|{7}|>{7})(?: .*)?$", re.MULTILINE)  # ={7} also underlines a heading


def faults(file: File) -> Iterator[Fault]:
    """All faults of a file."""
    if file.is_link:
        yield from _link(file)
        return
    if len(file.data) > LARGEST:
        yield Fault(path=file.name, reason=f"{len(file.data)} bytes; the limit is {LARGEST}")
    if b"\0" not in file.data:
        yield from _text(file)
    if file.executable and not file.interpreter:
        yield Fault(path=file.name, reason="executable, but its first line names no interpreter (#!)")
    if file.interpreter and not file.executable and file.suffix != ".j2":  # what a template renders is executable
        yield Fault(path=file.name, line=1, reason="its first line names an interpreter, but it is not executable")


def _text(file: File) -> Iterator[Fault]:
    if file.text is None:
        yield Fault(path=file.name, reason="neither binary nor UTF-8")
        return
    if "\r" in file.text:
        line = file.text[: file.text.index("\r")].count("\n") + 1
        yield Fault(path=file.name, line=line, reason="a carriage return; lines end with a line feed alone")
    if marker := _MARKER.search(file.text):
        line = file.text.count("\n", 0, marker.start()) + 1
        yield Fault(path=file.name, line=line, reason=f"a conflict marker of git: {marker[1]}")


def _link(file: File) -> Iterator[Fault]:
    root = file.root.resolve()
    target = Path(file.data.decode(errors="replace"))
    if target.is_absolute() or not (file.path.parent.resolve() / target).resolve().is_relative_to(root):
        yield Fault(path=file.name, reason=f"a link out of the repository: {target}")
