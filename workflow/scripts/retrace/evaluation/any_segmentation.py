"""Scores segmentations from anywhere: of volumes against labels, or at the nodes of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace.evaluation.counting import count_volumes
from retrace.evaluation.fill_unassigned import fill_unassigned
from retrace.evaluation.ground_truth import GroundTruth
from retrace.evaluation.node_segments import NodeSegments, sample_nodes
from retrace.evaluation.nodes import read_segments, read_table
from retrace.evaluation.scores import score, skeleton_scores
from retrace.geometry import checked_voxel_size
from retrace.storage.volumes import Volume, open_volume


def open_named_array(
    text: str, voxel_size_nm: Sequence[float] | None, missing_chunks: str | None = None
) -> Volume:
    """The volume in FILE:ARRAY, or in FILE; `voxel_size_nm` (z, y, x) if the file has none."""
    path, _, array = text.rpartition(":")
    path, array = (path, array) if path else (text, "")
    return open_volume(path, array, voxel_size_nm, missing_chunks=missing_chunks)


def score_volumes(
    segmentations: Mapping[str, Volume],
    ground_truth: GroundTruth,
    *,
    grow: bool = False,
    threads: int = 1,
) -> dict[str, dict[str, Any]]:
    """The scores and the coverage of each segmentation, by name.

    `grow`: whether to grow each segmentation into its voxels of 0 first.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, volume in segmentations.items():
        segmentation = fill_unassigned(volume) if grow else volume
        counted = count_volumes(segmentation, ground_truth, threads=threads)
        rows[name] = {**score(counted.table).as_dict(), **counted.coverage()}
    return rows


def rescore(
    table_file: Path,
    threshold: float | None,
    segmentations: Mapping[str, Path],
    csv_files: Mapping[str, Path],
    merge_threshold: int = 1,
) -> dict[str, dict[str, float]]:
    """The skeleton scores of a table of nodes, and of other segmentations at the same nodes.

    `threshold`: one of the table's; None: the chosen one. `segmentations`: FILE:ARRAY by name;
    `csv_files`: files with the columns node and segment, by name.
    """
    nodes = read_table(table_file)
    threshold = nodes.threshold if threshold is None else threshold
    size = checked_voxel_size(nodes.voxel_size_nm.tolist())
    segments = {f"threshold {threshold:g}": nodes.at(threshold)}
    for name, source in segmentations.items():
        segments[name] = sample_nodes(open_named_array(str(source), size), nodes.skeletons)
    for name, path in csv_files.items():
        segments[name] = read_segments(path, len(nodes.fragment))
    return {
        name: skeleton_scores(NodeSegments(nodes.skeletons, ids, merge_threshold))
        for name, ids in segments.items()
    }
