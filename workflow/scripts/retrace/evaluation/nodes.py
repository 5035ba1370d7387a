"""Tables of skeleton nodes with the fragment and segments at each, to score without the volume."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrace.errors import DataError
from retrace.evaluation.node_segments import sample_nodes
from retrace.evaluation.skeleton_checks import check_shape
from retrace.evaluation.skeleton_files import read_skeletons
from retrace.evaluation.skeletons import Skeletons
from retrace.files import atomic_write
from retrace.formats.label_ids import exact_integers
from retrace.formats.npz import opened_npz
from retrace.reading import read_bytes, reading_content, refuse_web_page
from retrace.segmentation.region_graph import RegionGraph
from retrace.storage.volumes import Volume

ARRAYS = ("voxel", "fragment", "fragments", "thresholds", "segments", "threshold", "voxel_size_nm")
"""The arrays of a table, in addition to the fields of a skeleton file."""
IDS = ("fragment", "fragments", "segments")
"""Arrays of ids, uint64."""
WRITE_AGAIN = "write the table with export: {layers: [nodes]}"
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,20}")
COLUMNS = ("node", "skeleton", "z", "y", "x", "z_nm", "y_nm", "x_nm", "fragment", "segment")
"""The columns of the csv: row, skeleton, voxel, position, and both ids at the chosen threshold."""


@dataclass(frozen=True)
class NodeTable:
    """Nodes, each with its voxel (nodes, 3), z y x from the world's origin, and fragment (nodes,).

    `segments` (thresholds, fragments): at each of `thresholds` the segment of each of the sorted
    `fragments` (fragments,). `threshold`: the one that was chosen on validation.
    """

    skeletons: Skeletons
    voxel: np.ndarray
    fragment: np.ndarray
    fragments: np.ndarray
    thresholds: np.ndarray
    segments: np.ndarray
    threshold: float
    voxel_size_nm: np.ndarray

    def at(self, threshold: float) -> np.ndarray:
        """The segment at each node, (nodes,); DataError for a threshold that the table lacks."""
        rows = np.flatnonzero(np.isclose(self.thresholds, threshold, atol=1e-6))
        if not len(rows):
            allowed = ", ".join(f"{value:g}" for value in self.thresholds)
            raise DataError(f"the table has no threshold {threshold:g}; it has {allowed}")
        columns = np.searchsorted(self.fragments, self.fragment)
        return np.asarray(self.segments[rows[0], columns])


def node_table(
    fragments: Volume,
    skeletons: Skeletons,
    graph: RegionGraph,
    thresholds: Sequence[float],
    threshold: float,
) -> NodeTable:
    """The table of `skeletons` in the volume `fragments`, at all thresholds and the chosen one."""
    size = np.array(fragments.voxel_size_nm)
    at_nodes = sample_nodes(fragments, skeletons)
    ids = np.unique(at_nodes)
    values = sorted({*thresholds, threshold})
    segments = [graph.segments(ids, value) for value in values]
    voxel = skeletons.voxels(fragments.voxel_size_nm)
    shape = (len(values), len(ids))
    stacked = np.array(segments, np.uint64).reshape(shape)
    return NodeTable(skeletons, voxel, at_nodes, ids, np.array(values), stacked, threshold, size)


def write_node_table(path: Path, table: NodeTable) -> None:
    """Writes PATH.npz, which is also a skeleton file, and PATH.csv with one row for each node."""
    skeletons = table.skeletons
    arrays = {name: np.asarray(getattr(table, name)) for name in ARRAYS}
    buffer = io.BytesIO()
    arrays |= {
        "id": np.arange(len(skeletons.skeleton), dtype=np.uint64),
        "position_nm": skeletons.position_nm,
        "skeleton": skeletons.skeleton,
        "edges": skeletons.edges.astype(np.uint64),
    }
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    atomic_write(path, buffer.getvalue())
    atomic_write(path.with_suffix(".csv"), _csv(table))


def _csv(table: NodeTable) -> str:
    skeletons = table.skeletons
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    columns = (
        range(len(table.fragment)),
        skeletons.skeleton.tolist(),
        *table.voxel.T.tolist(),
        *([_decimal(value) for value in axis] for axis in skeletons.position_nm.T.tolist()),
        table.fragment.tolist(),
        table.at(table.threshold).tolist(),
    )
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()


def _decimal(value: float) -> str:
    """A coordinate in nm with up to 6 decimals, whatever its size."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def read_table(path: Path) -> NodeTable:
    """A table that `write_node_table` wrote; DataError if an array is missing or does not fit."""
    skeletons = read_skeletons(path)
    with reading_content(path, WRITE_AGAIN), opened_npz(path) as stored:
        missing = [name for name in ARRAYS if name not in stored]
        if missing:
            raise DataError(
                f"{path} lacks {', '.join(missing)}: it holds skeletons alone. {WRITE_AGAIN}"
            )
        arrays: dict[str, Any] = {name: stored[name] for name in ARRAYS}
        threshold = float(arrays["threshold"])
    ids = {name: exact_integers(arrays[name], f"{path}: `{name}`", np.uint64) for name in IDS}
    table = NodeTable(skeletons, **{**arrays, **ids, "threshold": threshold})
    _check_table(path, table)
    return table


