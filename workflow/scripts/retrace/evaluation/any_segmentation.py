"""Scores segmentations from anywhere: of volumes against labels, or at the nodes of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError
from retrace.evaluation.counting import count_together, count_volumes
from retrace.evaluation.fill_unassigned import fill_unassigned
from retrace.evaluation.ground_truth import GroundTruth
from retrace.evaluation.node_segments import NodeSegments, covered_nodes, sample_nodes
from retrace.evaluation.nodes import read_segments, read_table
from retrace.evaluation.scores import score, skeleton_scores
from retrace.formats.placement import UnknownSizeError, as_option
from retrace.geometry import NmBox, checked_voxel_size
from retrace.remote.addresses import path_and_array
from retrace.storage.label_volumes import single_channel
from retrace.storage.value_checks import check_labels
from retrace.storage.volumes import Volume, open_volume


def open_named_array(
    text: str, voxel_size_nm: Sequence[float] | None, missing_chunks: str | None = None
) -> Volume:
    """The volume in FILE:ARRAY, or in FILE; `voxel_size_nm` (z, y, x) if the file has none."""
    path, array = path_and_array(text)
    try:
        volume = open_volume(
            path, array, voxel_size_nm, missing_chunks=missing_chunks, drops_channel=True
        )
    except UnknownSizeError as error:
        raise as_option(error) from None
    return single_channel(volume)


def named_arrays(items: Sequence[str]) -> dict[str, str]:
    """FILE:ARRAY by name, of items NAME=FILE:ARRAY; without a name, the item itself is the name.

    A name has no / and no colon, which addresses and paths have. ConfigError if one occurs twice.
    """
    arrays: dict[str, str] = {}
    for item in items:
        name, _, source = item.partition("=")
        if not (name and source) or set(name) & set("/:"):
            name, source = item, item
        if name in arrays:
            raise ConfigError(f"two segmentations are called {name!r}; give each its own name")
        arrays[name] = source
    return arrays


def score_volumes(
    segmentations: Mapping[str, Volume],
    ground_truth: GroundTruth,
    *,
    grow: bool = False,
    threads: int = 1,
) -> dict[str, dict[str, Any]]:
    """The scores and the coverage of each segmentation, by name.

    DataError if one of them covers no labelled voxel.

    `grow`: whether to grow each segmentation into its voxels of 0 first.
    """
    volumes = list(segmentations.values())
    if grow:  # one by one: each is held in memory
        counted = [
            count_volumes(fill_unassigned(volume), ground_truth, threads=threads)
            for volume in volumes
        ]
    else:
        counted = count_together(volumes, ground_truth, threads=threads)
    return {
        name: {**score(item.table).as_dict(), **item.coverage()}
        for name, item in zip(segmentations, counted, strict=True)
    }


def common_region(segmentations: Iterable[Volume], ground_truth: GroundTruth) -> NmBox:
    """The part of the scored region that all segmentations cover; empty if there is none."""
    box = ground_truth.box
    for volume in segmentations:
        box = box.intersect(volume.box)
    return box.to_nm(ground_truth.labels.voxel_size_nm)


def rescore(
    table_file: Path,
    threshold: float | None,
    segmentations: Mapping[str, str],
    csv_files: Mapping[str, Path],
    merge_threshold: int = 1,
) -> dict[str, dict[str, float]]:
    """The skeleton scores of a table of nodes, and of other segmentations at the same nodes.

    `threshold`: one of the table's; None: the chosen one. `segmentations`: FILE:ARRAY by name;
    `csv_files`: files with the columns node and segment, by name. Nodes outside a segmentation have
    segment 0; `nodes_covered` is how many are inside. DataError if there is none.
    """
    twice = set(segmentations) & set(csv_files)
    if twice:
        raise ConfigError(f"{min(twice)!r} is a segmentation and a csv; use different names")
    if merge_threshold < 1:
        raise ConfigError(f"--merge-threshold {merge_threshold} is below 1; give at least 1 node")
    nodes = read_table(table_file)
    threshold = nodes.threshold if threshold is None else threshold
    size = checked_voxel_size(nodes.voxel_size_nm.tolist())
    segments = {f"threshold {threshold:g}": nodes.at(threshold)}
    covered = {}
    for name, source in segmentations.items():
        volume = open_named_array(source, size)
        check_labels(volume)
        segments[name] = sample_nodes(volume, nodes.skeletons)
        covered[name] = {"nodes_covered": int(covered_nodes(volume, nodes.skeletons).sum())}
    for name, path in csv_files.items():
        segments[name] = read_segments(path, len(nodes.fragment))
    return {
        name: {
            **skeleton_scores(NodeSegments(nodes.skeletons, ids, merge_threshold)),
            **covered.get(name, {}),
        }
        for name, ids in segments.items()
    }
