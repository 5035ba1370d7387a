"""Compares the networks of one dataset: their scores and costs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retrace.config.dataset_model import ShownFigures
from retrace.evaluation.coverage import is_partial
from retrace.evaluation.metric import Metric
from retrace.evaluation.metrics import BOUNDARY_METRICS, SEGMENT_METRICS, SKELETON_METRICS
from retrace.evaluation.plots import write_png

_METRICS: list[Metric[Any]] = [*SEGMENT_METRICS, *SKELETON_METRICS]
_OF_SEGMENTS = [metric for metric in _METRICS if metric.in_tables]
_OF_BOUNDARIES = [metric for metric in BOUNDARY_METRICS if metric.in_tables]

SEGMENT_SCORES = tuple(metric.name for metric in _OF_SEGMENTS)
"""Scores of segmentations; `voi_sum` sorts the table."""

BOUNDARY_SCORES = tuple(metric.name for metric in _OF_BOUNDARIES)
"""Scores of boundary maps; `pixel_error` sorts the table."""

HEADINGS = {
    "name": "network",
    "family": "family",
    "region": "scored on",
    "coverage": "scored voxels",
    **{metric.name: metric.heading for metric in _OF_SEGMENTS},
    **{metric.name: metric.heading for metric in _OF_BOUNDARIES},
    "iterations": "iterations",
    "parameters": "parameters",
    "kflop_per_voxel": "kFLOP per voxel",
    "training_s": "training, s",
    "prediction_voxels_per_s": "prediction, voxels/s",
    "prediction_peak_mb": "its peak memory, MB",
}
"""Keys of a row in the order of the columns, and their headings."""
PUBLISHED, TESTED = "published [1]", "test entries"
"""The family of a row that others published, and the region of a row of ours."""

NEAR = (0.09, 0.05)
"""Points of a plot that are nearer than this share of its extent have one label."""

NOTE = (
    "means over the test entries, thresholds chosen on validation entries. Rows scored on a part "
    "of the labelled voxels come after those of all. kFLOP a voxel: "
    "multiplications and additions of one prediction tile by its output voxels, halo included. "
    "Training: its runs together, without start-up. Prediction: voxels "
    "written by the job's seconds, start-up included"
)


@dataclass(frozen=True)
class NetworkCost:
    """The cost of a network; None if unknown, such as the seconds of a prediction in shards."""

    parameters: int
    kflop_per_voxel: float
    iterations: int
    training_s: float | None
    prediction_voxels_per_s: float | None
    prediction_peak_mb: float | None


def mean_scores(volumes: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, Any]:
    """The mean of each metric over the entries of an evaluation, if every entry has it."""
    return {
        metric: sum(entry[metric] for entry in volumes.values()) / len(volumes)
        for metric in metrics
        if volumes and all(entry.get(metric) is not None for entry in volumes.values())
    }


def training_seconds(history: Mapping[str, Any]) -> float | None:
    """Seconds of training; if only the last run's rate is known, all iterations at that rate."""
    if seconds := history.get("training_seconds"):
        return round(float(seconds), 1)
    rate = history["iterations_per_second"]
    return round(history["iterations"] / rate, 1) if rate else None


def best_first(rows: Iterable[Mapping[str, Any]], metric: str) -> list[dict[str, Any]]:
    """The rows sorted by a metric of which lower is better.

    Rows scored on a part of the labelled voxels come after those of all, rows without it last.
    """
    return sorted(
        map(dict, rows), key=lambda row: (metric not in row, is_partial(row), row.get(metric, 0.0))
    )


