"""A publication that is made once in a run of the suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared import once

from . import world


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> world.World:
    """A world that tests read, and copy to change it."""
    return world.at(once(tmp_path_factory, "publication-world", world.make))


@pytest.fixture
def changed(untouched: world.World, tmp_path: Path) -> world.World:
    """A copy of a world."""
    return untouched.copy(tmp_path)
