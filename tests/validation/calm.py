"""A machine on which nothing disturbs a measurement, and trials on it."""

from __future__ import annotations

import dataclasses

from toolchain.host.conditions import Conditions
from toolchain.validation.trial import Trial

QUIET = Conditions(on_battery=False, low_power=False, thermal="nominal", foreign_cpu=0.01, gpu=0.0)


class Scripted:
    """Looks that answer with the given conditions in turn, the last one for ever."""

    def __init__(self, *conditions: Conditions) -> None:
        self._left = list(conditions or (QUIET,))

    def look(self) -> Conditions:
        """The next of them."""
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]


def calmly(trial: Trial, *conditions: Conditions) -> Trial:
    """The trial on a machine with these conditions, by default a quiet one."""
    return dataclasses.replace(trial, observer=Scripted(*conditions))
