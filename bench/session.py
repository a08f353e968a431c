"""How often the session test raises a false alarm, and how soon it finds a degradation that begins in the middle.

For each seed the baseline holds its conversation once, and every setting reads along. A setting is a cache type, or
f16 with variables that change its rounding, as in "f16 LLAMA_ARG_UBATCH=32". Whatever was measured is kept in --out.

A switch of the cache at a turn is composed from two settings' readings of the same conversation: those of the first
before that turn, those of the second from it on. `--switch 25 q8_0 turbo2` does it on the real servers instead, to show
that it is the same.

    PYTHONPATH=$PWD .venv/bin/python -P -m bench.session MODEL --workspace W --out D --seeds 1 2 --settings q8_0 turbo2
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolchain.core import records
from toolchain.core.config import Config, load
from toolchain.core.console import Console
from toolchain.core.run import Run
from toolchain.stages import Release
from toolchain.validation import validation
from toolchain.validation.endpoint import Endpoint
from toolchain.validation.plan import Plan, Side
from toolchain.validation.sides import Sides
from toolchain.validation.store import Store
from toolchain.validation.trial import Trial
from toolchain.validation.trials import degradation
from toolchain.validation.trials.conversation import Reading, Size, Turn, answered, read_along
from toolchain.validation.trials.degradation import Turning
from toolchain.validation.trials.faults import faults
from toolchain.validation.trials.session import compared


class Sweep:
    """The measurements of one model, kept in a folder for each seed and setting."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.size = Size(turns=given.turns, tokens=given.tokens, positions=given.positions)
        flags = {"workspace": str(given.workspace)}
        self.run = Run(config=load(environ={}, flags=flags), console=Console())

    def baseline(self, seed: int) -> tuple[list[Turn], list[Reading]]:
        """The conversation of f16, and its own reading of it."""
        trial = self._trial(seed, "f16")
        with trial.sides, trial.progress(f"seed {seed}, f16", 100) as progress:
            turns = answered(trial, "baseline", progress, self.size)
            return turns, read_along(trial, "baseline", turns, progress, self.size)

    def reading(self, seed: int, setting: str, turns: Sequence[Turn]) -> list[Reading]:
        """A setting's reading of that conversation."""
        trial = self._trial(seed, setting)
        with trial.sides, trial.progress(f"seed {seed}, {setting}", len(turns)) as progress:
            return read_along(trial, "candidate", turns, progress, self.size)

    def free(self, seed: int, setting: str) -> list[Turn]:
        """A setting's own conversation."""
        trial = self._trial(seed, setting)
        with trial.sides, trial.progress(f"seed {seed}, {setting}, free", 50) as progress:
            return answered(trial, "candidate", progress, self.size)

    def switched(self, seed: int, at: int, first: str, second: str, turns: Sequence[Turn]) -> list[Reading]:
        """A reading by two servers: the second one takes over at a turn, from 1."""
        folder = f"{first}-{second}-{at}"
        before, after = self._trial(seed, first, folder), self._trial(seed, second, folder)
        with before.sides, before.progress(f"seed {seed}, {folder}", at) as progress:
            read_along(before, "candidate", turns[: at - 1], progress, self.size)
        with after.sides, after.progress(f"seed {seed}, {folder}", len(turns)) as progress:
            return read_along(after, "candidate", turns, progress, self.size)

    def _trial(self, seed: int, setting: str, folder: str = "") -> Trial:
        cache, *variables = setting.split()
        plan = validation.make_plan(
            self.run,
            model=str(self.given.model),
            candidate=cache,
            baseline="f16",
            tests=["session"],
            contexts=[],
            backend=self.given.against,
            release="",
            seed=seed,
        )
        environment = {"LLAMA_ARG_REPACK": "0", "LLAMA_ARG_THREADS": "1"}
        environment |= dict(one.split("=", 1) for one in variables)
        plan = dataclasses.replace(plan, environment=environment)
        store = Store(self.given.out / f"{seed}" / (folder or setting).replace(" ", "-").replace("=", "-"))
        release = records.read(plan.release_dir / "manifest.json", Release) if plan.release_dir else None
        return Trial(
            plan=plan,
            store=store,
            sides=_Sides(plan, release, store, self.run.config, self.given.context),
            config=self.run.config,
            console=self.run.console,
            workspace=self.run.workspace,
            added=release.cache_types if release else (),
        )


class _Sides(Sides):
    """The sides with a context of one's own."""

    def __init__(self, plan: Plan, release: Release | None, store: Store, config: Config, context: int) -> None:
        super().__init__(plan, release, store, config)
        self._asked_context = context

    def at(self, side: Side, context: int) -> Endpoint:
        return super().at(side, self._asked_context or context)


