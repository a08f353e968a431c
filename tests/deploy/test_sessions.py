"""Where the service lives while its user comes and goes: what deploy says and does, scenario by scenario."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from . import sessions

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scenario", sessions.SCENARIOS)
def test_scenario(scenario: Callable[[Path], list[str]], tmp_path: Path) -> None:
    assert scenario(tmp_path)
