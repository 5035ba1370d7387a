"""The largest splits and merges of a segmentation, each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retrace.evaluation.contingency import Contingency
from retrace.evaluation.counting import BLOCK_SHAPE
from retrace.evaluation.error_places import error_rows, place_errors, tracked_rows
from retrace.evaluation.error_shares import largest_errors, number_of_errors
from retrace.evaluation.ground_truth import GroundTruth
from retrace.evaluation.metrics.segment_information import voi_merge, voi_split
from retrace.evaluation.node_pieces import NodePieces
from retrace.evaluation.node_segments import NodeSegments
from retrace.evaluation.pair_blocks import PairVolume
from retrace.evaluation.voxel_pieces import locate
from retrace.storage.volumes import Volume


def voxel_errors(
    table: Contingency,
    segmentation: Volume,
    ground_truth: GroundTruth,
    count: int,
    *,
    block_shape: Sequence[int] = BLOCK_SHAPE,
    threads: int = 1,
) -> dict[str, Any]:
    """The `count` largest errors of the table of a segmentation, as JSON.

    The volume is read once in blocks, and once more near the errors. Memory holds one block per
    thread, and where the pieces of the objects and segments of these errors are.
    """
    errors = largest_errors(table, count)
    volume = PairVolume(segmentation, ground_truth, table, tracked_rows(table, errors))
    pieces = locate(volume, block_shape, threads) if errors else None
    placed = [] if pieces is None else place_errors(table, errors, pieces)
    return _as_dict(table, error_rows(table, placed, "voxels"), "voxels")


def node_errors(nodes: NodeSegments, count: int) -> dict[str, Any]:
    """The `count` largest errors of the segments at skeleton nodes, as JSON."""
    errors = largest_errors(nodes.table, count)
    placed = place_errors(nodes.table, errors, NodePieces(nodes))
    return _as_dict(nodes.table, error_rows(nodes.table, placed, "nodes"), "skeleton nodes")


def _as_dict(table: Contingency, rows: list[dict[str, Any]], unit: str) -> dict[str, Any]:
    number = number_of_errors(table)
    return {
        "counted": unit,
        "voi_split": voi_split(table),
        "voi_merge": voi_merge(table),
        "splits": number["split"],
        "merges": number["merge"],
        "errors": rows,
    }