def published_rows(
    content: Mapping[str, Any], chosen: ShownFigures, metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each network with published scores in the chosen regions and ground truths.

    `content`: config/published/NAME.yaml; `chosen`: which part of it to show.
    """
    return [
        {
            "name": name,
            "family": PUBLISHED,
            "region": f"{region}, {ground_truth}",
            **{metric: float(values[metric]) for metric in metrics if metric in values},
        }
        for region in chosen.regions
        for ground_truth in chosen.truths
        for name, values in content["regions"][region].get(ground_truth, {}).items()
        if values is not None
    ]


def combined(
    own: Sequence[Mapping[str, Any]],
    published: Sequence[Mapping[str, Any]],
    metric: str,
    differs: str | None,
) -> list[dict[str, Any]]:
    """Our rows and published ones, the best first.

    Published rows that cannot be compared (the reason is `differs`) come after all of ours.
    """
    rows = [{**row, "region": TESTED} for row in own] if published else list(map(dict, own))
    if differs is None:
        return best_first([*rows, *published], metric)
    return best_first(rows, metric) + best_first(published, metric)


def footnote(published: Mapping[str, Any]) -> str:
    """The source and convention of published rows, and a warning if they cannot be compared."""
    differs = published["differs"]
    warning = f" NOT comparable with the rows of the test entries: {differs}." if differs else ""
    return f"[1] {published['source']}. {published['convention']}.{warning}"


def comparison_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of the columns that at least one row has."""
    columns = [key for key in HEADINGS if any(row.get(key) is not None for row in rows)]
    lines = [
        "| " + " | ".join(HEADINGS[key] for key in columns) + " |",
        "|" + "---|" * len(columns),
    ]
    lines += ["| " + " | ".join(_cell(row.get(key)) for key in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main_scores(names: Collection[str]) -> tuple[tuple[str, ...], str]:
    """Of the scores that rows have, those of the bars of a plot, and the one that sorts rows."""
    if "voi_sum" in names:
        return ("voi_split", "voi_merge"), "voi_sum"
    return ("pixel_error",), "pixel_error"


def bar_name(row: Mapping[str, Any]) -> str:
    """The name of a row in plots, which says if its scores are of a part of the voxels."""
    return f"{row['name']} (a part)" if is_partial(row) else str(row["name"])


def plot_comparison(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], path: Path) -> None:
    """Writes a picture: the scores of every row, and the main score against FLOP per voxel.

    Points have the numbers of their bars, because many names would cover each other.
    """
    height = max(3.2, 1.2 + 0.28 * len(rows))
    figure = Figure(figsize=(12, height), layout="constrained")
    bars, work = figure.subplots(1, 2, width_ratios=(3, 2))
    parts, score = main_scores(metrics)
    _draw_bars(bars, rows, parts)
    _draw_work(work, rows, score)
    write_png(figure, path, dpi=120)


def _draw_bars(axes: Axes, rows: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> None:
    left, places = [0.0] * len(rows), range(len(rows))
    for part in parts:
        values = [row.get(part, 0.0) for row in rows]
        axes.barh(places, values, left=left, label=HEADINGS[part])
        left = [a + b for a, b in zip(left, values, strict=True)]
    names = [f"{bar_name(row)}  {number}" for number, row in enumerate(rows, 1)]
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlabel("bits, less is better" if len(parts) > 1 else "less is better")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(parts), frameon=False)


def _draw_work(axes: Axes, rows: Sequence[Mapping[str, Any]], score: str) -> None:
    points = {
        number: (math.log10(row["kflop_per_voxel"]), row[score])
        for number, row in enumerate(rows, 1)
        if row.get("kflop_per_voxel") and row.get(score) is not None
    }
    for numbers in near_points(points):
        x, y = points[numbers[0]]
        text = ", ".join(map(str, numbers))
        axes.annotate(text, (10**x, y), (5, 3), textcoords="offset points", fontsize="small")
    axes.plot([10**x for x, _ in points.values()], [y for _, y in points.values()], "o", color="C2")
    axes.set(xscale="log", xlabel=HEADINGS["kflop_per_voxel"], ylabel=HEADINGS[score])
    axes.set_title("numbers are those of the bars", fontsize="small", loc="right")
    axes.margins(0.12)


def near_points(points: Mapping[int, tuple[float, float]]) -> list[list[int]]:
    """Numbers of points in groups that need one label, because they would cover each other."""
    places = np.array(list(points.values())).reshape(-1, 2)
    extent = np.ptp(places, axis=0) if len(places) else np.ones(2)
    scaled = places / np.where(extent > 0, extent, 1)
    groups: list[list[int]] = []
    for index, place in enumerate(scaled):
        close = (g for g in groups if np.all(np.abs(scaled[g[0]] - place) < NEAR))
        group = next(close, None)
        if group is None:
            groups.append([index])
        else:
            group.append(index)
    numbers = list(points)
    return [[numbers[index] for index in group] for group in groups]
