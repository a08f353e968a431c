"""The benchmark's results as a table for the terminal, a plot, and an HTML report."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable
from pathlib import Path

from ...core import templates
from ...core.records import record, write, write_bytes
from .benchmark import Benchmark, BenchmarkRow, ScoreRow
from .measure import DB_PER_BIT, SCORE_DEVIATION

_COLUMNS = 4


@record
class Panel:
    """The rows of one data set, for one part of the plot and one table."""

    data: str
    rows: tuple[BenchmarkRow, ...]
    attention: tuple[ScoreRow, ...]
    """over the longest context"""


def panels(lab: Benchmark) -> list[Panel]:
    """Data sets in order; without single layers of a dump, which its means cover."""
    names = [name for name in dict.fromkeys(row.data for row in lab.rows) if not _is_layer(name)]
    return [
        Panel(
            data=name,
            rows=tuple(row for row in lab.rows if row.data == name),
            attention=tuple(_longest(row for row in lab.attention if row.data == name)),
        )
        for name in names
    ]


def save(lab: Benchmark, folder: Path) -> Path:
    """Write quality.json, snr.png and report.html into `folder`; returns the path of the report."""
    image = plot(lab, folder)
    write(folder / "quality.json", lab)
    write_bytes(folder / "snr.png", image)
    html = templates.render(
        "quality.html.j2",
        panels=panels(lab),
        layers=[row for row in lab.rows if _is_layer(row.data)],
        attention=lab.attention,
        image=base64.b64encode(image).decode(),
        db_per_bit=DB_PER_BIT,
        score_deviation=SCORE_DEVIATION,
    )
    write_bytes(folder / "report.html", html.encode())
    return folder / "report.html"


def plot(lab: Benchmark, folder: Path) -> bytes:
    """SNR against bits per value for each data set, with Shannon's bound, as PNG; `folder` keeps matplotlib's cache."""
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    from matplotlib.figure import Figure  # half a second to import, and no other task needs it

    found = panels(lab)
    columns = min(_COLUMNS, len(found))
    lines = -(-len(found) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * lines + 0.6), layout="constrained")
    types = list(dict.fromkeys(row.type for row in lab.rows))
    for axes, panel in zip(figure.subplots(lines, columns, squeeze=False).flat, found, strict=False):
        bits = sorted({row.bits_per_value for row in panel.rows})
        low, high = bits[0] - 0.5, bits[-1] + 0.5
        axes.plot([low, high], [DB_PER_BIT * low, DB_PER_BIT * high], color="black", linewidth=1)
        for row in panel.rows:
            colour = f"C{types.index(row.type)}"
            axes.scatter(row.bits_per_value, row.snr_db, color=colour, facecolor=colour if row.rotated else "none")
        axes.set_title(panel.data)
        axes.set_xlabel("bits per value")
        axes.set_ylabel("SNR (dB)")
        axes.grid(alpha=0.3)
    for axes in figure.axes[len(found) :]:
        axes.remove()
    figure.axes[0].plot([], [], color="black", linewidth=1, label="Shannon's bound")
    for index, name in enumerate(types):
        figure.axes[0].scatter([], [], color=f"C{index}", label=name)
    figure.axes[0].scatter([], [], color="grey", facecolor="none", label="not rotated")
    figure.legend(loc="outside lower center", ncols=min(len(types) + 2, 4 * columns), frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()


def _is_layer(name: str) -> bool:
    return name.count(".") > 1


def _longest(rows: Iterable[ScoreRow]) -> Iterable[ScoreRow]:
    found = list(rows)
    longest = max((row.context for row in found), default=0)
    return (row for row in found if row.context == longest)
