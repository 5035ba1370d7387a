"""Training, validation and test entries of a dataset, and the boxes that keep them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrace.config.dataset_model import (
    Dataset,
    DatasetBase,
    DatasetFile,
    DatasetVolume,
    Entry,
    EntryFile,
    SkeletonDump,
    SkeletonSource,
)
from retrace.errors import ConfigError, nearest
from retrace.formats.source import Region
from retrace.geometry import whole_voxels

SPLITS = ("train", "validation", "test")


LABELS_BOX = "labels"
"""The `roi_nm` of a volume that is used as far as its labels extend."""


def check_region(voxel_size_nm: Sequence[float], region: Region | None, where: str) -> None:
    """ConfigError if a box is not on the voxel grid."""
    if region is None:
        return
    for key, values in (("offset", region.offset), ("shape", region.shape)):
        if whole_voxels(values, voxel_size_nm) is None:
            raise ConfigError(
                f"{where}: roi_nm {key} {list(values)} is not a multiple of "
                f"voxel_size_nm {list(voxel_size_nm)}"
            )


def region_of(volume: DatasetVolume) -> Region | None:
    """The box that is used of a volume; None for all of it, or its labelled part."""
    return volume.roi_nm if isinstance(volume.roi_nm, Region) else None


def resolve_splits(
    dataset: Dataset,
    file: DatasetFile,
    where: str,
    chosen: object,
    *,
    trained: bool = True,
    apart: bool = True,
) -> Dataset:
    """The dataset with the entries of its file, and `chosen` volumes to train on.

    Unless something is `trained`, training entries only say what is predicted where there are no
    others. `apart`: whether training leaves out what validation and test use; in runs of ZNN it
    does not. ConfigError: an entry names an unknown volume or has nothing to learn from; training
    overlaps with validation or test.
    """
    for name in dataset.sampling.probabilities:
        if name not in dataset.volumes:
            hint = nearest(name, dataset.volumes)
            raise ConfigError(
                f"{where}: sampling.probabilities names the unknown volume {name!r}; {hint}"
            )
    if not trained:
        return dataset.model_copy(update=_untrained_entries(dataset, file, where))
    entries = {
        split: tuple(split_entry(dataset, split, e, where) for e in getattr(file, split))
        for split in SPLITS
    }
    return choose_training(dataset.model_copy(update=entries), chosen, apart=apart)


def _untrained_entries(
    dataset: Dataset, file: DatasetFile, where: str
) -> dict[str, tuple[Entry, ...]]:
    """The entries by split where nothing is trained."""
    splits = ("validation", "test") if file.validation or file.test else ("train",)
    # An entry of the test split needs no labels.
    kinds = {"train": "test"}
    entries = {
        split: tuple(
            split_entry(dataset, kinds.get(split, split), entry, where)
            for entry in getattr(file, split)
        )
        for split in splits
    }
    return {"train": (), **entries}


def split_entry(dataset: Dataset, split: str, written: str | EntryFile, where: str) -> Entry:
    """One entry of a split, with its box, probability and skeletons."""
    entry = EntryFile(volume=written) if isinstance(written, str) else written
    name = entry.volume
    if name not in dataset.volumes:
        hint = nearest(name, dataset.volumes)
        raise ConfigError(f"{where}: {split} names the unknown volume {name!r}; {hint}")
    volume = dataset.volumes[name]
    skeletons = _skeletons(entry.skeletons or volume.skeletons)
    has_ground_truth = volume.labels is not None or (split != "train" and skeletons is not None)
    if split != "test" and not has_ground_truth:
        raise ConfigError(f"{where}: {split} needs labels, and volume {name!r} has none")
    check_region(dataset.voxel_size_nm, entry.roi_nm, f"{where}: {split} of {name!r}")
    probability = entry.probability or dataset.sampling.probabilities.get(name)
    region = entry.roi_nm or region_of(volume)
    resolved: dict[str, Any] = {"volume": name, "roi_nm": region, "probability": probability}
    if split != "train":
        resolved["skeletons"] = skeletons
    return Entry.model_construct(**resolved)


def _skeletons(source: str | SkeletonDump | None) -> SkeletonSource | None:
    """Where skeletons are read: a table or a dump."""
    if source is None:
        return None
    settings: dict[str, Any] = {"path": source} if isinstance(source, str) else source.explicit()
    return SkeletonSource.model_construct(**settings)


def choose_training(dataset: Dataset, chosen: object, *, apart: bool = True) -> Dataset:
    """Replaces the training entries by the chosen volumes; refuses an overlap with the others."""
    entries = list(dataset.train)
    requested = _wanted(dataset, chosen)
    if requested is not None:
        by_volume = {entry.volume: entry for entry in entries}
        where = f"dataset {dataset.name}"
        entries = [by_volume.get(v) or split_entry(dataset, "train", v, where) for v in requested]
    probabilities = _probabilities([entry.probability for entry in entries])
    train = tuple(
        entry.model_copy(
            update={"probability": p, "exclude_nm": _excluded(dataset, entry) if apart else ()}
        )
        for entry, p in zip(entries, probabilities, strict=True)
    )
    return dataset.model_copy(update={"train": train})


def _wanted(dataset: Dataset, chosen: object) -> list[str] | None:
    """Names of the volumes to train on, or None for those of the dataset's file."""
    if isinstance(chosen, Mapping):
        chosen = chosen.get(dataset.name)
    elif isinstance(chosen, (list, tuple)):  # one list for all datasets: each takes its own
        chosen = [v for v in chosen if v in dataset.volumes] or None
    if chosen is None:
        return None
    if chosen == "all":
        rest = [entry for split in SPLITS[1:] for entry in dataset.entries(split)]
        held_out = {entry.volume for entry in rest if entry.roi_nm is None}
        labelled = [v for v, volume in dataset.volumes.items() if volume.labels is not None]
        return [v for v in labelled if v not in held_out]
    requested: list[Any] = [chosen] if isinstance(chosen, str) else list(chosen)  # type: ignore[call-overload]
    for volume in requested:
        if volume not in dataset.volumes:
            hint = nearest(volume, [*dataset.volumes, "all"])
            raise ConfigError(
                f"`volumes`: dataset {dataset.name!r} has no volume {volume!r}; {hint}"
            )
    return requested


