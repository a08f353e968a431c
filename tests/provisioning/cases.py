"""The table of cases that `deploy.*` and tq are both held to: the same start, the same operation, the same end.

    python -m tests.provisioning.cases [NAME...]     runs them all, each by both, and prints the table

Each case starts with what the other program installed, so each goes on with what the other left.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from toolchain.build import release as built
from toolchain.core import records
from toolchain.core.errors import RolledBack, ToolchainError, Unhealthy
from toolchain.deploy import installer
from toolchain.deploy.installed import InstalledRelease, InstallState
from toolchain.deploy.journal import KILL_VARIABLE

from .place import Mac

STEPS = ("copy", "environment", "shim", "swap", "unit", "restart", "health", "bless", "prune")


class Program:
    """What a case asks of either program. `mac` has releases by version; the channel names the one that is asked for."""

    name = ""

    def __init__(self, mac: Mac) -> None:
        self.mac = mac
        self.made: dict[str, str] = {}

    def release(self, version: str, does: str = "serve") -> str:
        """The id of a release, made and published at first use."""
        if version not in self.made:
            self.made[version] = self.mac.release(version, len(self.made) + 1, does=does)
        return self.made[version]

    def install(self, version: str, *, does: str = "serve", kill_at: str = "") -> str:
        """Make that release the active one; returns how it ended."""
        raise NotImplementedError

    def rollback(self, *, kill_at: str = "") -> str:
        raise NotImplementedError

    def uninstall(self, *, kill_at: str = "") -> str:
        raise NotImplementedError

    def recover(self) -> str:
        """The next command after a kill, which asks for nothing new."""
        raise NotImplementedError


class ByTq(Program):
    name = "tq"
    _ENDS = {
        0: "done",
        10: "done",
        51: "rolled back",
        52: "unhealthy",
        53: "nothing",
        -9: "killed",
        20: "done",
        21: "done",
    }

    def install(self, version: str, *, does: str = "serve", kill_at: str = "") -> str:
        self.mac.publisher.promote(self.release(version, does))
        return self._run("apply", kill_at)

    def rollback(self, *, kill_at: str = "") -> str:
        return self._run("rollback", kill_at)

    def uninstall(self, *, kill_at: str = "") -> str:
        return self._run("uninstall", kill_at)

    def recover(self) -> str:
        return self._run("status", "")

    def _run(self, verb: str, kill_at: str) -> str:
        said = self.mac.run(verb, **({KILL_VARIABLE: kill_at} if kill_at else {}))
        return self._ENDS.get(said.code, f"code {said.code}: {said.log}")


class ByDeploy(Program):
    name = "deploy"

    def install(self, version: str, *, does: str = "serve", kill_at: str = "") -> str:
        wanted = self.release(version, does)
        self.mac.publisher.promote(wanted)
        site = self.mac.configured()
        config = replace(site.config, deploy=replace(site.config.deploy, allow_unverified=True))
        return self._run(installer.install, kill_at, site.built(wanted), config)

    def rollback(self, *, kill_at: str = "") -> str:
        return self._run(installer.rollback, kill_at, self.mac.configured().config)

    def uninstall(self, *, kill_at: str = "") -> str:
        return self._run(installer.uninstall, kill_at, self.mac.configured().config)

    def recover(self) -> str:
        return self._run(installer.status, "", self.mac.configured().config)

    def _run(self, operation: Callable[..., object], kill_at: str, *arguments: object) -> str:
        site = self.mac.configured()
        if kill_at:
            site.killed(operation, *arguments, at=kill_at)
            return "killed"
        try:
            operation(*arguments, site.console)
        except RolledBack:
            return "rolled back"
        except Unhealthy:
            return "unhealthy"
        except ToolchainError as error:
            return "nothing" if error.exit_code == 53 else f"{type(error).__name__}: {error}"
        return "done"


Steps = Callable[[Program, Program], list[str]]
"""what a case does, by the program under test and the other one; how each operation ended"""


def _killed(step: str, *, again: bool) -> Steps:
    """An upgrade that dies at a step; then the same program's next command, or the other's."""

    def steps(program: Program, other: Program) -> list[str]:
        return [
            other.install("1"),
            program.install("2", kill_at=step),
            (program if again else other).recover(),
        ]

    return steps


CASES: dict[str, Steps] = {
    "first": lambda program, _: [program.install("1")],
    "upgrade": lambda program, other: [other.install("1"), program.install("2")],
    "again": lambda program, other: [other.install("1"), program.install("1")],
    "back": lambda program, other: [other.install("1"), other.install("2"), program.rollback()],
    "forth": lambda program, other: [program.install("1"), other.install("2"), other.rollback(), program.install("2")],
    "kept": lambda program, other: [other.install(n) for n in "123"] + [program.install("4")],
    "no parent": lambda program, other: [other.install("1"), program.rollback()],
    "unhealthy": lambda program, other: [other.install("1"), program.install("2", does="exit")],
    "first unhealthy": lambda program, _: [program.install("1", does="exit")],
    "removed": lambda program, other: [other.install("1"), program.uninstall()],
    "removed, killed": lambda program, other: [
        other.install("1"), program.uninstall(kill_at="remove"), other.recover(),
    ],
    "rollback, killed": lambda program, other: [
        other.install("1"), other.install("2"), program.rollback(kill_at="health"), other.recover(),
    ],
    "first, killed": lambda program, other: [program.install("1", kill_at="restart"), other.recover()],
    "first, killed early": lambda program, other: [program.install("1", kill_at="shim"), other.recover()],
    **{f"killed at {step}": _killed(step, again=True) for step in STEPS},
    **{f"killed at {step}, the other": _killed(step, again=False) for step in STEPS},
}  # fmt: skip


@dataclass(frozen=True)
class End:
    """What a case leaves: everything that either program looks at. Ids are given by version."""

    ended: tuple[str, ...]
    active: str
    healthy: bool
    parents: dict[str, str]
    environments: dict[str, str]
    files: dict[str, str]
    modes: dict[str, int]


def run(name: str, program: Program, other: Program) -> End:
    """Run a case, and read its end."""
    ended = CASES[name](program, other)
    mac = program.mac
    after = mac.site.status()
    versions = {ident: version for version, ident in program.made.items()}
    prefix = mac.site.prefix
    state = records.read(prefix.state, InstallState) if prefix.state.exists() else InstallState()
    for one in state.releases:
        assert records.read(prefix.release(one.id) / "installed.json", InstalledRelease) == one
        parent = prefix.release(one.id) / "parent"
        assert (parent.read_text().strip() if parent.exists() else "") == one.parent
        built.check(prefix.release(one.id))
    files = {
        path.relative_to(prefix.folder).as_posix(): path.read_bytes().decode()
        for path in (prefix.shim, *(mac.site.emulator / "LaunchAgents").glob("*.plist"))
        if path.exists()
    }
    there = {
        re.sub(r"-[0-9a-f]{12}\b", "", path.relative_to(prefix.folder).as_posix()): path.lstat().st_mode & 0o777
        for path in prefix.folder.rglob("*")
        if not path.is_symlink()
        and not path.is_relative_to(mac.site.emulator)
        and path.relative_to(prefix.folder).parts[0] not in ("channel", "run", "logs")
        and path.name not in ("tq", "lock", "verification.json")
    }
    return End(
        ended=tuple(ended),
        active=versions.get(after.active, after.active),
        healthy=after.healthy,
        parents={versions[one.id]: versions.get(one.parent, one.parent) for one in state.releases},
        environments={versions[one.id]: (prefix.release(one.id) / "environment").read_text() for one in state.releases},
        files=files,
        modes=there,
    )


@contextlib.contextmanager
def programs(folder: Path, name: str) -> Iterator[tuple[Program, Program]]:
    """A place, and the two programs on it: the one under test first. The prefix has the same path for either."""
    folder.mkdir(parents=True)
    mac = Mac.make(folder)
    try:
        by_tq, by_deploy = ByTq(mac), ByDeploy(mac)
        by_deploy.made = by_tq.made
        yield (by_tq, by_deploy) if name == "tq" else (by_deploy, by_tq)
    finally:
        mac.close()


def ends(name: str, folder: Path) -> dict[str, End]:
    """How a case ends by either program, in the same folder one after the other."""
    found = {}
    for program in ("deploy", "tq"):
        with programs(folder, program) as (under_test, other):
            found[program] = _neutral(run(name, under_test, other), under_test.mac)
        shutil.rmtree(folder)
    return found


def _neutral(end: End, mac: Mac) -> End:
    """Without what differs from place to place: the port."""
    port = str(mac.site.config.deploy.port)
    return replace(end, environments={key: text.replace(port, "PORT") for key, text in end.environments.items()})


def main(names: list[str]) -> int:
    """Run the cases; the number of those that end differently."""
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="cases-", dir=os.environ.get("TMPDIR")) as root:
        for name in names or CASES:
            begun = time.monotonic()
            with contextlib.redirect_stderr(io.StringIO()) as said:
                try:
                    found = ends(name, Path(root) / "place")
                    same, told = found["deploy"] == found["tq"], found["tq"]
                    row = f"{' / '.join(told.ended)}: active {told.active or '-'}, parents {told.parents}"
                except Exception as error:
                    same, row = False, f"{type(error).__name__}: {error}\n{said.getvalue()[-3000:]}"
                    shutil.rmtree(Path(root) / "place", ignore_errors=True)
            wrong += not same
            print(
                f"{'same' if same else 'DIFFERENT':<10} {name:<32} {time.monotonic() - begun:5.1f} s  {row}", flush=True
            )  # noqa: T201
            if not same and "found" in locals() and not row.startswith(("Assert", "Tool")):
                for key in End.__dataclass_fields__:
                    one, two = (getattr(found[by], key) for by in ("deploy", "tq"))
                    if one != two:
                        print(f"    {key}:\n      deploy {one}\n      tq     {two}")  # noqa: T201
    print(f"{wrong} of {len(names or CASES)} differ")  # noqa: T201
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
