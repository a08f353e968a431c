"""The emulator's unconfirmed behaviours as assumptions: one source of statements for the page and for a first run."""

from __future__ import annotations

from ...service.emulator.unconfirmed import BEHAVIOURS
from ..assumption import Assumption

_BY_ID = {one.id: one for one in BEHAVIOURS}


def behaviour(id: str, needs: str = "") -> Assumption:
    """launchd.ID, with the statement and the test of that behaviour."""
    found = _BY_ID[id]
    return Assumption(id=f"launchd.{id}", statement=found.statement, how=found.test, needs=needs)
