"""The Go modules of a program, as the Go linker wrote them into it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..build import tools
from ..core.errors import CommandFailed
from ..core.process import capture
from ..core.records import UNREADABLE, record

_TIMEOUT_S = 120.0
_NO_GO = ("not a Go executable", "unrecognized file format")


@record
class GoModule:
    """A module. `sum` is Go's h1: digest over a list of its files' digests, not the digest of a file."""

    path: str
    version: str
    sum: str
    instead_of: str = ""
    """the module that another one replaces; this is the other one"""
    local: str = ""
    """the folder that replaces this module, as go.mod names it"""


@record
class GoProgram:
    """What a program is made of. `go` is as in 1.27.3."""

    go: str
    modules: tuple[GoModule, ...]


class _Module(msgspec.Struct, rename="pascal"):
    path: str
    version: str = ""
    sum: str = ""
    replace: _Module | None = None


class _BuildInfo(msgspec.Struct, rename="pascal"):
    go_version: str
    deps: list[_Module] = []


def read(program: Path) -> GoProgram | None:
    """The modules of a program, of any platform; None for one that Go did not make.

    Raises `MissingTool` without Go, and `CommandFailed` when it cannot read the file.
    """
    go = tools.go().require()
    done = capture((go.path, "version", "-m", "-json", program), timeout=_TIMEOUT_S, check=False)
    if done.returncode != 0:
        said = done.error_text.strip()
        if program.is_file() and (not said or any(text in said for text in _NO_GO)):
            return None
        raise CommandFailed(f"go version -m {program}: {said}", hint="./inv doctor")
    try:
        found = msgspec.json.decode(done.stdout, type=_BuildInfo)
    except UNREADABLE as error:
        raise CommandFailed(f"go version -m {program}: {error}", hint=f"{go.path} is Go {go.version}") from error
    modules = (_module(one) for one in found.deps)
    return GoProgram(
        go=found.go_version.removeprefix("go"), modules=tuple(sorted(modules, key=lambda one: (one.path, one.version)))
    )


def _module(found: _Module) -> GoModule:
    used = found.replace
    if used is None:
        return GoModule(path=found.path, version=found.version, sum=found.sum)
    if used.path.startswith((".", "/")):
        return GoModule(path=found.path, version=found.version, sum="", local=used.path)
    return GoModule(path=used.path, version=used.version, sum=used.sum, instead_of=f"{found.path}@{found.version}")
