"""What the tasks call: a rollout is begun or resumed, taken back, reported."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from ..core import extras, locks, records
from ..core.delivery_errors import InventoryInvalid
from ..core.errors import ConfigError
from ..core.run import Run
from ..provisioning import tq as provisioning
from ..publishing import packing
from ..publishing.published import is_file_name
from . import connection, inventory, report
from .inventory import Inventory
from .journal import Event, Journal, Rollout, now, rollouts
from .provisioner import Kit
from .report import FleetReport
from .rollout import Engine


def home(run: Run) -> Path:
    """The folder of all rollouts."""
    return run.workspace / "fleet"


def loaded(run: Run) -> tuple[Inventory, Kit]:
    """The inventory that the settings name, and what every host gets. Raises `InventoryInvalid`, `MissingExtra`."""
    extras.require("fleet", "a fleet")
    if not (name := run.config.fleet.inventory):
        raise InventoryInvalid("no inventory is named", hint="--inventory FILE, or fleet.inventory in turboquant.yaml")
    found = inventory.load(Path(name).expanduser())
    for host in found.hosts:
        connection.check_known_hosts(host)
    return found, _kit(run, found)


def apply(run: Run, release: str = "", *, abandon: bool = False) -> FleetReport:
    """Begin a rollout, or go on with the one that is unfinished, to its end or its halt.

    Raises `InventoryInvalid`, also where another rollout is unfinished; `LockHeld`, `ConfigError`.
    """
    if release and not is_file_name(release):
        raise ConfigError(f"--release {release!r}: no id of a release", hint="as in 0.33.0-turbo1-f02c2497ed3a")
    found, kit = loaded(run)
    identity = records.sha256_bytes((records.to_json(found) + release + kit.digest).encode())
    with _locked(run):
        journal = _unfinished(run)
        if journal and abandon:
            journal.add(Event(at=now(), event="abandoned"))
            journal.end("abandoned")
            report.save(report.of(journal), journal.folder)
            journal = None
        if journal is None:
            journal = _begin(run, found, release, identity)
        elif journal.state.identity != identity:
            raise InventoryInvalid(
                f"rollout {journal.state.id} of {journal.state.inventory.path} is unfinished, and this is another one: "
                "the inventory, the release, tq or the keys differ",
                hint="finish it with what it began with, take it back with fleet.rollback, or --abandon it",
            )
        else:
            journal.add(Event(at=now(), event="resumed", pid=os.getpid()))
            run.console.note(f"rollout {journal.state.id} goes on")
        return _reported(run, journal, Engine(journal, kit, run.console).go)


def rollback(run: Run, rollout: str = "") -> FleetReport:
    """Take back what a rollout changed, on each host to its recorded parent. Raises `InventoryInvalid`, `LockHeld`."""
    _, kit = loaded(run)
    with _locked(run):
        journal = find(run, rollout)
        journal.add(Event(at=now(), event="resumed", pid=os.getpid()))
        return _reported(run, journal, Engine(journal, kit, run.console).take_back)


def _reported(run: Run, journal: Journal, work: Callable[[], None]) -> FleetReport:
    """Do the work; the report is saved however that ends."""
    try:
        work()
    finally:
        page = report.save(report.of(journal), journal.folder)
        run.console.note(f"report: {page}")
    return report.of(journal)


def find(run: Run, rollout: str = "") -> Journal:
    """A rollout by its id; the newest one without. Raises `InventoryInvalid`."""
    known = rollouts(home(run))
    for journal in reversed(known):
        if rollout in ("", journal.folder.name):
            return journal
    ids = ", ".join(journal.folder.name for journal in known) or "none"
    raise InventoryInvalid(f"{rollout or home(run)}: there is no such rollout", hint=f"there are: {ids}")


def _begin(run: Run, found: Inventory, release: str, identity: str) -> Journal:
    identifier = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S-%f")  # sorts by time
    journal = Journal(home(run) / identifier)
    journal.begin(Rollout(id=identifier, identity=identity, release=release, inventory=found, started=now()))
    run.console.note(f"rollout {identifier}: {len(found.hosts)} hosts in {len(found.waves)} waves")
    return journal


def _unfinished(run: Run) -> Journal | None:
    return next((journal for journal in rollouts(home(run)) if not journal.state.end), None)


def _locked(run: Run) -> AbstractContextManager[None]:
    return locks.held(home(run) / "lock", "another controller is at work on this workspace", hint="wait until it ends")


def _kit(run: Run, found: Inventory) -> Kit:
    """tq and the keys: those of the inventory, else those of the publication and the settings; or this toolkit's tq."""
    tq = Path(found.tq) if found.tq else packing.publication(run).provisioner
    own = not found.tq and not tq.is_file()  # the publication is elsewhere; tq fetches the one that its channel names
    signers = found.signers or run.config.publish.signers
    revoked = found.revoked_keys or run.config.publish.revoked
    if not signers:
        raise InventoryInvalid(f"{found.path}: no signers", hint="signers: allowed_signers, or publish.signers")
    try:
        return Kit(
            tq=provisioning.render() if own else tq.read_bytes(),
            signers=Path(signers).expanduser().read_bytes(),
            revoked=Path(revoked).expanduser().read_bytes() if revoked else b"",
        )
    except OSError as error:
        raise InventoryInvalid(
            f"{error.filename}: {error.strerror}", hint="`tq` and `signers` in the inventory name these files"
        ) from error
