"""The scored part of a dataset: volumes with ground truth, and validation and test entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from retrace.config.dataset_model import Entry, SkeletonSource
from retrace.errors import ConfigError, nearest
from retrace.formats.source import Source
from retrace.geometry import NmBox
from retrace.setting_types import LabelId, NmSize, Text
from retrace.settings_model import SettingsModel

ScoredSplit = Literal["validation", "test"]


@dataclass(frozen=True)
class ScoredEntry:
    """A validation or test entry: a volume, perhaps only a region of it."""

    volume: str
    roi_nm: NmBox | None
    skeletons: SkeletonSource | None = None

    @property
    def name(self) -> str:
        """The name of the volume, with the region if there is one."""
        if self.roi_nm is None:
            return self.volume
        ends = zip(self.roi_nm.offset, self.roi_nm.end, strict=True)
        return f"{self.volume}[{','.join(f'{begin}:{end}' for begin, end in ends)} nm]"

    def roi_as_dict(self) -> dict[str, list[float]] | None:
        """The region as JSON values, nm."""
        if self.roi_nm is None:
            return None
        return {"offset": list(self.roi_nm.offset), "shape": list(self.roi_nm.shape)}


class ScoredVolume(SettingsModel):
    """Where a volume is read for scoring."""

    raw: Source | None = Field(None, description="The image.")
    labels: Source | None = Field(None, description="Its ground truth.")


class ScoredDataset(SettingsModel):
    """Volumes by name, and the entries that choose thresholds and are scored."""

    name: Text = Field(description="Name of the dataset.")
    voxel_size_nm: NmSize | None = Field(None, description="Voxel size (z, y, x), nm.")
    background_ids: tuple[LabelId, ...] = Field((), description="Labels that are not neurons.")
    volumes: dict[str, ScoredVolume] = Field(description="Volumes by name.")
    validation: tuple[Entry, ...] = Field((), description="What thresholds are chosen on.")
    test: tuple[Entry, ...] = Field((), description="What is scored.")

    @model_validator(mode="after")
    def _entries_name_volumes(self) -> Self:
        for split, entries in (("validation", self.validation), ("test", self.test)):
            for entry in entries:
                if entry.volume not in self.volumes:
                    raise ValueError(
                        f"{split} entry {entry.volume!r} is no volume of dataset {self.name!r}; "
                        f"{nearest(entry.volume, self.volumes)}"
                    )
        return self

    def entries(self, split: ScoredSplit) -> list[ScoredEntry]:
        """The entries of a split; ConfigError if it has none."""
        entries = self.validation if split == "validation" else self.test
        if not entries:
            raise ConfigError(
                f"dataset {self.name!r} has no `{split}` volumes; name at least one (or a region "
                f"of one) under `{split}` in its config"
            )
        return [_scored(entry) for entry in entries]

    def skeleton_paths(self) -> list[str]:
        """Paths or addresses of the skeletons of all entries."""
        entries = (*self.validation, *self.test)
        return [entry.skeletons.path for entry in entries if entry.skeletons]

    def has_labels(self, entry: ScoredEntry) -> bool:
        """Whether voxels are scored; otherwise skeleton nodes are."""
        return self.volumes[entry.volume].labels is not None


def _scored(entry: Entry) -> ScoredEntry:
    roi = entry.roi_nm
    box = None if roi is None else NmBox(roi.offset, roi.shape)
    return ScoredEntry(entry.volume, box, entry.skeletons)