def main() -> None:
    """Measure, then print each series, the false alarms and the delays of composed switches."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("model", type=Path, nargs="?")
    asked.add_argument("--workspace", type=Path)
    asked.add_argument("--out", type=Path)
    asked.add_argument("--seeds", type=int, nargs="+", default=[1])
    asked.add_argument("--settings", nargs="+", default=["q8_0", "turbo2"])
    asked.add_argument("--free", nargs="*", default=[], help="settings that also answer for themselves")
    asked.add_argument("--switch", nargs=3, metavar=("TURN", "FIRST", "SECOND"))
    asked.add_argument("--simulate", type=int, default=0, help="so many drawn sessions instead of measured ones")
    asked.add_argument("--against", default="llama-server")
    asked.add_argument("--context", type=int, default=0)
    asked.add_argument("--turns", type=int, default=10)
    asked.add_argument("--tokens", type=int, default=128)
    asked.add_argument("--positions", type=int, default=32)
    given = asked.parse_args()
    if given.simulate:
        _simulate(given.simulate)
        return
    sweep, series = Sweep(given), dict[tuple[int, str], list[Turning]]()
    for seed in given.seeds:
        began = time.monotonic()
        turns, exact = sweep.baseline(seed)
        _say(f"seed {seed}: baseline {time.monotonic() - began:.0f} s, {_faulty(turns)} faulty")
        for setting in given.settings:
            began = time.monotonic()
            steps = compared(turns, exact, sweep.reading(seed, setting, turns))
            series[seed, setting] = [one.means for one in steps]
            kl = _mean(series[seed, setting])
            _say(
                f"seed {seed} {setting}: {time.monotonic() - began:.0f} s, KL {kl:.3g}, {_told(series[seed, setting])}"
            )
        for setting in given.free:
            _say(f"seed {seed} {setting}, free: {_faulty(sweep.free(seed, setting))} faulty")
        if given.switch:
            at, (first, second) = int(given.switch[0]), given.switch[1:]
            steps = compared(turns, exact, sweep.switched(seed, at, first, second, turns))
            _say(f"seed {seed} {first} to {second} at {at}, really: {_told([one.means for one in steps])}")
    _rates(series)


def _rates(series: dict[tuple[int, str], list[Turning]]) -> None:
    alarms = [key for key, levels in series.items() if degradation.rise(levels).degraded]
    _say(f"false alarms: {len(alarms)} of {len(series)} series: {alarms}")
    for first, second in itertools.permutations(dict.fromkeys(setting for _, setting in series), 2):
        told = []
        for seed in dict.fromkeys(seed for seed, _ in series):
            a, b = series[seed, first], series[seed, second]
            if _mean(b) < FACTOR * _mean(a):
                continue
            for at in range(10, 44, 3):
                composed = [*a[: at - 1], *b[at - 1 :]]
                found = degradation.rise(composed)
                told.append((found.degraded, abs(found.turn - at), (degradation.noticed(composed) or 99) - at))
        if told:
            hits = [one for one in told if one[0]]
            near = sum(one[1] <= 2 for one in hits)
            delay = sorted(one[2] for one in hits)[len(hits) // 2] if hits else None
            _say(f"{first} to {second}: {len(hits)} of {len(told)} found, {near} within 2 turns; median delay {delay}")


def _simulate(count: int) -> None:
    """Alarms of drawn sessions: noise as large as was measured, and as alike in neighbouring turns."""
    for alike, by in itertools.product((0.0, 0.3), (1.0, 1.5, 2.0, 3.0)):
        found = [degradation.rise(_drawn(seed, alike, by)) for seed in range(count)]
        hits = [one for one in found if one.degraded]
        near = sum(abs(one.turn - 25) <= 3 for one in hits)
        _say(f"correlation {alike}, from turn 25 on x{by}: {len(hits)} of {count} degraded, {near} within 3 turns")


def _drawn(seed: int, alike: float, by: float) -> list[Turning]:
    rng = np.random.default_rng(seed)
    noise = [rng.normal()]
    for _ in range(49):
        noise.append(alike * noise[-1] + math.sqrt(1 - alike**2) * rng.normal())
    u = 0.4 * np.exp(-np.arange(50) / 50 + rng.normal(0, 0.2, 50))
    kl = 0.05 * u * np.exp(0.3 * np.array(noise)) * np.where(np.arange(50) >= 24, by, 1)
    return [Turning(kl=float(a), uncertainty=float(b)) for a, b in zip(kl, u, strict=True)]


FACTOR = 1.5
"""a switch between types that differ by less is none to be found"""


def _mean(levels: Sequence[Turning]) -> float:
    return sum(one.kl for one in levels) / len(levels)


def _told(levels: Sequence[Turning]) -> str:
    found = degradation.rise(levels)
    name = "DEGRADED" if found.degraded else "steady"
    return f"{name}: x{found.factor:.2f} from turn {found.turn}, by chance {found.chance:.4f}"


def _faulty(turns: Sequence[Turn]) -> str:
    each = [faults(turns, at) for at in range(len(turns))]
    kinds = sorted(kind for one in each for kind in one)
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    return f"{sum(map(bool, each))} of {len(turns)} ({counts})"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
