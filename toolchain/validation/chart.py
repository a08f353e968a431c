"""A plot's geometry: where lines, ticks and the limit are, for the page's template to draw as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..core.records import record
from .result import Line, Plot
from .wording import number

WIDTH, HEIGHT = 540, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 48
"""margins that hold the axes"""
_MOST_MARKED = 60
"""points of a line that each get a mark"""
_FEW = 12
"""different x at most for ticks of their own, and for a logarithmic axis"""
_APART = 40
"""pixels between the texts of two ticks of x"""
_HUGE = 1e300


@record
class Tick:
    """A place on an axis, in pixels."""

    at: float
    text: str


@record
class Mark:
    """A point in pixels, and what it is in words."""

    x: float
    y: float
    text: str


@record
class Trace:
    """A line: `path` is SVG's; a gap begins a new part of it."""

    name: str
    path: str
    marks: tuple[Mark, ...]


@record
class Chart:
    """A plot in pixels of WIDTH x HEIGHT, its origin at the top left."""

    title: str
    x: str
    y: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    traces: tuple[Trace, ...]
    limit: Tick | None


def chart(plot: Plot) -> Chart | None:
    """The geometry of a plot; None if it has no finite point. Points that are not finite are gaps."""
    points = [point for line in plot.lines for point in _points(line) if point]
    if not points:
        return None
    limit = plot.limit if plot.limit is not None and _drawable(plot.limit) else None
    xs = sorted({x for x, _ in points})
    few = len(xs) <= _FEW
    logarithmic = few and xs[0] > 0 and xs[-1] / xs[0] >= 8
    across = _scale(xs[0], xs[-1], LEFT + 10, WIDTH - RIGHT - 10, logarithmic=logarithmic)
    low, high = _span([y for _, y in points] + ([limit] if limit is not None else []))
    up = _scale(low, high, HEIGHT - BOTTOM, TOP)
    ticks = [Tick(at=across(x), text=_short(x, xs)) for x in (xs if few else round_steps(xs[0], xs[-1], 6))]
    return Chart(
        title=plot.title,
        x=plot.x,
        y=plot.y,
        x_ticks=tuple(_apart(ticks)),
        y_ticks=tuple(Tick(at=up(y), text=number(y)) for y in round_steps(low, high, 5)),
        traces=tuple(_trace(line, across, up) for line in plot.lines),
        limit=Tick(at=up(limit), text=number(limit)) if limit is not None else None,
    )


def round_steps(low: float, high: float, most: int) -> list[float]:
    """At most `most` + 1 round numbers between two others: multiples of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(one * power for one in (1, 2, 5, 10) if one * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(index * step, digits) for index in range(first, math.floor(high / step + 1e-9) + 1)]


class _scale:  # noqa: N801  a function with fixed arguments
    """From a value to its pixel, between `start` and `end`."""

    def __init__(self, low: float, high: float, start: float, end: float, *, logarithmic: bool = False) -> None:
        self._kept = math.log if logarithmic else float
        self._low, self._high = self._kept(low), self._kept(high)
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (self._kept(value) - self._low) / (self._high - self._low) if self._high > self._low else 0.5
        return round(self._start + share * (self._end - self._start), 1)


def _drawable(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and abs(value) < _HUGE


def _points(line: Line) -> Iterator[tuple[float, float] | None]:
    """The points of a line; None for a gap."""
    for x, y in zip(line.x, line.y, strict=False):
        yield (x, y) if x is not None and y is not None and _drawable(x) and _drawable(y) else None


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis: from zero where that wastes little, with some room."""
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    if 0 <= low <= 0.5 * high:
        return 0.0, high + room
    if 0.5 * low <= high <= 0:
        return low - room, 0.0
    return low - room, high + room


def _short(x: float, xs: Sequence[float]) -> str:
    """A tick's text; tokens as in 8K where all are multiples of 1024."""
    return f"{int(x) // 1024}K" if all(one % 1024 == 0 and one > 0 for one in xs) else number(x)


def _apart(ticks: Sequence[Tick]) -> Iterator[Tick]:
    last = -math.inf
    for tick in ticks:
        if tick.at - last >= _APART:
            yield tick
            last = tick.at


def _trace(line: Line, across: _scale, up: _scale) -> Trace:
    path, marks, pen = [], [], "M"
    before: tuple[float, float] | None = None
    for point in _points(line):
        if point is None:
            pen = "M"
            continue
        x, y = across(point[0]), up(point[1])
        if pen == "M" or (x, y) != before:
            path.append(f"{pen}{x} {y}")
        marks.append(Mark(x=x, y=y, text=f"{line.name}: {number(point[0])}, {number(point[1])}"))
        before, pen = (x, y), "L"
    return Trace(name=line.name, path="".join(path), marks=tuple(marks) if len(marks) <= _MOST_MARKED else ())
