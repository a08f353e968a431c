from collections.abc import Iterator
from pathlib import Path

import pytest

from .fleets import Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet without hosts; what a test adds is stopped afterwards."""
    made = Fleet.make(tmp_path / "fleet")
    yield made
    made.close()
