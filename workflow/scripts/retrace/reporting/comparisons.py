"""A comparison of networks on a page: its table and its plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from retrace.evaluation.comparison import (
    HEADINGS,
    PUBLISHED,
    bar_name,
    footnote,
    main_scores,
    near_points,
)
from retrace.files import read_parsed
from retrace.reporting.dates import file_date
from retrace.reporting.figures import COLOURS, PageFigure, Trace
from retrace.reporting.rendering import render
from retrace.reporting.tables import Row, Table, table

NAMED_POINTS = 12
"""With more networks, points have the numbers of their bars: names would cover each other."""
BAR_HEIGHT = 24
"""Pixels of a network's bar."""


@dataclass(frozen=True)
class ShownComparison:
    """A comparison as the page shows it."""

    dataset: str
    date: str
    table: Table
    figures: Sequence[PageFigure]
    note: str
    footnote: str | None
    refused: Mapping[str, str]


def comparison_page(path: Path, template: str) -> str:
    """The page of a comparison.json; DataError if that is missing or damaged."""
    shown = read_parsed(path, partial(_comparison, path))
    return render(template, title=f"networks of {shown.dataset}", comparisons=[shown])


def read_comparison(path: Path) -> ShownComparison | None:
    """The comparison in a comparison.json; None if there is none, DataError if it is damaged."""
    if not path.is_file():
        return None
    return read_parsed(path, partial(_comparison, path))


def _comparison(path: Path, content: Mapping[str, Any]) -> ShownComparison:
    rows, published = content["rows"], content.get("published")
    shown = [Row(row, reference=row.get("family") in (PUBLISHED, "others")) for row in rows]
    own = [row for row in rows if row.get("family") != PUBLISHED]
    return ShownComparison(
        dataset=content.get("dataset", path.parent.name),
        date=file_date(path),
        table=table(HEADINGS, shown),
        figures=[_bars(own), *_work(own)],
        note=content.get("note", ""),
        footnote=footnote(published) if published else None,
        refused=content.get("refused") or {},
    )


def _scores_of(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    return {key for row in rows for key, value in row.items() if value is not None}


def _bars(rows: Sequence[Mapping[str, Any]]) -> PageFigure:
    """The main scores of every row as bars."""
    parts, _ = main_scores(_scores_of(rows))
    numbered = len(rows) > NAMED_POINTS
    names = [bar_name(r) + (f"  {i}" if numbered else "") for i, r in enumerate(rows, 1)]
    traces: list[Trace] = [
        {
            **{"type": "bar", "orientation": "h", "name": HEADINGS[part], "y": names},
            **{"x": [row.get(part) for row in rows], "marker": {"color": colour}},
            "hovertemplate": f"%{{y}}: {HEADINGS[part]} %{{x:.3f}}<extra></extra>",
        }
        for part, colour in zip(parts, COLOURS, strict=False)
    ]
    unit = "bits, less is better" if len(parts) > 1 else "less is better"
    layout = {
        "barmode": "stack",
        "legend": {"traceorder": "normal"},
        "xaxis": {"title": {"text": unit}},
        "yaxis": {"autorange": "reversed", "automargin": True, "dtick": 1},
        "hovermode": "closest",
    }
    height = 110 + BAR_HEIGHT * len(rows)
    return PageFigure(traces, layout, "Scores of each network.", height, name="bars")


def _work(rows: Sequence[Mapping[str, Any]]) -> list[PageFigure]:
    """The main score against the arithmetic per voxel; none if no row has both."""
    _, score = main_scores(_scores_of(rows))
    shown = [row for row in rows if row.get("kflop_per_voxel") and row.get(score) is not None]
    if not shown:
        return []
    names = [
        row["name"] if len(rows) <= NAMED_POINTS else str(rows.index(row) + 1) for row in shown
    ]
    labels = _labels(shown, score, names)
    middle = 10 ** (sum(_log_axis(shown)["range"]) / 2)
    families = list(dict.fromkeys(str(row.get("family", "")) for row in shown))
    traces = [
        _points(
            [row for row in shown if str(row.get("family", "")) == family], labels, score, middle
        )
        | {"name": family or "networks", "marker": {"color": colour, "size": 10}}
        for family, colour in zip(families, COLOURS * len(families), strict=False)
    ]
    layout = {
        "xaxis": {"title": {"text": HEADINGS["kflop_per_voxel"]}, **_log_axis(shown)},
        "yaxis": {"title": {"text": HEADINGS[score]}},
        "hovermode": "closest",
    }
    caption, height = "Score against arithmetic per voxel.", 380
    if len(rows) > NAMED_POINTS:
        caption, height = f"{caption} Numbers are those of the bars.", 560
    return [PageFigure(traces, layout, caption, height, name="work")]


def _log_axis(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A log axis with room for labels."""
    powers = [math.log10(row["kflop_per_voxel"]) for row in rows]
    low, high = min(powers), max(powers)
    room = max(0.1, 0.15 * (high - low))
    axis = {"type": "log", "range": [low - room, high + room]}
    return axis | ({"dtick": "D2"} if high - low > 1 else {})


def _labels(rows: Sequence[Mapping[str, Any]], score: str, names: Sequence[str]) -> dict[str, str]:
    """The label of each row's point by name; points that are near to each other share one."""
    places = {i: (math.log10(row["kflop_per_voxel"]), row[score]) for i, row in enumerate(rows)}
    labels = {row["name"]: "" for row in rows}
    for group in near_points(places):
        shown = [names[index] for index in group]
        more = f" and {len(group) - 2} more" if len(group) > 3 else ""
        labels[rows[group[0]]["name"]] = ", ".join(shown[:2] if more else shown) + more
    return labels


def _points(
    rows: Sequence[Mapping[str, Any]], labels: Mapping[str, str], score: str, middle: float
) -> Trace:
    """Points with labels towards the middle of the plot."""
    sides = ["left" if row["kflop_per_voxel"] > middle else "right" for row in rows]
    return {
        **{"type": "scatter", "mode": "markers+text"},
        "textposition": [f"top {side}" for side in sides],
        "x": [row["kflop_per_voxel"] for row in rows],
        "y": [row[score] for row in rows],
        "text": [labels[row["name"]] for row in rows],
        "customdata": [row["name"] for row in rows],
        "hovertemplate": "%{customdata}<br>%{x:,.3~g} kFLOP a voxel, %{y:.3f}<extra></extra>",
        "cliponaxis": False,
    }
