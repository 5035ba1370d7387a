"""Segments of a whole volume at one threshold, from its fragments and scored edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from retrace.errors import DataError
from retrace.geometry import blocks, triple
from retrace.progress import progress
from retrace.segmentation.lut import relabel, segment_lut
from retrace.volumes import create_volume, open_volume, read_json


def read_threshold(path: Path) -> float:
    """`threshold` of the file that the validation volumes gave; DataError without one in [0, 1]."""
    content = read_json(path)
    value = content.get("threshold") if isinstance(content, dict) else None
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise DataError(
            f"{path} has no `threshold` between 0 and 1; delete it and rerun the evaluation of "
            "the validation volumes"
        )
    return float(value)


def read_graph(store: Path) -> tuple[np.ndarray, np.ndarray]:
    """Edges (E, 2) uint64 and scores (E,) float32 (NaN: never joins) of `fragments.zarr`."""
    group = zarr.open_group(store, mode="r")
    try:
        edges: Any = group["edges"]
        scores: Any = group["scores"]
    except KeyError as error:
        raise DataError(f"{store} holds no region graph; delete it and rerun `segment`") from error
    return np.asarray(edges[...]), np.asarray(scores[...])


def write_segments(fragments_store: Path, threshold: float, partial: Path) -> int:
    """Array `segments` uint64 in the new store `partial`; returns the number of segment ids joined.

    Block by block: memory holds the graph and a few chunks.
    """
    fragments = open_volume(fragments_store, "fragments")
    edges, scores = read_graph(fragments_store)
    nodes = np.unique(edges)
    lut = segment_lut(edges, scores, threshold, nodes)
    segments = create_volume(
        partial,
        "segments",
        shape=fragments.box.shape,
        chunks=fragments.array.chunks,
        dtype=np.uint64,
        voxel_size_nm=fragments.voxel_size_nm,
        offset_nm=fragments.offset_nm,
    )
    segments.attrs["threshold"] = threshold
    edge = triple([4 * chunk for chunk in fragments.array.chunks])
    parts = list(blocks(fragments.box, edge))
    for part in progress(parts, len(parts), "segments", "blocks"):
        values = relabel(fragments.read(part), nodes, lut)
        segments[part.slices(fragments.box.offset)] = values
    return int(np.count_nonzero(lut != nodes))