def _probabilities(weights: Sequence[float | None]) -> list[float]:
    """Weights scaled to a sum of 1; an entry without a weight gets the mean of the others."""
    probabilities = [weight for weight in weights if weight is not None]
    default = sum(probabilities) / len(probabilities) if probabilities else 1.0
    filled = [default if weight is None else weight for weight in weights]
    return [weight / sum(filled) for weight in filled]


def overlaps(one: Region | None, other: Region | None) -> bool:
    """Whether two boxes share space; None is the whole volume."""
    if one is None or other is None:
        return True
    sides = zip(one.offset, one.shape, other.offset, other.shape, strict=True)
    return all(a < b + m and b < a + n for a, n, b, m in sides)


def _covers(outer: Region | None, inner: Region | None) -> bool:
    if outer is None or inner is None:
        return outer is None
    sides = zip(outer.offset, outer.shape, inner.offset, inner.shape, strict=True)
    return all(a <= b and b + m <= a + n for a, n, b, m in sides)


def _excluded(dataset: Dataset, entry: Entry) -> tuple[Region, ...]:
    """Boxes within a training entry that validation and test use."""
    boxes = []
    for split in SPLITS[1:]:
        for other in dataset.entries(split):
            same = other.volume == entry.volume
            if not same or not overlaps(entry.roi_nm, other.roi_nm):
                continue
            if other.roi_nm is None or _covers(other.roi_nm, entry.roi_nm):
                raise ConfigError(
                    f"dataset {dataset.name!r}: volume {entry.volume!r} is in train and "
                    f"whole in {split}; give the {split} entry a smaller roi_nm"
                )
            boxes.append(other.roi_nm)
    return tuple(boxes)


def scorable(dataset: DatasetBase, split: str) -> list[Entry]:
    """The entries of a split that have ground truth: labels of their volume, or skeletons."""
    volumes = dataset.volumes
    return [
        entry
        for entry in dataset.entries(split)
        if volumes[entry.volume].labels is not None or entry.skeletons is not None
    ]


def with_skeletons(dataset: DatasetBase) -> list[str]:
    """The volumes whose test entries have skeletons; ConfigError if there are none."""
    volumes = [entry.volume for entry in dataset.test if entry.skeletons is not None]
    if not volumes:
        raise ConfigError(
            f"dataset {dataset.name!r} has no `test` entry with `skeletons`, which `export: "
            "{layers: [nodes]}` makes tables of; leave out nodes, or add them to an entry"
        )
    return list(dict.fromkeys(volumes))
