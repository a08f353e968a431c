"""Kept cells: measured once, whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain.core.errors import RecordError
from toolchain.core.records import record
from toolchain.validation.store import Store


@record
class Cell:
    value: float


def test_a_cell_is_measured_once(tmp_path: Path) -> None:
    store, asked = Store(tmp_path), list[float]()

    def measure() -> Cell:
        asked.append(0.1)
        return Cell(value=0.1)

    assert not store.has("needle/baseline/8192/3")
    for again in (store, store, Store(tmp_path)):
        assert again.kept("needle/baseline/8192/3", Cell, measure) == Cell(value=0.1)
        assert again.has("needle/baseline/8192/3")
    assert asked == [0.1]
    assert store.taken == 1
    assert store.kept("a", Cell, measure) == Cell(value=0.1)
    assert list(store.keys()) == ["a", "needle/baseline/8192/3"]


def test_a_measurement_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ZeroDivisionError):
        store.kept("a/b", Cell, lambda: Cell(value=1 / 0))
    assert not store.has("a/b")
    assert list(tmp_path.rglob("*.json")) == []
    assert store.kept("a/b", Cell, lambda: Cell(value=2.0)).value == 2


@pytest.mark.parametrize("content", ["", "{", '{"value": "much"}', "[]", "{}"])
def test_a_damaged_cell_is_named(content: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.kept("a/b", Cell, lambda: Cell(value=1.0))
    store.path("a/b").write_text(content)
    with pytest.raises(RecordError, match=r"cells/a/b\.json"):
        store.kept("a/b", Cell, lambda: Cell(value=1.0))
    assert store.path("a/b").read_text() == content  # for a person to look at


def test_what_a_killed_run_left_is_deleted_and_no_more(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.kept("a/b", Cell, lambda: Cell(value=1.0))
    half = store.path("a/b").with_name(".b.json.abcd1234")
    half.write_text('{"val')
    other = store.path("a/b").with_name(".mine")
    other.write_text("x")
    store.tidy()
    assert not half.exists()
    assert other.exists()
    assert list(store.keys()) == ["a/b"]


@pytest.mark.parametrize("key", ["../x", "/x", "a//b", "A", "a/", "", "a/../b", ".a"])
def test_a_key_stays_in_the_folder(key: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        Store(tmp_path).path(key)


def test_the_baselines_answers_are_shared(tmp_path: Path) -> None:
    """Two candidates find the same cells of the baseline, and none of each other's."""
    first, second = (Store(tmp_path / name, tmp_path / "baselines" / "x") for name in ("a", "b"))
    for key in ("needle/baseline/2048/0/single-0-chat", "session/forced/baseline/01", "speed/2048/0/000"):
        first.kept(key, int, lambda: 1)
    first.kept("needle/candidate/2048/0/single-0-chat", int, lambda: 1)
    assert list(second.keys()) == ["needle/baseline/2048/0/single-0-chat", "session/forced/baseline/01"]
    first.clear()
    assert list(second.keys()) == []
