"""A few of the fake releases, one for each way of finding out; all of them are in fakes.py, which prints a table."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from . import fakes
from .site import Site

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A place with a healthy release, whose processes get a second to end."""
    with fakes.short_windows():
        place = Site.make(tmp_path_factory.mktemp("quick"))
        place.install(place.release("good"))
        yield place
        place.close()


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    "name",
    [
        "null-count",
        "ansi-text",
        "early-line",
        "log-folder",
        "drip-in-generate",
        "gigabyte-in-version",
        "shout-in-generate",
        "ignore-sigterm",
        "daemon",
        "helper-listens",
        "child-at-stop",
        "leak-children",
    ],
)
def test_a_fake_is_found_out_and_leaves_nothing(quick: Site, name: str) -> None:
    done = fakes.install(quick, name)
    assert (done.code, done.as_before, done.leftovers, done.clean) == (51, True, (), True)
    assert re.search(fakes.FAKES[name], done.said)
    assert done.seconds < 10 * fakes.most_seconds(name)  # with room for a busy machine; without a deadline: for ever
