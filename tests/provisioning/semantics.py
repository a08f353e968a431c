"""What Munki, Jamf Pro and Kandji do in each state of a Mac, by running their scripts.

`python -m tests.provisioning.semantics` prints it as a table. With the scripted tq, and each state for each tool anew;
twice, since what was done must not be done again.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.publishing import published

from .site import NEW, OLD, Site, make
from .tools import Machine

TOOLS = ("munki", "jamf", "kandji", "attribute")
PKGINFO = "munki/turboquant-12.plist"


@dataclass(frozen=True)
class State:
    """A Mac, and what each tool does at its first and at its second run."""

    name: str
    munki: tuple[str, str]
    jamf: tuple[str, str]
    kandji: tuple[str, str]
    attribute: tuple[str, ...]
    """before any of them ran"""
    files: Mapping[str, str | int] = field(default_factory=dict)
    """of the scripted tq"""
    damage: Callable[[Site], object] = lambda site: None


def _same(munki: str, jamf: str, kandji: str, attribute: str, name: str, **more: object) -> State:
    return State(name, (munki, munki), (jamf, jamf), (kandji, kandji), (attribute,), **more)  # type: ignore[arg-type]


def _mended(name: str, attribute: str, **files: str | int) -> State:
    return State(
        name, ("install succeeded", "installed"), ("completed", "completed"), ("remediated", "compliant"),
        (attribute,), files,
    )  # fmt: skip


def _refused(name: str, code: int, attribute: str, **more: object) -> State:
    return _same(
        f"install FAILED with {code}", f"FAILED with {code}", f"ALERT, remediation ended with {code}", attribute, name,
        **more,
    )  # fmt: skip


def _tamper(site: Site) -> None:
    for folder in (site.kept, site.publication.folder):
        if folder.is_dir():
            with (folder / "tq").open("a") as file:
                file.write("touch stolen\n")


def _unsign(site: Site) -> None:
    for folder in (site.kept, site.publication.folder):
        (folder / "tq.sig").unlink(missing_ok=True)


def _sign_for_another_purpose(site: Site) -> None:
    shutil.rmtree(site.kept)
    site.sign(site.publication.provisioner, published.RELEASE_NAMESPACE)


def _cut(site: Site) -> None:
    shutil.rmtree(site.publication.folder)


STATES = (
    _same("installed", "completed", "compliant", f"as desired; {NEW}", "installed"),
    _mended("absent", f"would change; {NEW}", mac="absent", release=""),
    _mended("drifted", f"would change; {NEW}", mac="drifted"),
    _mended("newer available", f"would change; {NEW}", release=OLD),
    _refused("unhealthy, rolled back", 51, f"would change; {NEW}", files={"release": OLD, "bad": NEW}),
    _refused("unhealthy, no parent", 52, f"would change; {NEW}",
             files={"mac": "absent", "release": "", "bad": NEW}),
    _refused("tq tampered", 30, "tampered", damage=_tamper),
    _refused("tq without signature", 31, "cannot verify", damage=_unsign),
    _refused("tq signed for another purpose", 34, "signature made for another purpose",
             damage=_sign_for_another_purpose),
    _refused("release revoked", 38, f"release revoked or below the minimum; {NEW}", files={"ends": 38}),
    _refused("channel expired", 35, f"channel expired; {NEW}", files={"ends": 35}),
    _refused("disk full", 5, f"disk full; {NEW}", files={"ends": 5}),
    _refused("a bug in tq", 1, f"a bug in tq; {NEW}", files={"ends": 1}),
    _refused("a code of a newer tq", 99, f"an unknown code of tq; {NEW}", files={"ends": 99}),
    _same("installed", "FAILED with 6", "compliant", f"another deploy is running; {NEW}", "another deploy is running",
          files={"ends": 6}),
    _same("installed", "completed", "compliant", f"as desired; {NEW}", "installed, offline", files={"offline": ""},
          damage=_cut),
    State("drifted, offline", ("install succeeded", "installed"), ("completed", "completed"),
          ("remediated", "compliant"), (f"drift; {NEW}",), {"mac": "drifted", "offline": ""}, _cut),
    _refused("absent, offline", 40, "channel unreachable", files={"mac": "absent", "release": "", "offline": ""},
             damage=_cut),
)  # fmt: skip


def bring(site: Site, state: State) -> None:
    """Make the site's Mac and publication what the state says, whatever they were."""
    site.restore()
    site.state(**state.files)
    state.damage(site)


def main() -> int:
    """Print the table, and whether each is what it should be."""
    write = sys.stdout.write
    write(f"{'state':<30} {'Munki':<42} {'Jamf policy':<30} {'Kandji':<48} Jamf attribute\n")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        site = make(Path(folder))
        for state in STATES:
            cells = []
            for tool in TOOLS:
                bring(site, state)
                found = tuple(Machine().observe(tool, site.scripts) for _ in getattr(state, tool))
                wrong += found != getattr(state, tool)
                cells.append(" / ".join(dict.fromkeys(found)))
            write(f"{state.name:<30} {cells[0]:<42} {cells[1]:<30} {cells[2]:<48} {cells[3]}\n")
    write(f"first run / second run, where they differ. {wrong} are not what is expected\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
