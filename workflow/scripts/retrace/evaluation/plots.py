"""Scores of segmentations as rows of JSON, a table on the terminal, and a plot."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retrace.evaluation.coverage import coverage_text
from retrace.evaluation.metric import Metric
from retrace.evaluation.metrics import SEGMENT_METRICS
from retrace.evaluation.scores import Scores
from retrace.files import atomic_write

matplotlib.use("agg")

SHOWN = [metric for metric in SEGMENT_METRICS if metric.in_tables]
"""The columns of the table."""
IN_PLANE = ("voi_split", "voi_merge")
"""The axes of the first panel; every other shown metric has a panel against the threshold."""


def curve_rows(thresholds: Sequence[float], scores: Sequence[Scores]) -> list[dict[str, float]]:
    """One JSON row for each threshold."""
    return [
        {"threshold": value, **item.as_dict()}
        for value, item in zip(thresholds, scores, strict=True)
    ]


def scores_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A text table with one line for each result; VOI in bits.

    The last column is how many voxels were scored, if every result says so.
    """
    width = max([len(name) for name in rows] + [8])
    columns = [max(len(metric.heading), 8) for metric in SHOWN]
    covered = [coverage_text(row) for row in rows.values()]
    head = " ".join(f"{m.heading:>{w}}" for m, w in zip(SHOWN, columns, strict=True))
    lines = [f"{'':{width}}  {head}{'  scored voxels' if all(covered) else ''}"]
    for (name, row), text in zip(rows.items(), covered, strict=True):
        scores = " ".join(f"{row[m.name]:{w}.3f}" for m, w in zip(SHOWN, columns, strict=True))
        lines.append(f"{name:{width}}  {scores}{f'  {text}' if all(covered) else ''}")
    return "\n".join(lines)


def plot_evaluation(volumes: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Writes a PNG: VOI split against VOI merge, and every other metric against the threshold."""
    others = [metric for metric in SHOWN if metric.name not in IN_PLANE]
    figure = Figure(figsize=(4.75 * (1 + len(others)), 4.2), layout="constrained")
    plane, *panels = figure.subplots(1, 1 + len(others))
    for index, (name, result) in enumerate(volumes.items()):
        _draw_plane(plane, name, result, f"C{index}")
        for metric, panel in zip(others, panels, strict=True):
            _draw_curve(panel, metric, result, f"C{index}")
    plane.set(xlabel="VOI split (bits)", ylabel="VOI merge (bits)", xlim=(0, None), ylim=(0, None))
    plane.legend(fontsize=8)
    plane.set_title("test volumes; the star is the threshold chosen on validation", fontsize=9)
    for metric, panel in zip(others, panels, strict=True):
        unit = f" ({metric.unit})" if metric.unit else ""
        panel.set(xlabel="agglomeration threshold", ylabel=f"{metric.heading}{unit}")
        panel.set_ylim(0, None)
        panel.set_title("the curve was not used to choose the threshold", fontsize=9)
    write_png(figure, path, dpi=120)


def write_png(figure: Figure, path: Path, dpi: int) -> None:
    """Writes a figure atomically; equal figures give equal bytes."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, metadata={"Software": ""})
    atomic_write(path, content.getvalue())


def _untrained(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The scores of the untrained watershed; None if they were not computed."""
    untrained: Mapping[str, Any] = result.get("untrained_watershed") or {}
    return untrained if "voi_sum" in untrained else None


def _draw_plane(axes: Axes, name: str, result: Mapping[str, Any], color: str) -> None:
    split, merge = ([row[key] for row in result["curve"]] for key in IN_PLANE)
    axes.plot(split, merge, ".-", color=color, lw=1, ms=3, label=name)
    axes.plot(result["voi_split"], result["voi_merge"], "*", color=color, ms=13)
    if untrained := _untrained(result):
        place = untrained["voi_split"], untrained["voi_merge"]
        axes.plot(*place, "x", color=color, label="untrained watershed")


def _draw_curve(axes: Axes, metric: Metric[Any], result: Mapping[str, Any], color: str) -> None:
    curve = result["curve"]
    thresholds = [row["threshold"] for row in curve]
    axes.plot(thresholds, [row[metric.name] for row in curve], color=color)
    axes.plot(result["threshold"], result[metric.name], "*", color=color, ms=13)
    if untrained := _untrained(result):
        axes.axhline(untrained[metric.name], color=color, lw=1, ls=":")
