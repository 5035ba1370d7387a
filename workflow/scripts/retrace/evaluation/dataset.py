"""The scored part of a dataset: volumes with ground truth, and validation and test entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from retrace.errors import ConfigError, DataError, nearest
from retrace.evaluation.ground_truth import GroundTruth
from retrace.geometry import NmBox, triple
from retrace.storage.manifest import check_manifest
from retrace.storage.volumes import Volume, open_source, open_volume

Split = Literal["validation", "test"]


@dataclass(frozen=True)
class ScoredEntry:
    """A validation or test entry: a volume, perhaps only a region of it."""

    volume: str
    roi_nm: NmBox | None
    skeletons: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The name of the volume, with the region if there is one."""
        if self.roi_nm is None:
            return self.volume
        ends = zip(self.roi_nm.offset, self.roi_nm.end, strict=True)
        return f"{self.volume}[{','.join(f'{begin}:{end}' for begin, end in ends)} nm]"

    def roi_as_dict(self) -> dict[str, list[int]] | None:
        """The region as it is written to JSON, nm."""
        if self.roi_nm is None:
            return None
        return {"offset": list(self.roi_nm.offset), "shape": list(self.roi_nm.shape)}


@dataclass(frozen=True)
class ScoredDataset:
    """Volumes by name, each with the sources `labels` and `raw` if it has them, and two splits."""

    name: str
    volumes: Mapping[str, Mapping[str, Any]]
    validation: tuple[ScoredEntry, ...] = ()
    test: tuple[ScoredEntry, ...] = ()
    background_ids: tuple[int, ...] = ()
    voxel_size_nm: tuple[int, int, int] | None = None

    def entries(self, split: Split) -> tuple[ScoredEntry, ...]:
        """The entries of a split; ConfigError if it has none."""
        entries = self.validation if split == "validation" else self.test
        if not entries:
            raise ConfigError(
                f"dataset {self.name!r} has no `{split}` volumes; name at least one (or a region "
                f"of one) under `{split}` in its config"
            )
        return entries

    def has_labels(self, entry: ScoredEntry) -> bool:
        """Whether voxels are scored; otherwise skeleton nodes are."""
        return bool(self.volumes[entry.volume].get("labels"))

    def ground_truth(self, entry: ScoredEntry, masks: Mapping[str, Path]) -> GroundTruth:
        """The labels that count of an entry; `masks`: labels masks by volume.

        Raises DataError if its volume has no labels.
        """
        mask = masks.get(entry.volume)
        if mask is not None:
            check_manifest(mask)
        return GroundTruth(
            labels=self.labels(entry),
            mask=None if mask is None else open_volume(mask, "labels_mask"),
            roi_nm=entry.roi_nm,
            ignored_ids=self.background_ids,
        )

    def labels(self, entry: ScoredEntry) -> Volume:
        """The labels (Z, Y, X) of an entry's volume; DataError if it has none."""
        source = self.volumes[entry.volume].get("labels")
        if not source:
            raise DataError(
                f"volume {entry.volume!r} has no `labels` and no `skeletons`; it cannot be scored"
            )
        return self._open(source)

    def raw(self, entry: ScoredEntry) -> Volume:
        """The raw of an entry's volume."""
        return self._open(self.volumes[entry.volume]["raw"])

    def _open(self, source: Mapping[str, Any]) -> Volume:
        return open_source({"voxel_size_nm": self.voxel_size_nm, **source})


def read_dataset(content: Mapping[str, Any]) -> ScoredDataset:
    """The scored part of a dataset from its JSON; ConfigError for an entry of an unknown volume."""
    size = content.get("voxel_size_nm")
    return ScoredDataset(
        content["name"],
        content["volumes"],
        _read_entries(content, "validation"),
        _read_entries(content, "test"),
        tuple(content.get("background_ids") or ()),
        triple(size) if size else None,
    )


def _read_entries(content: Mapping[str, Any], split: Split) -> tuple[ScoredEntry, ...]:
    entries = []
    for item in content.get(split) or ():
        if item["volume"] not in content["volumes"]:
            raise ConfigError(
                f"{split} entry {item['volume']!r} is no volume of dataset {content['name']!r}; "
                f"{nearest(item['volume'], content['volumes'])}"
            )
        roi = item.get("roi_nm")
        box = NmBox(triple(roi["offset"]), triple(roi["shape"])) if roi else None
        entries.append(ScoredEntry(item["volume"], box, item.get("skeletons")))
    return tuple(entries)
