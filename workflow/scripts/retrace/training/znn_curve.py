"""ZNN's learning curve: means over iterations, and the test passes, which a file keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from retrace.files import atomic_write, read_parsed
from retrace.training.state import TrainingProgress

TEST_CURVE = "test_curve.json"


def read_test_curve(work: Path) -> list[dict[str, float]]:
    """Rows {it, err, cls} of all test passes of the training in `work`."""
    path = work / TEST_CURVE
    return read_parsed(path, _rows) if path.is_file() else []


def _rows(content: Any) -> list[dict[str, float]]:
    return [{key: float(row[key]) for key in ("it", "err", "cls")} for row in content]


def add_test_pass(work: Path, iteration: int, error: float, wrong: float) -> None:
    """Adds a row for `iteration`: mean cost, and fraction of wrongly classified voxels."""
    # An interrupted run may have recorded iterations that are now repeated.
    rows = [row for row in read_test_curve(work) if row["it"] < iteration]
    rows.append({"it": iteration, "err": error, "cls": wrong})
    atomic_write(work / TEST_CURVE, json.dumps(rows) + "\n")


def znn_learning_curve(progress: TrainingProgress, every: int, work: Path) -> dict[str, Any]:
    """ZNN's curve: the means of each `every` iterations, and the test passes."""
    full = len(progress.losses) // every
    windows = progress.losses[: full * every].double().split(every) if full else ()
    means = torch.stack([window.mean(dim=0) for window in windows]).T.tolist() if full else []
    columns = dict(zip(progress.terms, means, strict=bool(full)))
    steps = [progress.begun + every * (index + 1) for index in range(full)]
    tests = [row for row in read_test_curve(work) if row["it"] <= progress.iteration]
    return {
        "train": {"it": steps, **columns},
        "test": {key: [row[key] for row in tests] for key in ("it", "err", "cls")},
    }
