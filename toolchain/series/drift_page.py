"""A drift survey as a picture, and as an HTML page with text and picture."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

from ..core import templates
from ..core.records import write, write_bytes
from .drift import Drift, Survey

_LABELS = 16
"""points whose names fit the picture"""


def share(survey: Survey) -> float:
    """Percentage of the points where the series applies."""
    return 100 * survey.held / len(survey.points) if survey.points else 0.0


def save(drift: Drift, folder: Path) -> Path:
    """Write drift.json, drift.png and drift.html into `folder`; returns the path of the page."""
    image = plot(drift, folder)
    write(folder / "drift.json", drift)
    write_bytes(folder / "drift.png", image)
    html = templates.render("drift.html.j2", drift=drift, image=base64.b64encode(image).decode(), share=share)
    write_bytes(folder / "drift.html", html.encode())
    return folder / "drift.html"


def plot(drift: Drift, folder: Path) -> bytes:
    """A row for each edit and a column for each point, as PNG; `folder` keeps matplotlib's cache."""
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    from matplotlib.colors import ListedColormap  # half a second to import, and few tasks need it
    from matplotlib.figure import Figure

    surveys = [survey for survey in drift.surveys if survey.points]
    heights = [len(_rows(survey)) for survey in surveys]
    figure = Figure(figsize=(14, 1.6 * max(1, len(surveys)) + 0.22 * sum(heights)), layout="constrained")
    colours = ListedColormap(["#c0392b", "#d9d9d9", "#4c9f70"])
    drawn = figure.subplots(max(1, len(surveys)), 1, squeeze=False, height_ratios=heights or [1]).flat
    for axes, survey in zip(drawn, surveys, strict=False):
        rows = _rows(survey)
        axes.imshow(list(rows.values()), aspect="auto", cmap=colours, vmin=0, vmax=2, interpolation="nearest")
        axes.set_yticks(range(len(rows)), list(rows))
        step = -(-len(survey.points) // _LABELS)
        names = [f"{point.name}\n{point.date}" for point in survey.points]
        axes.set_xticks(range(0, len(names), step), names[::step])
        axes.tick_params(labelsize=7, length=0)
        axes.set_title(f"{survey.target}: {survey.held} of {len(survey.points)} points apply ({share(survey):.1f}%)")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()


def _rows(survey: Survey) -> dict[str, list[int]]:
    """2 where an edit applies, 0 where not, 1 on an unsupported tree and for another era's edit; first the series."""
    rows = {"the series": [2 if point.holds else 1 if point.reason else 0 for point in survey.points]}
    for edit in survey.edits:
        rows[edit.name] = [
            1 if point.reason or point.name in edit.elsewhere else 0 if edit.name in point.failing else 2
            for point in survey.points
        ]
    return rows
