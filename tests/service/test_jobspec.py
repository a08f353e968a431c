from __future__ import annotations

import contextlib
import os
import plistlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.service.emulator import jobspec
from toolchain.service.emulator.refused import Refused
from toolchain.service.launchctl_codes import BAD_OWNERSHIP, INPUT_OUTPUT


def spec(**keys: Any) -> jobspec.JobSpec:
    return jobspec.parse(plistlib.dumps({"Label": "a", "Program": "/bin/true", **keys}), "a.plist")


@pytest.mark.parametrize(
    ("keep_alive", "after_success", "after_failure", "after_signal"),
    [
        (False, False, False, False),
        (True, True, True, True),
        ({"SuccessfulExit": True}, True, False, False),
        ({"SuccessfulExit": False}, False, True, True),
        ({"Crashed": True}, False, False, True),
        ({"Crashed": False}, True, True, False),
        ({"SuccessfulExit": True, "Crashed": True}, True, False, True),
        ({}, False, False, False),
    ],
)
def test_keep_alive(keep_alive: Any, after_success: bool, after_failure: bool, after_signal: bool) -> None:
    job = spec(KeepAlive=keep_alive)
    assert [job.restarts_after(status) for status in (0, 3, -9)] == [after_success, after_failure, after_signal]
    assert job.starts_at_load == bool(keep_alive)


def test_defaults_are_launchds() -> None:
    job = spec()
    assert (job.throttle_s, job.arguments, job.directory) == (10, ("/bin/true",), "/")
    assert not job.starts_at_load
    assert spec(RunAtLoad=True).starts_at_load


def test_environment_values_that_are_no_strings_are_ignored() -> None:
    assert spec(EnvironmentVariables={"A": "1", "B": 2, "C": True}).environment == {"A": "1"}


def test_what_is_not_modelled_is_named() -> None:
    assert spec(StartInterval=5, KeepAlive={"NetworkState": True}).ignored == (
        "StartInterval",
        "KeepAlive/NetworkState",
    )


@pytest.mark.parametrize(
    "keys",
    [
        {"Label": ""},
        {"Label": 3},
        {"Program": ["x"]},
        {"ProgramArguments": ["a", 1]},
        {"KeepAlive": "yes"},
        {"KeepAlive": {"Crashed": 1}},
        {"RunAtLoad": 1},
        {"ThrottleInterval": -1},
        {"ThrottleInterval": True},
        {"ThrottleInterval": float("inf")},
        {"EnvironmentVariables": ["A=1"]},
    ],
)
def test_a_plist_that_is_no_job_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        spec(**keys)
    assert caught.value.code == INPUT_OUTPUT


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b"<?xml version='1.0'?><plist>" + tail))
def test_bytes_that_are_no_plist_are_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        jobspec.parse(data, "noise")


_plain = st.one_of(st.text("abc/.", max_size=6), st.integers(-5, 5), st.booleans(), st.floats(allow_nan=False))
_values = st.recursive(
    _plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(sorted(jobspec._MODELLED)), _values))
def test_any_plist_is_read_or_refused(keys: dict[str, Any]) -> None:
    with contextlib.suppress(Refused):
        job = jobspec.parse(plistlib.dumps(keys), "any")
        assert job.label == keys["Label"]
        assert job.arguments


def test_a_plist_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.plist"
    path.write_bytes(plistlib.dumps({"Label": "a", "Program": "/bin/true"}))
    for mode in (0o664, 0o646):
        path.chmod(mode)
        with pytest.raises(Refused) as caught:
            jobspec.read(path, [os.getuid()])
        assert caught.value.code == BAD_OWNERSHIP
    path.chmod(0o644)
    assert jobspec.read(path, [path.stat().st_uid])[0].label == "a"
    if path.stat().st_uid:
        with pytest.raises(Refused):
            jobspec.read(path, [path.stat().st_uid + 1])
    with pytest.raises(Refused) as caught:
        jobspec.read(tmp_path / "absent.plist", [os.getuid()])
    assert caught.value.code == INPUT_OUTPUT
