"""The list of errors as files: JSON, a table, and annotation layers for neuroglancer."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retrace.files import atomic_write, write_json
from retrace.viewing.error_layer import errors_state

COLUMNS = (
    *("entry", "counted", "rank", "kind", "segment", "other_segment"),
    *("ground_truth", "other_ground_truth", "size", "voi_bits", "voi_fraction"),
    *("z_nm", "y_nm", "x_nm", "gap_nm"),
    *("box_z_nm", "box_y_nm", "box_x_nm", "box_depth_nm", "box_height_nm", "box_width_nm"),
)
"""Columns of errors.csv. An id that an error does not have is empty."""


def write_errors(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `path` (errors.json), errors.csv and errors_layer.json next to it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_table(content))
    atomic_write(path.with_suffix(".csv"), text.getvalue())
    write_json(path.with_name(f"{path.stem}_layer.json"), errors_state(content))
    write_json(path, content)


def _table(content: Mapping[str, Any]) -> Iterator[list[Any]]:
    for name, entry in content["volumes"].items():
        for errors in entry["lists"].values():
            for row in errors["errors"]:
                yield [name, errors["counted"], *_cells(row)]


def _cells(row: Mapping[str, Any]) -> list[Any]:
    ids = [id_ for key in ("segments", "ground_truth") for id_ in [*row[key], ""][:2]]
    size = row["voxels"] if "voxels" in row else row["nodes"]
    shares = [row["voi_bits"], row["voi_fraction"]]
    box = row["box_nm"]
    places = [*row["point_nm"], row["gap_nm"], *box["offset"], *box["shape"]]
    return [row["rank"], row["kind"], *ids, size, *shares, *places]
