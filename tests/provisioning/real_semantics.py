"""What Munki, Jamf Pro and Kandji do with the real tq: `python -m tests.provisioning.real_semantics`.

Each tool has a Mac of its own: a prefix, the emulator of launchd, small releases whose server is a program of the
tests. The steps follow each other, so that every tool goes through the life of a Mac. What the tools do is modelled in
tools.py; what launchd does, in the emulator.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from toolchain.provisioning.adapters import rendering
from toolchain.publishing import adapting

from .place import Mac
from .tools import Machine

TOOLS = ("munki", "jamf", "kandji", "attribute")


class Managed:
    """A Mac, and the adapters as they are rendered after each promotion."""

    def __init__(self, folder: Path) -> None:
        self.mac = Mac.make(folder)
        self.place = folder / "place"
        self.scripts: Mapping[str, bytes] = {}

    @property
    def machine(self) -> Machine:
        further = self.mac.environment()
        return Machine({name: further[name] for name in ("PATH", "TURBOQUANT_LAUNCHD_ROOT", "HOME") if name in further})

    def promote(self, identifier: str) -> None:
        """State the release, and render for it."""
        self.mac.publisher.promote(identifier)
        found = adapting.inputs(self.mac.publisher.site, "stable", self.mac.desired_file, self.mac.publisher.signers)
        made = rendering.render(replace(found, folder=str(self.place)), ("munki", "jamf", "kandji"))
        self.scripts = {path: data for files in made.values() for path, data in files.items()}

    def observe(self, tool: str) -> str:
        return self.machine.observe(tool, self.scripts)


def _first(managed: Managed) -> None:
    managed.promote(managed.mac.release("1.0.0", 1))


def _newer(managed: Managed) -> None:
    managed.promote(managed.mac.release("1.1.0", 2))


def _unhealthy(managed: Managed) -> None:
    managed.promote(managed.mac.release("1.2.0", 3, does="exit"))


def _newer_again(managed: Managed) -> None:
    managed.promote(next(name for name, card in managed.mac.publisher.released.items() if card.sequence == 2))


def _sign(managed: Managed) -> None:
    managed.mac.publisher.put_provisioner(managed.mac.tq.read_bytes())
    shutil.copy(managed.mac.publisher.site.folder / "tq.sig", managed.place / "provisioner")


def _back(managed: Managed) -> None:
    older = next(name for name, card in managed.mac.publisher.released.items() if card.sequence == 1)
    managed.promote(older)


def _edit(managed: Managed) -> None:
    shim = managed.mac.site.prefix.shim
    shim.write_bytes(shim.read_bytes() + b"# edited\n")


def _tamper(managed: Managed) -> None:
    identifier = managed.mac.release("1.3.0", 4)
    managed.promote(identifier)
    with (managed.mac.publisher.site.release(identifier) / f"{identifier}.tar.gz").open("r+b") as file:
        file.seek(200)
        file.write(b"tampered")


def _unsign(managed: Managed) -> None:
    for folder in (managed.place / "provisioner", managed.mac.publisher.site.folder):
        (folder / "tq.sig").unlink()


def _cut(managed: Managed) -> None:
    managed.mac.publisher.site.folder.rename(managed.mac.publisher.folder / "away")


def _nothing(managed: Managed) -> None:
    """The same again."""


@dataclass(frozen=True)
class Step:
    """What happens, and what each tool then does."""

    name: str
    do: Callable[[Managed], None]
    munki: str
    jamf: str
    kandji: str
    attribute: str
    """its words before the semicolon"""


def _mended(name: str, do: Callable[[Managed], None]) -> Step:
    return Step(name, do, "install succeeded", "completed", "remediated", "would change")


def _refused(name: str, do: Callable[[Managed], None], code: int, word: str) -> Step:
    return Step(
        name, do, f"install FAILED with {code}", f"FAILED with {code}", f"ALERT, remediation ended with {code}", word
    )


def _fine(name: str, do: Callable[[Managed], None] = _nothing) -> Step:
    return Step(name, do, "installed", "completed", "compliant", "as desired")


STEPS = (
    _mended("absent", _first),
    _fine("installed"),
    _mended("drifted: the shim was edited", _edit),
    _mended("newer available", _newer),
    _refused("the newest is unhealthy", _unhealthy, 51, "would change"),
    _refused("the same again: it is held", _nothing, 51, "would change"),
    _mended("the publisher rolls back", _back),
    _refused("archive tampered", _tamper, 30, "would change"),
    _mended("the publisher rolls back again", _newer_again),
    _refused("tq without signature", _unsign, 31, "cannot verify"),
    _fine("signed again", _sign),
    _fine("offline", _cut),
    _mended("drifted, offline", _edit),
)
"""of one life"""


def main() -> int:
    """Print the table, and whether each is what it should be."""
    wrong = 0
    write = sys.stdout.write
    write(f"{'step':<34}" + "".join(f"{tool:<40}" for tool in TOOLS) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        lives = {}
        for tool in TOOLS[:3]:
            place = Path(folder) / tool
            place.mkdir()
            lives[tool] = Managed(place)
        try:
            for step in STEPS:
                found = {}
                for tool, managed in lives.items():
                    step.do(managed)
                    if tool == "munki":
                        found["attribute"] = managed.observe("attribute").partition(";")[0]
                    found[tool] = managed.observe(tool)
                cells = [
                    found[tool] + ("" if found[tool] == getattr(step, tool) else " (NOT EXPECTED)") for tool in TOOLS
                ]
                wrong += sum(found[tool] != getattr(step, tool) for tool in TOOLS)
                write(f"{step.name:<34}" + "".join(f"{cell:<40}" for cell in cells) + "\n")
        finally:
            for managed in lives.values():
                managed.mac.close()
    write(f"{wrong} are not what is expected\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
