"""ZNN's learning curve: means over iterations, and the test passes, which a file keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from retrace.files import atomic_write, read_parsed
from retrace.training.compared import number
from retrace.training.state import TrainingProgress

TEST_CURVE = "test_curve.json"


Row = dict[str, float | None]


def read_test_curve(work: Path) -> list[Row]:
    """Rows {it, err, cls} of all test passes of the training in `work`."""
    path = work / TEST_CURVE
    return read_parsed(path, _rows) if path.is_file() else []


def _rows(content: Any) -> list[Row]:
    def value(row: Any, key: str) -> float | None:
        return None if row[key] is None else float(row[key])

    return [{key: value(row, key) for key in ("it", "err", "cls")} for row in content]


def add_test_pass(work: Path, iteration: int, error: float | None, wrong: float | None) -> None:
    """Adds a row for `iteration`: mean cost, and fraction of wrongly classified voxels.

    None where no voxel was compared.
    """
    # An interrupted run may have recorded iterations that are now repeated.
    rows: list[Row] = [r for r in read_test_curve(work) if (r["it"] or 0) < iteration]
    rows.append({"it": iteration, "err": error, "cls": wrong})
    atomic_write(work / TEST_CURVE, json.dumps(rows) + "\n")


def znn_learning_curve(progress: TrainingProgress, every: int, work: Path) -> dict[str, Any]:
    """ZNN's curve: the means of each `every` iterations, and the test passes."""
    full = len(progress.losses) // every
    windows = progress.losses[: full * every].double().split(every) if full else ()
    means = [[number(v) for v in window.nanmean(dim=0)] for window in windows]
    columns = zip(*means, strict=True)
    steps = [progress.begun + every * (index + 1) for index in range(full)]
    tests = [row for row in read_test_curve(work) if (row["it"] or 0) <= progress.iteration]
    return {
        "train": {"it": steps, **dict(zip(progress.terms, map(list, columns), strict=bool(full)))},
        "test": {key: [row[key] for row in tests] for key in ("it", "err", "cls")},
    }
