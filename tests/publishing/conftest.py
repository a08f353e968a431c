"""A publication and a packed release that tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared import once
from toolchain.build import check
from toolchain.publishing import packing
from toolchain.publishing.published import PublishedRelease

from . import packs, world


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a world with its publisher, to be copied."""
    return once(tmp_path_factory, "publication-world", world.make)


@pytest.fixture(scope="session")
def untouched(base: Path) -> world.World:
    """A world that tests read, and copy to change it."""
    return world.at(base)


@pytest.fixture
def changed(untouched: world.World, tmp_path: Path) -> world.World:
    """A copy of a world."""
    return untouched.copy(tmp_path)


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PublishedRelease]:
    """A packed release, which no test changes."""
    workspace = tmp_path_factory.mktemp("packed")
    folder = packs.linux(workspace)
    found = packing.pack(packs.run_in(workspace), folder, packs.verification_of(check(folder)))
    return found.folder, found.release
