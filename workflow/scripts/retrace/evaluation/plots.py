"""How scores are shown: rows of JSON, a table on the terminal, a plot."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from retrace.evaluation.scores import Scores

matplotlib.use("agg")

COLUMNS = ("voi_split", "voi_merge", "voi_sum", "adapted_rand_error")


def curve_rows(thresholds: Sequence[float], scores: Sequence[Scores]) -> list[dict[str, float]]:
    """One JSON row per threshold."""
    return [
        {"threshold": value, **item.as_dict()}
        for value, item in zip(thresholds, scores, strict=True)
    ]


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A text table: one line per result, VOI in bits."""
    width = max([len(name) for name in rows] + [8])
    head = f"{'':{width}}  {'split':>8} {'merge':>8} {'VOI':>8} {'ARE':>8}"
    lines = [
        f"{name:{width}}  " + " ".join(f"{row[column]:8.3f}" for column in COLUMNS)
        for name, row in rows.items()
    ]
    return "\n".join([head, *lines])


def plot_evaluation(volumes: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """A PNG: VOI split against merge over all thresholds, and VOI sum against the threshold."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    plane, along = figure.subplots(1, 2)
    for index, (name, result) in enumerate(volumes.items()):
        _draw(plane, along, name, result, f"C{index}")
    plane.set(xlabel="VOI split (bits)", ylabel="VOI merge (bits)", xlim=(0, None), ylim=(0, None))
    along.set(xlabel="agglomeration threshold", ylabel="VOI sum (bits)", ylim=(0, None))
    plane.legend(fontsize=8)
    plane.set_title("test volumes; the star is the threshold chosen on validation", fontsize=9)
    along.set_title("the curve was not used to choose the threshold", fontsize=9)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(partial, format="png", dpi=120, metadata={"Software": ""})
    partial.replace(path)


def _draw(plane: Any, along: Any, name: str, result: Mapping[str, Any], color: str) -> None:
    curve = result["curve"]
    split, merged = ([row[key] for row in curve] for key in ("voi_split", "voi_merge"))
    plane.plot(split, merged, ".-", color=color, lw=1, ms=3, label=name)
    plane.plot(result["voi_split"], result["voi_merge"], "*", color=color, ms=13)
    along.plot([row["threshold"] for row in curve], [row["voi_sum"] for row in curve], color=color)
    along.plot(result["threshold"], result["voi_sum"], "*", color=color, ms=13)
    untrained = result.get("untrained_watershed") or {}
    if "voi_sum" in untrained:
        label = "untrained watershed"
        plane.plot(untrained["voi_split"], untrained["voi_merge"], "x", color=color, label=label)
        along.axhline(untrained["voi_sum"], color=color, lw=1, ls=":")
