"""Checks of skeletons from files: shapes, distinct ids, finite positions, edges between nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from retrace.errors import DataError
from retrace.evaluation.skeletons import Skeletons
from retrace.geometry import FARTHEST_NM


def check_shape(name: str, array: np.ndarray, shape: tuple[int, ...], meaning: str) -> None:
    """DataError unless the array has the shape; `meaning`: what its rows are."""
    if array.shape == shape:
        return
    transposed = len(shape) > 1 and array.shape == shape[::-1]
    raise DataError(
        f"{name} has shape {array.shape}, and {shape} is needed: {meaning}"
        f"{'; transpose it' if transposed else ''}"
    )


def check_distinct(file: Path, ids: np.ndarray) -> None:
    """DataError if there are no ids (nodes,), or if one of them occurs twice."""
    if not ids.size:
        raise DataError(f"{file} has no nodes; give a file with at least one")
    distinct, count = np.unique(ids, return_counts=True)
    if (count > 1).any():
        raise DataError(
            f"{file}: {count.max()} rows have the node id {distinct[count.argmax()]}; give each "
            "node one row"
        )


def finite_positions(file: Path, values: Any, ids: np.ndarray) -> np.ndarray:
    """Positions (nodes, 3) float64 z, y, x, nm; DataError for what is no finite number."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "uif":
        raise DataError(
            f"{file}: `position_nm` must hold numbers, a row z, y, x (nm) for each node"
        )
    position = array.astype(np.float64)
    check_shape(f"{file}: `position_nm`", position, (len(ids), 3), "a row z, y, x for each node")
    wrong = ~(np.abs(position) <= FARTHEST_NM).all(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{file}: node {ids[row]} is at {position[row].tolist()} nm (z, y, x), which is no "
            "finite position; correct it, or leave the node out"
        )
    return position


def rows_of(file: Path, ids: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Edges (edges, 2) of ids as rows of `ids` (nodes,); DataError for an unknown id.

    Both are uint64: numbers of different types would be compared as fractions.
    """
    order = np.argsort(ids)
    row = np.searchsorted(ids[order], edges).clip(max=len(ids) - 1)
    unknown = edges[ids[order][row] != edges]
    if unknown.size:
        raise DataError(
            f"{file}: an edge names node {unknown[0]}, which is not in `id`; add the node, or "
            "leave the edge out"
        )
    return np.asarray(order[row])


def check_one_skeleton_per_edge(file: Path, skeletons: Skeletons) -> None:
    """DataError for an edge between two skeletons."""
    ends = skeletons.skeleton[skeletons.edges]
    if (ends[:, 0] != ends[:, 1]).any():
        raise DataError(f"{file}: an edge joins two skeletons; nodes that are joined need one id")
