"""The areas that a first run examines, in this order; each module states its assumptions and tests them."""

from __future__ import annotations

from ..assumption import Area
from . import build, correctness, deploy, metal, reboot, series, speed
from .disk import DISK
from .launchd_running import LAUNCHD
from .machine import MACHINE
from .neighbours import NEIGHBOURS
from .pythons import PYTHONS

AREAS: tuple[Area, ...] = (
    MACHINE,
    PYTHONS,
    LAUNCHD,
    DISK,
    series.AREA,
    build.AREA,
    metal.AREA,
    correctness.AREA,
    speed.AREA,
    deploy.AREA,
    NEIGHBOURS,
    reboot.AREA,
)
