"""Which entries a training is measured on; refuses a choice of the best state without any."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from retrace.config.alignment import stack_stores
from retrace.config.dataset_model import Dataset, Entry
from retrace.config.families import family_of
from retrace.config.network_settings import NetworkSettings, VoxelNetworkSettings
from retrace.config.splits import overlaps
from retrace.config.workflow import Segment, WorkflowConfig, is_learned
from retrace.errors import ConfigError
from retrace.formats.source import Region
from retrace.geometry import VoxelBox
from retrace.planning.volume_layout import volume_layouts


def is_measured(config: WorkflowConfig) -> bool:
    """Whether trainings are measured on validation data."""
    return config.engine != "legacy" and config.validation.every != "never"


def labelled_validation(dataset: Dataset) -> list[Entry]:
    """The validation entries of volumes with labels, without those that overlap test entries."""
    return [
        entry
        for entry in dataset.validation
        if dataset.volumes[entry.volume].labels is not None
        and not _is_tested(dataset, entry, [entry.volume])
    ]


def _is_tested(dataset: Dataset, entry: Entry, volumes: Collection[str]) -> bool:
    """Whether an entry overlaps a test entry of one of `volumes`."""
    tested = (other for other in dataset.test if other.volume in volumes)
    return any(overlaps(entry.roi_nm, other.roi_nm) for other in tested)


def _with_same_labels(dataset: Dataset, entry: Entry) -> list[str]:
    """The volumes that have the labels of an entry's volume, perhaps under other names."""
    labels = dataset.volumes[entry.volume].labels
    return [name for name, volume in dataset.volumes.items() if volume.labels == labels]


def check_learned(segment: Segment, dataset: Dataset) -> None:
    """ConfigError if joining fragments is learned and there is nothing to learn it from.

    Labels of test entries must not be learned from, and they are not where entries overlap.
    """
    if not is_learned(segment):
        return
    labelled = labelled_validation(dataset)
    apart = [e for e in labelled if not _is_tested(dataset, e, _with_same_labels(dataset, e))]
    what = f"segment.method {segment.method!r} learns from the labels of validation entries, and"
    if not apart:
        raise ConfigError(
            f"{what} dataset {dataset.name!r} has none with labels that is apart from its test "
            f"entries; add one under `validation` in config/datasets/{dataset.name}.yaml, or take "
            "hist_quant_75"
        )
    for entry in dataset.validation:
        if entry not in apart and dataset.volumes[entry.volume].labels is not None:
            raise ConfigError(
                f"{what} the entry {entry.volume!r} of dataset {dataset.name!r} overlaps a test "
                f"entry; correct its `roi_nm` in config/datasets/{dataset.name}.yaml, or take "
                "hist_quant_75"
            )


def boxes_of_test(dataset: Dataset, volume: str) -> tuple[Region, ...]:
    """The boxes of a volume that are tested; whole volumes have none."""
    boxes = (entry.roi_nm for entry in dataset.test if entry.volume == volume)
    return tuple(box for box in boxes if box is not None)


def check_validation(config: WorkflowConfig, dataset: object, network: NetworkSettings) -> None:
    """ConfigError if the best state is asked for and a training has nothing to be measured on."""
    if not config.validation.decides:
        return
    setting = "keep: best" if config.validation.keep == "best" else "patience"
    where = f"network {network.name!r}: `validation: {{{setting}}}`"
    last = "or leave it out to take the last state"
    if config.engine == "legacy":
        raise ConfigError(f"{where} needs `engine: modern`; set it, {last}")
    if config.validation.every == "never":
        raise ConfigError(f"{where} and `every: never` exclude each other; set `every`, {last}")
    if not isinstance(dataset, Dataset):
        return  # of single examples some are always held out
    if family_of(network).aligns:
        _check_stacks(where, dataset, last)
        return
    entries = labelled_validation(dataset)
    if not entries:
        raise ConfigError(
            f"{where} needs validation data, and dataset {dataset.name!r} has no `validation` "
            "entry with labels that is apart from its test entries; add one to "
            f"config/datasets/{dataset.name}.yaml, {last}"
        )
    assert isinstance(network, VoxelNetworkSettings)
    for entry in entries:
        for part, have, need in _boxes(dataset, network, entry):
            if any(n < m for n, m in zip(have, need, strict=True)):
                raise ConfigError(
                    f"{where} needs validation patches, and none fits into volume "
                    f"{entry.volume!r}: there are {list(have)} voxels of {part} (z, y, x), and a "
                    f"patch has {list(need)}; enlarge `roi_nm` of the `validation` entry of "
                    f"dataset {dataset.name!r}, take a network with smaller patches, {last}"
                )


def _check_stacks(where: str, dataset: Dataset, last: str) -> None:
    if not stack_stores(dataset, "validation"):
        raise ConfigError(
            f"{where} needs validation stacks, and no set of `stacks` of dataset "
            f"{dataset.name!r} has a `validation_count`; set it in "
            f"config/datasets/{dataset.name}.yaml, {last}"
        )


def _boxes(
    dataset: Dataset, network: VoxelNetworkSettings, entry: Entry
) -> Iterator[tuple[str, Sequence[int], Sequence[int]]]:
    """Of raw and labels the shape of an entry and the smallest one that works, voxels (z, y, x).

    Left out where the shape is not known before the volume is fetched.
    """
    raw, labels = network.measured_shapes
    layouts = volume_layouts(dataset, dataset.volumes[entry.volume])
    for part, need in (("raw", raw), ("labels", labels)):
        boxes = [layouts[part].box] if part in layouts else []
        if entry.roi_nm is not None and not (part == "raw" and network.measures_around):
            boxes.append(entry.roi_nm.box.to_voxels(dataset.voxel_size_nm))
        if boxes:
            yield part, _common(boxes).shape, need


def _common(boxes: Sequence[VoxelBox]) -> VoxelBox:
    """The overlap of one or two boxes."""
    return boxes[0].intersect(boxes[-1])