def _check_table(path: Path, table: NodeTable) -> None:
    """DataError unless the arrays of a table have the shapes that NodeTable describes."""
    nodes, fragments = len(table.skeletons.skeleton), table.fragments.size
    for name, array, shape, meaning in (
        ("fragment", table.fragment, (nodes,), "one for each node"),
        ("fragments", table.fragments, (fragments,), "one row"),
        ("segments", table.segments, (table.thresholds.size, fragments), "thresholds, fragments"),
    ):
        check_shape(f"{path}: `{name}`", array, shape, meaning)
    is_sorted = (table.fragments[1:] > table.fragments[:-1]).all()
    if not is_sorted or not np.isin(table.fragment, table.fragments).all():
        raise DataError(
            f"{path}: `fragments` must hold each value of `fragment` once, in ascending order; "
            f"{WRITE_AGAIN}"
        )


def read_segments(path: Path, nodes: int) -> np.ndarray:
    """The column `segment` of a csv, (nodes,) uint64, in the order of its column `node`.

    A segment below 0 becomes 0, none. Raises DataError if a column or a node is missing, a node
    occurs twice, or an id is not whole.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a csv with the columns node and segment")
    rows = _csv_rows(path)
    absent = {"node", "segment"} - set(rows[0] if rows else ())
    if absent:
        raise DataError(f"{path} has no column {', '.join(sorted(absent))}")
    node, segment = (_whole_column(path, rows, name) for name in ("node", "segment"))
    segment_of = dict(zip(node, segment, strict=True))
    if len(segment_of) < len(rows):
        raise DataError(f"{path} has {len(rows)} rows for {len(segment_of)} nodes; give each one")
    if set(segment_of) != set(range(nodes)):
        raise DataError(
            f"{path} names {len(segment_of)} nodes; the table has {nodes}, numbered from 0. Give "
            "each one row (segment 0: none)"
        )
    ids = [max(segment_of[number], 0) for number in range(nodes)]
    return exact_integers(ids, f"{path}: `segment`", np.uint64)


def _csv_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a csv by column; DataError for a file that is no text."""
    content = read_bytes(path)
    remedy = "give a csv with the columns node and segment"
    refuse_web_page(content, path, remedy)
    with reading_content(path, remedy):
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
        return list(csv.DictReader(text, skipinitialspace=True))


def _whole_column(path: Path, rows: Sequence[dict[str, str]], name: str) -> list[int]:
    """The whole numbers of a column, (rows,); DataError for the first one that is none."""
    numbers = []
    for line, row in enumerate(rows, 2):
        text = (row[name] or "").strip()
        if not WHOLE_NUMBER.fullmatch(text):
            raise DataError(
                f"{path}: the {name} in line {line} is {text!r}; write a whole number without a "
                "fraction"
            )
        numbers.append(int(text))
    return numbers
