"""Networks of one dataset side by side: what each scored, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

OBJECTS = ("voi_split", "voi_merge", "voi_sum", "adapted_rand_error", "erl_nm")
"""Scores of segments, less is better; the third sorts the table."""

BOUNDARIES = ("pixel_error", "v_rand", "v_info")
"""Scores of boundary maps; the first, of which less is better, sorts the table."""

HEADINGS = {
    "name": "network",
    "family": "family",
    "region": "scored on",
    "voi_split": "VOI split",
    "voi_merge": "VOI merge",
    "voi_sum": "VOI",
    "adapted_rand_error": "adapted Rand error",
    "erl_nm": "ERL, nm",
    "pixel_error": "pixel error",
    "v_rand": "V_Rand",
    "v_info": "V_Info",
    "iterations": "iterations",
    "parameters": "parameters",
    "kflop_per_voxel": "kFLOP a voxel",
    "training_s": "training, s",
    "prediction_voxels_per_s": "prediction, voxels/s",
    "prediction_peak_mb": "its peak memory, MB",
}
PUBLISHED, TESTED = "published [1]", "test entries"
"""What a row says of its family where others published it, and of its region where it is ours."""

NOTE = (
    "means over the test entries, thresholds chosen on validation entries. kFLOP a voxel: "
    "multiplications and additions of one prediction tile by its output voxels, halo included. "
    "Training: its runs together, without start-up. Prediction: voxels "
    "written by the job's seconds, start-up included"
)


@dataclass(frozen=True)
class Cost:
    """What a network costs; None for what is not known, such as the seconds of shares."""

    parameters: int
    kflop_per_voxel: float
    iterations: int
    training_s: float | None
    prediction_voxels_per_s: float | None
    prediction_peak_mb: float | None


def mean_scores(volumes: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, Any]:
    """Each metric's mean over the entries of an evaluation; left out where an entry lacks it."""
    return {
        metric: sum(entry[metric] for entry in volumes.values()) / len(volumes)
        for metric in metrics
        if volumes and all(entry.get(metric) is not None for entry in volumes.values())
    }


def training_seconds(history: Mapping[str, Any]) -> float | None:
    """Seconds of all runs; where only the last one's rate is known, as all would take at it."""
    if known := history.get("training_seconds"):
        return round(float(known), 1)
    rate = history["iterations_per_second"]
    return round(history["iterations"] / rate, 1) if rate else None


def order(rows: Iterable[Mapping[str, Any]], metric: str) -> list[dict[str, Any]]:
    """The rows with the best first, those without the metric last."""
    return sorted(map(dict, rows), key=lambda row: (metric not in row, row.get(metric, 0.0)))


def figures(
    content: Mapping[str, Any], chosen: Mapping[str, Any], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for every network that has figures in the chosen regions and truths.

    `content`: config/published/NAME.yaml; `chosen`: as config.paper.published_figures gives it.
    """
    return [
        {
            "name": name,
            "family": PUBLISHED,
            "region": f"{region}, {truth}",
            **{metric: float(values[metric]) for metric in metrics if metric in values},
        }
        for region in chosen["regions"]
        for truth in chosen["truths"]
        for name, values in content["regions"][region].get(truth, {}).items()
        if values is not None
    ]


def beside(
    rows: Sequence[Mapping[str, Any]],
    others: Sequence[Mapping[str, Any]],
    metric: str,
    differs: str | None,
) -> list[dict[str, Any]]:
    """Our rows and published ones, the best first; the latter after ours where they differ."""
    ours = [{**row, "region": TESTED} for row in rows] if others else list(map(dict, rows))
    if differs is None:
        return order([*ours, *others], metric)
    return order(ours, metric) + order(others, metric)


def footnote(published: Mapping[str, Any]) -> str:
    """What is said of published rows: source, convention, and whether they can be compared."""
    differs = published["differs"]
    warning = f" NOT comparable with the rows of the test entries: {differs}." if differs else ""
    return f"[1] {published['source']}. {published['convention']}.{warning}"


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table in Markdown; columns that no row has are left out."""
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


def plot(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], path: Path) -> None:
    """Left the scores of every row, right the sorting one against the work of a voxel."""
    figure = Figure(figsize=(12, 1.5 + 0.35 * len(rows)), layout="constrained")
    bars, work = figure.subplots(1, 2, width_ratios=(3, 2))
    segments = "voi_sum" in metrics
    _draw_bars(bars, rows, ("voi_split", "voi_merge") if segments else metrics[:1])
    _draw_work(work, rows, "voi_sum" if segments else metrics[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _draw_bars(axes: Axes, rows: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> None:
    left = [0.0] * len(rows)
    for part in parts:
        values = [row.get(part, 0.0) for row in rows]
        axes.barh([row["name"] for row in rows], values, left=left, label=HEADINGS[part])
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("bits, less is better" if len(parts) > 1 else "less is better")
    axes.legend()


def _draw_work(axes: Axes, rows: Sequence[Mapping[str, Any]], score: str) -> None:
    for row in rows:
        if row.get("kflop_per_voxel") and score in row:
            place = (row["kflop_per_voxel"], row[score])
            axes.plot(*place, "o", color="C2")
            axes.annotate(row["name"], place, (4, 4), textcoords="offset points", fontsize="small")
    axes.set(xscale="log", xlabel=HEADINGS["kflop_per_voxel"], ylabel=HEADINGS[score])
