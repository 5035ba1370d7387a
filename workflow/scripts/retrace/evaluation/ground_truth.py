"""Ground truth of the entries of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError, DataError, nearest
from retrace.evaluation.counting import Truth
from retrace.geometry import NmBox, triple
from retrace.storage.manifest import check_manifest
from retrace.storage.volumes import Volume, open_source, open_volume


@dataclass(frozen=True)
class Entry:
    """One validation or test entry: a volume, perhaps cut to a region."""

    volume: str
    roi_nm: NmBox | None
    skeletons: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The volume's name, with the region where it is cut."""
        if self.roi_nm is None:
            return self.volume
        ends = zip(self.roi_nm.offset, self.roi_nm.end, strict=True)
        return f"{self.volume}[{','.join(f'{begin}:{end}' for begin, end in ends)} nm]"


def read_entries(settings: dict[str, Any], key: str) -> list[Entry]:
    """The `validation` or `test` entries of the dataset; ConfigError where there are none."""
    dataset, entries = settings["dataset"], listed_entries(settings, key)
    if not entries:
        raise ConfigError(
            f"dataset {dataset['name']!r} has no `{key}` volumes; name at least one (or a region "
            f"of one) under `{key}` in its config"
        )
    return entries


def listed_entries(settings: dict[str, Any], key: str) -> list[Entry]:
    dataset = settings["dataset"]
    entries = []
    for item in dataset.get(key) or []:
        item = {"volume": item} if isinstance(item, str) else item
        if item["volume"] not in dataset["volumes"]:
            raise ConfigError(
                f"{key} entry {item['volume']!r} is no volume of dataset {dataset['name']!r}; "
                f"{nearest(item['volume'], dataset['volumes'])}"
            )
        roi = item.get("roi_nm")
        box = NmBox(triple(roi["offset"]), triple(roi["shape"])) if roi else None
        entries.append(Entry(item["volume"], box, item.get("skeletons")))
    return entries


def has_labels(settings: dict[str, Any], entry: Entry) -> bool:
    """Whether voxels are scored; skeleton nodes are where the volume has no labels."""
    return bool(settings["dataset"]["volumes"][entry.volume].get("labels"))


def read_truth(settings: dict[str, Any], entry: Entry, masks: dict[str, Path]) -> Truth:
    """Labels, mask and region of an entry; DataError where it has neither labels nor skeletons."""
    dataset = settings["dataset"]
    source = dataset["volumes"][entry.volume].get("labels")
    if not source:
        raise DataError(
            f"volume {entry.volume!r} has no `labels` and no `skeletons`; it cannot be scored"
        )
    mask = masks.get(entry.volume)
    if mask is not None:
        check_manifest(mask)
    return Truth(
        labels=open_in_dataset(dataset, source),
        mask=None if mask is None else open_volume(mask, "labels_mask"),
        roi_nm=entry.roi_nm,
        ignored_ids=tuple(dataset.get("background_ids") or ()),
    )


def open_in_dataset(dataset: dict[str, Any], source: dict[str, Any]) -> Volume:
    return open_source({"voxel_size_nm": dataset.get("voxel_size_nm"), **source})
