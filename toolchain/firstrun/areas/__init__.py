"""The areas that a first run examines, in this order; each module states its assumptions and tests them."""

from __future__ import annotations

from ..assumption import Area
from .launchd_running import LAUNCHD

AREAS: tuple[Area, ...] = (LAUNCHD,)
