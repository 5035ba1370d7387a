"""The file of ELEKTRONN's measurements, from which an interrupted training resumes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrace.files import atomic_write, read_parsed
from retrace.training.validation import OTHER_DATA

HISTORY = "history.json"
"""File of the measurements so far, in the work folder of a training."""
MEASURED = ("validation_loss", "validation_error")
"""Columns that are measured on validation data."""

Row = dict[str, Any]


def write_history(work: Path, rows: Sequence[Row], measured_on: str) -> None:
    """Writes the rows of a training; `measured_on`: identity of the validation data."""
    content = {"measured_on": measured_on, "rows": list(rows)}
    atomic_write(work / HISTORY, json.dumps(content) + "\n")


def read_history(work: Path, iteration: int, measured_on: str) -> list[Row]:
    """The rows of a training up to an iteration; later measurements are repeated.

    Measurements on other validation data are left out, which is printed.
    """
    path = work / HISTORY
    if not path.is_file():
        return []
    before, rows = read_parsed(path, lambda content: _until(content, iteration))
    if before == measured_on or not any(name in row for row in rows for name in MEASURED):
        return rows
    print(f"[train] {OTHER_DATA}", flush=True)
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]


def _until(content: Any, iteration: int) -> tuple[str, list[Row]]:
    """The identity of the validation data, and the rows up to an iteration."""
    rows = [row for row in content["rows"] if row["iteration"] <= iteration]
    return str(content["measured_on"]), rows
