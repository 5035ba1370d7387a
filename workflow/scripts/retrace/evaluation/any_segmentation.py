"""Scores segmentations from anywhere: of volumes against labels, or at the nodes of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError, DataError, nearest
from retrace.evaluation.counting import count_together, count_volumes
from retrace.evaluation.fill_unassigned import fill_unassigned
from retrace.evaluation.ground_truth import GroundTruth
from retrace.evaluation.node_segments import NodeSegments, covered_nodes, sample_nodes
from retrace.evaluation.nodes import read_segments, read_table
from retrace.evaluation.scores import score, skeleton_scores
from retrace.formats.setting_names import SettingNames, measured_by, option_names
from retrace.geometry import NmBox, NmTriple, checked_voxel_size
from retrace.remote.addresses import path_and_array
from retrace.storage.label_volumes import single_channel
from retrace.storage.value_checks import check_labels
from retrace.storage.volumes import Volume, open_volume

SEGMENTATION_OFFSET = "--segmentation-offset-nm"


def open_named_array(
    text: str,
    voxel_size_nm: Sequence[float] | None,
    missing_chunks: str | None = None,
    *,
    offset_nm: Sequence[float] | None = None,
    names: SettingNames,
) -> Volume:
    """The volume in FILE:ARRAY, or in FILE; size and offset (z, y, x) if the file states none.

    `names`: of the options that state them.
    """
    path, array = path_and_array(text)
    volume = open_volume(
        path,
        array,
        voxel_size_nm,
        offset_nm,
        missing_chunks=missing_chunks,
        drops_channel=True,
        names=names,
    )
    return single_channel(volume)


def segmentation_offsets(
    offsets: Sequence[tuple[str, NmTriple]], segmentations: Iterable[str]
) -> dict[str, NmTriple | None]:
    """The offset of each segmentation; ConfigError for another name, or one that occurs twice."""
    stated: dict[str, NmTriple | None] = dict.fromkeys(segmentations)
    for name, offset in offsets:
        if name not in stated:
            raise ConfigError(
                f"{SEGMENTATION_OFFSET}: no segmentation is called {name!r}; "
                f"{nearest(name, stated)}"
            )
        if stated[name] is not None:
            raise ConfigError(f"{SEGMENTATION_OFFSET} names {name!r} twice; leave one of them out")
        stated[name] = offset
    return stated


def segmentation_names(name: str) -> SettingNames:
    """What the options of one segmentation are called."""
    return option_names(SEGMENTATION_OFFSET, name)


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
    offsets_nm: Sequence[tuple[str, NmTriple]] = (),
) -> dict[str, dict[str, float]]:
    """The skeleton scores of a table of nodes, and of other segmentations at the same nodes.

    `threshold`: one of the table's; None: the chosen one. `segmentations`: FILE:ARRAY by name;
    `csv_files`: files with the columns node and segment, by name. `offsets_nm`: of segmentations
    whose file states no position, which nodes in world coordinates need. Nodes outside a
    segmentation have segment 0; `nodes_covered` is how many are inside. DataError if there is none.
    """
    twice = set(segmentations) & set(csv_files)
    if twice:
        raise ConfigError(f"{min(twice)!r} is a segmentation and a csv; use different names")
    if merge_threshold < 1:
        raise ConfigError(f"--merge-threshold {merge_threshold} is below 1; give at least 1 node")
    nodes = read_table(table_file)
    threshold = nodes.threshold if threshold is None else threshold
    size = checked_voxel_size(nodes.voxel_size_nm.tolist())
    offsets = segmentation_offsets(offsets_nm, segmentations)
    segments = {f"threshold {threshold:g}": nodes.at(threshold)}
    covered = {}
    for name, source in segmentations.items():
        names = measured_by(segmentation_names(name), "the voxel size of the table")
        volume = open_named_array(source, size, offset_nm=offsets[name], names=names)
        check_labels(volume)
        _check_placed(volume)
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


def _check_placed(volume: Volume) -> None:
    """DataError for a segmentation whose position nothing states: nodes have world coordinates."""
    if not volume.is_placed:
        raise DataError(
            f"{volume.name} states no position, and the nodes are in world coordinates; "
            f"{volume.names.state_offset}"
        )
