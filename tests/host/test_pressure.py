"""Signs of memory pressure, and of a battery, on Linux."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain.host import pressure
from toolchain.host.conditions import _linux_battery
from toolchain.host.pressure import MemoryPressure


def test_this_machine_says_something_of_its_memory() -> None:
    assert MemoryPressure().known


def test_too_little_available_memory_is_pressure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryPressure, "_available", staticmethod(lambda: 100 << 20))
    assert MemoryPressure().reason().startswith("100 MiB are available, ")


def test_what_is_written_to_swap_meanwhile_is_pressure(monkeypatch: pytest.MonkeyPatch) -> None:
    written = [1 << 40]
    monkeypatch.setattr(MemoryPressure, "_available", staticmethod(lambda: 1 << 40))
    monkeypatch.setattr(MemoryPressure, "_level", staticmethod(lambda: None))
    monkeypatch.setattr(MemoryPressure, "_written", staticmethod(lambda: written[0]))
    monkeypatch.setattr(pressure, "stalls", lambda _: None)
    watched = MemoryPressure()
    assert watched.reason() == ""  # what was there before does not count
    written[0] += 100 << 20
    assert watched.reason() == "100 MiB were written to swap"


def test_stalls_are_read_from_the_kernels_file() -> None:
    text = "some avg10=12.34 avg60=1.00 avg300=0.10 total=123\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=45\n"
    assert pressure.stalls(text) == 12.34
    assert pressure.stalls("") is None


@pytest.mark.parametrize(
    ("supplies", "expected"),
    [
        ({}, False),
        ({"BAT0": {"type": "Battery", "status": "Discharging"}, "AC": {"type": "Mains", "online": "0"}}, True),
        ({"BAT0": {"type": "Battery", "status": "Discharging"}, "AC": {"type": "Mains", "online": "1"}}, False),
        ({"BAT0": {"type": "Battery", "status": "Charging"}}, False),
        ({"BAT0": {"type": "Battery"}}, None),
    ],
)
def test_a_discharging_battery_is_seen(
    supplies: dict[str, dict[str, str]], expected: bool | None, tmp_path: Path
) -> None:
    for name, files in supplies.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text + "\n")
    assert _linux_battery(tmp_path) is expected
