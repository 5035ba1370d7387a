"""Opens what is scored of a dataset: ground truth, labels and raw of an entry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from retrace.errors import DataError
from retrace.evaluation.ground_truth import GroundTruth
from retrace.formats.source import Source
from retrace.planning.scored_dataset import ScoredDataset, ScoredEntry
from retrace.storage.images import open_image
from retrace.storage.label_volumes import single_channel
from retrace.storage.manifest import check_manifest
from retrace.storage.volumes import Volume, open_source, open_volume


def open_ground_truth(
    dataset: ScoredDataset, entry: ScoredEntry, masks: Mapping[str, Path]
) -> GroundTruth:
    """The labels that count of an entry; `masks`: labels masks by volume.

    Raises DataError if its volume has no labels.
    """
    mask = masks.get(entry.volume)
    if mask is not None:
        check_manifest(mask)
    return GroundTruth(
        labels=open_labels(dataset, entry),
        mask=None if mask is None else open_volume(mask, "labels_mask"),
        roi_nm=entry.roi_nm,
        ignored_ids=dataset.background_ids,
    )


def open_labels(dataset: ScoredDataset, entry: ScoredEntry) -> Volume:
    """The labels (Z, Y, X) of an entry's volume; DataError if it has none."""
    source = dataset.volumes[entry.volume].labels
    if source is None:
        raise DataError(
            f"volume {entry.volume!r} has no `labels` and no `skeletons`; it cannot be scored"
        )
    return single_channel(open_source(_with_voxel_size(dataset, source)))


def open_raw(dataset: ScoredDataset, entry: ScoredEntry) -> Volume:
    """The raw (Z, Y, X) of an entry's volume; DataError if it is not known."""
    source = dataset.volumes[entry.volume].raw
    if source is None:
        raise DataError(f"volume {entry.volume!r} has no `raw` in the settings")
    return open_image(_with_voxel_size(dataset, source))


def _with_voxel_size(dataset: ScoredDataset, source: Source) -> Source:
    if source.voxel_size_nm is None and dataset.voxel_size_nm is not None:
        source = source.with_(voxel_size_nm=dataset.voxel_size_nm)
    return source
