"""The report of a rollout: one record, as JSON and as a page that needs nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ..core import records, templates
from ..core.delivery_errors import HostKeyRejected, HostUnreachable, RolloutHalted
from ..core.errors import ToolchainError
from ..core.records import record
from .journal import End, Event, Journal, moment, now, results
from .outcome import HostResult, Revert
from .rules import Rules

_WORDS: dict[Revert, str] = {
    "reverted": "went back",
    "by-tq": "kept by tq",
    "failed": "did not go back",
    "unreachable": "not reached to go back",
    "nothing-before": "nothing to go back to",
}
_STUCK = ("failed", "unreachable")
_NOTABLE = ("started", "resumed", "ended", "retrying", "halted", "reverted", "interrupted", "finished", "abandoned")


@record
class WaveReport:
    """A wave and what became of its hosts."""

    number: int
    hosts: tuple[HostResult, ...]


@record
class FleetReport:
    """A rollout: what it changed where, what halted it, and who went back."""

    rollout: str
    inventory: str
    release: str
    """as it was asked for; empty: what the channel names"""
    releases: tuple[str, ...]
    """what the hosts' plans named"""
    started: str
    ended: str
    """empty: it is unfinished"""
    end: End
    seconds: float
    interruptions: int
    """how often a controller took it up again"""
    halted_wave: int
    """0: it was not halted"""
    halted_because: str
    halted_by: str
    """rules, unreachable or host-key"""
    counts: dict[str, int]
    reverts: dict[str, int]
    rules: Rules
    waves: tuple[WaveReport, ...]
    events: tuple[Event, ...]
    folder: str

    def failure(self) -> ToolchainError | None:
        """Why the rollout is no success; unreachable hosts alone are a warning."""
        hint = f"see {Path(self.folder) / 'report.html'}"
        names = ", ".join(one.name for wave in self.waves for one in wave.hosts if one.revert in _STUCK)
        stuck = f"did not go back: {names}" if names else ""
        if self.end in ("rolled-back", "abandoned"):
            return RolloutHalted(stuck, hint=hint) if stuck else None
        if self.halted_wave:
            kinds = {"unreachable": HostUnreachable, "host-key": HostKeyRejected}
            back = f"; went back: {self.reverts.get('reverted', 0) + self.reverts.get('by-tq', 0)} hosts"
            back += f"; {stuck}" if stuck else ""
            return kinds.get(self.halted_by, RolloutHalted)(
                f"the rollout was halted in wave {self.halted_wave}: {self.halted_because}{back}", hint=hint
            )
        rejected = [one for wave in self.waves for one in wave.hosts if one.outcome == "rejected"]
        return HostKeyRejected(rejected[0].message, hint=rejected[0].hint) if rejected else None


def of(journal: Journal) -> FleetReport:
    """What the journal says."""
    state, events = journal.state, journal.events()
    hosts = results(state.inventory, events).values()
    halted = next((event for event in reversed(events) if event.event == "halted"), None)
    return FleetReport(
        rollout=state.id,
        inventory=state.inventory.path,
        release=state.release,
        releases=tuple(sorted({one.release for one in hosts if one.release})),
        started=state.started,
        ended=state.ended,
        end=state.end,
        seconds=_between(state.started, state.ended or now()),
        interruptions=sum(event.event == "resumed" for event in events),
        halted_wave=halted.wave if halted else 0,
        halted_because=halted.message if halted else "",
        halted_by=halted.error if halted else "",
        counts=dict(Counter(one.outcome for one in hosts)),
        reverts=dict(Counter(one.revert for one in hosts if one.revert)),
        rules=state.inventory.rules,
        waves=tuple(
            WaveReport(number=number, hosts=tuple(one for one in hosts if one.wave == number))
            for number in state.inventory.waves
        ),
        events=tuple(event for event in events if event.event in _NOTABLE),
        folder=str(journal.folder),
    )


def save(found: FleetReport, folder: Path) -> Path:
    """Write report.json and report.html into the folder; returns the path of the page."""
    records.write(folder / "report.json", found)
    page = templates.render(
        "fleet.html.j2",
        found=found,
        offset=_offset(found.started),
        title=_title(found),
        went=_went(found),
        words=_WORDS,
    )
    records.write_bytes(folder / "report.html", page.encode())
    return folder / "report.html"


def _title(found: FleetReport) -> str:
    if found.halted_wave:
        return f"Rollout halted in wave {found.halted_wave}"
    titles = {"": "Rollout unfinished", "done": "Rollout done", "abandoned": "Rollout abandoned",
              "rolled-back": "Rollout taken back", "halted": "Rollout halted"}  # fmt: skip
    return titles[found.end]


def _went(found: FleetReport) -> list[tuple[str, list[str]]]:
    """What became of the hosts that had to go back, in words."""
    hosts = [one for wave in found.waves for one in wave.hosts]
    named = {word: [one.name for one in hosts if one.revert == revert] for revert, word in _WORDS.items()}
    return [(word.capitalize(), names) for word, names in named.items() if names]


class _offset:  # noqa: N801  a function with a fixed argument
    """When something happened, from the rollout's begin."""

    def __init__(self, start: str) -> None:
        self._start = start

    def __call__(self, at: str) -> str:
        seconds = _between(self._start, at)
        return f"{seconds:.1f} s" if seconds < 120 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _between(start: str, end: str) -> float:
    return round((moment(end) - moment(start)).total_seconds(), 3)
