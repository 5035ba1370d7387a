"""ZNN's learning curve: means over iterations, and the test passes, which a file keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retrace.files import atomic_write, read_parsed
from retrace.training.compared import number
from retrace.training.state import TrainingProgress

TEST_CURVE = "test_curve.json"
EARLIER_CURVE = "earlier_curve.json"


Row = dict[str, float | None]


def read_test_curve(work: Path, measured_on: str) -> list[Row]:
    """Rows {it, err, cls} of the test passes of the training in `work`.

    `measured_on`: identity of the validation data; test passes on other data are left out.
    """
    path = work / TEST_CURVE
    return read_parsed(path, _rows).get(measured_on, []) if path.is_file() else []


def _rows(content: Any) -> dict[str, list[Row]]:
    """The rows of all test passes, by the identity of the data that they are on."""

    def value(row: Any, key: str) -> float | None:
        return None if row[key] is None else float(row[key])

    return {
        data: [{key: value(row, key) for key in ("it", "err", "cls")} for row in rows]
        for data, rows in content.items()
    }


def add_test_pass(
    work: Path, iteration: int, error: float | None, wrong: float | None, measured_on: str
) -> None:
    """Adds a row for `iteration`: mean cost, and fraction of wrongly classified voxels.

    None where no voxel was compared. `measured_on`: as of `read_test_curve`, of whose data alone
    the file keeps test passes.
    """
    # An interrupted run may have recorded iterations that are now repeated.
    earlier = read_test_curve(work, measured_on)
    rows: list[Row] = [row for row in earlier if (row["it"] or 0) < iteration]
    rows.append({"it": iteration, "err": error, "cls": wrong})
    atomic_write(work / TEST_CURVE, json.dumps({measured_on: rows}) + "\n")


def write_earlier_curve(work: Path, curve: Mapping[str, Any], begun: int) -> None:
    """Keeps the learning curve, until iteration `begun`, of a network that is continued."""
    rows = {part: _columns(curve.get(part, {}), begun) for part in ("train", "test")}
    work.mkdir(parents=True, exist_ok=True)
    atomic_write(work / EARLIER_CURVE, json.dumps(rows) + "\n")


def _columns(columns: Mapping[str, Any], last: int) -> dict[str, list[float]]:
    """The columns of a curve as lists, without rows after iteration `last`."""
    arrays = {name: np.atleast_1d(values) for name, values in columns.items()}
    if len({len(array) for array in arrays.values()}) != 1 or "it" not in arrays:
        return {}
    kept = arrays["it"] <= last
    return {name: array[kept].tolist() for name, array in arrays.items()}


def _after_earlier(curve: dict[str, Any], work: Path) -> dict[str, Any]:
    """A curve after that of the network that was continued, if there is one."""
    path = work / EARLIER_CURVE
    earlier = read_parsed(path, dict) if path.is_file() else {}
    joined = dict(curve)
    for part, columns in curve.items():
        before = earlier.get(part, {})
        if not before:
            continue
        # Columns that only one of the two has are left out.
        names = [name for name in before if name in columns or not columns.get("it")]
        joined[part] = {name: [*before[name], *columns.get(name, [])] for name in names}
    return joined


def znn_learning_curve(
    progress: TrainingProgress, every: int, work: Path, measured_on: str
) -> dict[str, Any]:
    """ZNN's curve: the means of each `every` iterations, and the test passes on this data.

    A training that continues a network has the curve of that network first.
    """
    full = len(progress.losses) // every
    windows = progress.losses[: full * every].double().split(every) if full else ()
    means = [[number(v) for v in window.nanmean(dim=0)] for window in windows]
    columns = zip(*means, strict=True)
    steps = [progress.begun + every * (index + 1) for index in range(full)]
    passes = read_test_curve(work, measured_on)
    tests = [row for row in passes if (row["it"] or 0) <= progress.iteration]
    curve = {
        "train": {"it": steps, **dict(zip(progress.terms, map(list, columns), strict=bool(full)))},
        "test": {key: [row[key] for row in tests] for key in ("it", "err", "cls")},
    }
    return _after_earlier(curve, work)


def as_log(curve: Mapping[str, Any]) -> str:
    """A learning curve as text, a line for each row, in the order of the iterations."""
    lines = []
    for part, columns in curve.items():
        for index, iteration in enumerate(columns.get("it", [])):
            others = {name: column[index] for name, column in columns.items() if name != "it"}
            shown = ", ".join(f"{n} {v:.6g}" for n, v in others.items() if v is not None)
            lines.append((iteration, f"iteration {int(iteration)}: {part} {shown}"))
    return "".join(f"{line}\n" for _, line in sorted(lines))
