"""What can be wrong in a prefix, each applied to an installation with two releases and undone by `deploy.status`.

`python -m tests.deploy.damages` applies all of them to one installation and prints a table: what was said, what the
state is afterwards, and whether anything outside the prefix has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import plistlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.core.errors import ToolchainError
from toolchain.deploy import installer
from toolchain.deploy.prefix import Prefix

from .site import Site, identifier

OTHER_LABEL = "com.example.other"
LABEL = "io.turboquant.ollama"


@dataclass(frozen=True)
class World:
    """An installation of `a` and then `b`, and things around it that no deploy may touch."""

    site: Site
    a: str
    b: str

    @classmethod
    def make(cls, folder: Path) -> World:
        site = Site.make(folder)
        first, second = site.release("a"), site.release("b")
        site.install(first)
        site.install(second)
        world = cls(site, identifier(first), identifier(second))
        (world.canary / "releases/x/bin").mkdir(parents=True)
        (world.canary / "file").write_text("canary")
        (world.canary / "releases/x/bin/ollama").write_text("#!/bin/sh\n")
        world.others_plist.write_bytes(plistlib.dumps({"Label": OTHER_LABEL, "ProgramArguments": ["/bin/true"]}))
        return world

    @property
    def canary(self) -> Path:
        return self.site.folder / "canary"

    @property
    def others_plist(self) -> Path:
        return self.site.emulator / "LaunchAgents" / f"{OTHER_LABEL}.plist"

    @property
    def prefix(self) -> Prefix:
        return self.site.prefix

    def mend(self) -> None:
        """Install what is missing, so that `b` is active after `a` again."""
        if self.a not in self.site.status().releases:
            self.site.install(self.site.built(self.a))
        if self.site.status().active != self.b:
            self.site.install(self.site.built(self.b))

    def outside(self) -> dict[str, tuple[object, ...]]:
        """Everything outside the prefix, and the property lists of others: mode, time, and digest or target."""
        paths = [self.canary, *self.canary.rglob("*"), self.others_plist]
        return {str(path): _fingerprint(path) for path in paths}


@dataclass(frozen=True)
class Case:
    """A damage, and a pattern in what is said of it; empty: nothing is said."""

    apply: Callable[[World], object]
    said: str


def _fingerprint(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return found.st_mode, found.st_mtime_ns, found.st_uid, content


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _state(content: bytes | Callable[[Path], object]) -> Callable[[World], object]:
    def apply(world: World) -> object:
        _remove(world.prefix.state)
        return content(world.prefix.state) if callable(content) else world.prefix.state.write_bytes(content)

    return apply


def _state_with(change: Callable[[World, dict[str, Any]], object]) -> Callable[[World], object]:
    def apply(world: World) -> None:
        data = json.loads(world.prefix.state.read_text())
        change(world, data)
        world.prefix.state.write_text(json.dumps(data))

    return apply


def _journal(content: bytes | Callable[[Path], object]) -> Callable[[World], object]:
    def apply(world: World) -> object:
        return content(world.prefix.journal) if callable(content) else world.prefix.journal.write_bytes(content)

    return apply


def _journal_with(**changes: Any) -> Callable[[World], object]:
    def apply(world: World) -> None:
        entry = {"operation": "install", "step": "swap", "release": world.b, "previous": world.a, **changes}
        world.prefix.journal.write_text(json.dumps({key: _filled(value, world) for key, value in entry.items()}))

    return apply


def _filled(value: object, world: World) -> object:
    return value.format(a=world.a, b=world.b, canary=world.canary) if isinstance(value, str) else value


def _current(target: str) -> Callable[[World], object]:
    def apply(world: World) -> None:
        world.prefix.current.unlink()
        world.prefix.current.symlink_to(target.format(a=world.a, canary=world.canary))

    return apply


def _swapped(world: World) -> None:
    """A deploy was killed after the swap, and its journal is damaged: `current` was never found healthy."""
    world.prefix.current.unlink()
    world.prefix.current.symlink_to(f"releases/{world.a}")
    world.prefix.journal.write_bytes(b'{"operation": "inst')


def _unloaded(world: World) -> None:
    """The journal is damaged, and the service was unloaded."""
    world.site.launchctl("bootout", f"gui/{os.getuid()}/{LABEL}")
    world.prefix.journal.write_bytes(b"{")


def _current_folder(world: World) -> None:
    world.prefix.current.unlink()
    world.prefix.current.mkdir()


def _both(world: World) -> None:
    """The state is gone, the journal is damaged, and `current` is gone: what runs is left."""
    world.prefix.state.unlink()
    world.prefix.current.unlink()
    world.prefix.journal.write_bytes(b"{")


def _restore_point(name: str, content: str) -> Callable[[World], object]:
    def apply(world: World) -> None:
        world.prefix.before.mkdir()
        path = world.prefix.before / name
        if name == "current":
            path.symlink_to(content.format(canary=world.canary))
        elif name == "state":
            stated = json.loads(world.prefix.state.read_text())
            stated |= {"label": "file", "unit_file": str(world.canary / "file")}
            path.write_text(json.dumps(stated))
            (world.prefix.before / "unit").write_text("forged")
        else:
            path.write_text(content)

    return apply


def _deep(path: Path) -> None:
    path.write_text("[" * 100_000)


_DAMAGED = {
    "truncated": b'{"active": "b-0',
    "no JSON": b"\x00\xff\x00",
    "a list": b"[]",
    "other types": b'{"active": 5, "releases": "x"}',
    "empty": b"",
}

STATE: dict[str, Case] = {
    **{name: Case(_state(data), "kept as state.json.damaged-.*rebuilt from") for name, data in _DAMAGED.items()},
    "an empty object": Case(_state(b"{}"), "rebuilt from what is installed"),
    "nested 100,000 deep": Case(_state(_deep), "rebuilt from"),
    "a directory": Case(_state(lambda path: path.mkdir()), "Is a directory.*rebuilt from"),
    "a link to a file outside": Case(_state(lambda path: path.symlink_to("../canary/file")), "rebuilt from"),
    "a dangling link": Case(_state(lambda path: path.symlink_to("nowhere")), "rebuilt from"),
    "a pipe": Case(_state(os.mkfifo), "not a regular file.*rebuilt from"),
    "missing": Case(_state(lambda path: None), "rebuilt from what is installed"),
    "the parent is left out": Case(
        _state_with(lambda world, data: data.update(releases=data["releases"][1:])), "lacks releases.*a-"
    ),
    "a release ../../canary": Case(
        _state_with(lambda world, data: data["releases"][0].update(id="../../canary")), "is not a release id.*rebuilt"
    ),
    "a parent ../../canary": Case(
        _state_with(lambda world, data: data["releases"][1].update(parent="../../canary")), "is not a release id"
    ),
    "active ../canary": Case(_state_with(lambda world, data: data.update(active="../canary")), "not among its"),
    "active is the parent": Case(_state_with(lambda world, data: data.update(active=world.a)), "but b-.* is"),
    "label ../x": Case(_state_with(lambda world, data: data.update(label="../x")), "is not a label.*rebuilt"),
    "domain x/1": Case(_state_with(lambda world, data: data.update(domain="x/1")), "is not a domain.*rebuilt"),
    "domain of another user": Case(_state_with(lambda world, data: data.update(domain="gui/4242")), "no domain of"),
    "unit_file outside": Case(
        _state_with(lambda world, data: data.update(unit_file=str(world.canary / "file"))),
        "file is no property list of io.turboquant.ollama.*left alone",
    ),
    "unit_file of another service": Case(
        _state_with(lambda world, data: data.update(unit_file=str(world.others_plist), label=OTHER_LABEL)),
        "com.example.other runs /bin/true, which is not ours.*left alone",
    ),
    "plist beside unit_file": Case(_state_with(lambda world, data: data.update(plist=str(world.canary / "file"))), ""),
    "a field of a later version": Case(_state_with(lambda world, data: data.update(later={"x": 1})), ""),
}

JOURNAL: dict[str, Case] = {
    **{
        name: Case(_journal(data), "kept as journal.json.damaged-.*nothing is to be") for name, data in _DAMAGED.items()
    },
    "a directory": Case(_journal(lambda path: path.mkdir()), "Is a directory.*nothing is to be"),
    "a link to a file outside": Case(_journal(lambda path: path.symlink_to("../canary/file")), "nothing is to be"),
    "a pipe": Case(_journal(os.mkfifo), "not a regular file"),
    "release ../../canary": Case(_journal_with(release="../../canary"), "is not a release id"),
    "previous ../../canary": Case(_journal_with(previous="../../canary", step="restore"), "is not a release id"),
    "a release that is not installed": Case(_journal_with(release="c-1"), "there is no such release"),
    "a previous one that is not installed": Case(_journal_with(previous="c-1", step="restore"), "is not installed"),
    "no previous one": Case(_journal_with(previous="", step="restore"), "although there is one"),
    "another release is healthy": Case(_journal_with(release="{a}", previous="{b}", step="bless"), "is not active"),
    "an unknown step": Case(_journal_with(step="explode"), "is no step of install"),
    "a step of another operation": Case(_journal_with(step="remove"), "is no step of install"),
    "an environment with DYLD_": Case(
        _journal_with(step="copy", environment_before="DYLD_INSERT_LIBRARIES=/x\n"), "loads? libraries of others"
    ),
    "log_offset -1": Case(_journal_with(log_offset=-1), "out of range"),
    "tries_left 10^9": Case(_journal_with(tries_left=10**9), "out of range"),
    "a source outside": Case(_journal_with(step="copy", source="{canary}"), "was interrupted"),
    "damaged after the swap to a": Case(_swapped, "kept as journal.json.damaged-.*health of a-"),
    "damaged, and the service is unloaded": Case(_unloaded, "health of b-"),
    "damaged, without state and current": Case(_both, "active: b-.*nothing is to be"),
}

CURRENT: dict[str, Case] = {
    "an absolute path outside": Case(_current("{canary}/releases/x"), "is no release of this prefix.*b-.* again"),
    "../canary": Case(_current("../canary"), "is no release of this prefix"),
    "releases/../../canary": Case(_current("releases/../../canary"), "is no release of this prefix"),
    "a release that is not there": Case(_current("releases/c-1"), "is no release of this prefix"),
    "missing": Case(lambda world: world.prefix.current.unlink(), "points to b-.* again"),
    "a directory": Case(_current_folder, "kept as current.damaged-"),
}

RESTORE_POINT: dict[str, Case] = {
    "a link outside": Case(_restore_point("current", "{canary}"), "points to no release"),
    "a state that names a file outside": Case(_restore_point("state", ""), "file is no property list"),
    "an environment with LD_": Case(_restore_point("environment", "LD_PRELOAD=/x\n"), "libraries of others"),
}

CASES: dict[str, Case] = {
    f"{place}: {name}": case
    for place, cases in (
        ("state", STATE), ("journal", JOURNAL), ("current", CURRENT), ("restore point", RESTORE_POINT)
    )
    for name, case in cases.items()
}  # fmt: skip


def main() -> int:
    """Print the table; 1 when something outside was touched or the service is not as it was."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        world = World.make(Path(folder))
        sys.stdout.write("| damage | said | afterwards | outside |\n|---|---|---|---|\n")
        try:
            for name, case in CASES.items():
                before = world.outside()
                case.apply(world)
                with contextlib.redirect_stderr(io.StringIO()) as said:
                    try:
                        found = world.site.status()
                        installer.prune(world.site.config, world.site.console)  # which always takes the lock
                        shown = f"{found.active[0]} active, parent {found.parent[:1] or '-'}, healthy: {found.healthy}"
                        ok = found.healthy and len(found.releases) == 2
                    except ToolchainError as error:
                        shown, ok = f"exit {error.exit_code}: {error.message}", False
                same = world.outside() == before
                wrong += not (ok and same)
                text = " ".join(said.getvalue().replace(str(world.prefix.folder), "PREFIX").split())
                text = text.replace(world.a, "A").replace(world.b, "B").replace(str(world.canary), "CANARY")
                sys.stdout.write(f"| {name} | {text} | {shown} | {'same' if same else 'CHANGED'} |\n")
                with contextlib.redirect_stderr(io.StringIO()):
                    world.mend()
        finally:
            world.site.close()
    sys.stdout.write(f"\n{len(CASES)} cases, {wrong} wrong\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
