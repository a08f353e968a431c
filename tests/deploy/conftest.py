from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A place of its own, with nothing installed."""
    place = Site.make(tmp_path)
    yield place
    place.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A place with release `good` running, shared by tests that must leave it healthy, whatever they do to it."""
    place = Site.make(tmp_path_factory.mktemp("running"))
    place.install(place.release("good"))
    yield place
    place.close()
