"""What segmentation reads: affinities, or a boundary map that gives them, and a tissue mask."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retrace.errors import ConfigError, DataError
from retrace.formats.source import Source
from retrace.geometry import VoxelBox
from retrace.planning.segment_settings import SegmentationSettings
from retrace.segmentation.interior import from_interior
from retrace.storage.images import open_image
from retrace.storage.manifest import check_manifest
from retrace.storage.volumes import (
    Volume,
    is_masked,
    mask_on_grid,
    open_group,
    open_source,
    open_volume,
)


@dataclass(frozen=True)
class SegmentationInputs:
    """Affinities (C >= 3, Z, Y, X) and an optional tissue mask (Z, Y, X), in world coordinates."""

    affinities: Volume
    mask: Volume | None = None
    descriptors: Volume | None = None
    """Local shape descriptors (D, Z, Y, X), where edges are described by them."""
    raw: Volume | None = None
    """The image (Z, Y, X), where edges are described by it."""

    @property
    def volumes(self) -> tuple[Volume | None, Volume | None]:
        """The volumes of the dataset that are read, apart from the prediction."""
        return self.mask, self.raw

    def is_masked(self, box: VoxelBox) -> bool:
        """Whether `box` has no tissue."""
        return is_masked(self.mask, box, self.affinities.voxel_size_nm)

    def read(self, box: VoxelBox) -> tuple[np.ndarray, np.ndarray | None]:
        """Affinities of `box`, (C, Z, Y, X), 0 outside tissue; and the mask, (Z, Y, X) bool."""
        values = self.affinities.read(box)
        if self.mask is None:
            return values, None
        inside = mask_on_grid(self.mask, box, self.affinities.voxel_size_nm)
        return values * inside.astype(values.dtype), inside


def open_segmentation_inputs(
    prediction: Path, settings: SegmentationSettings, *, describes_edges: bool = True
) -> SegmentationInputs:
    """The prediction, checked against its manifest and the network's neighborhood, and the mask.

    `describes_edges`: whether what describes edges for a classifier is opened, too.
    """
    mask = settings.tissue_mask
    check_manifest(prediction)
    affinities = open_affinities(prediction, settings.boundary)
    check_affinities(affinities, settings)
    inputs = SegmentationInputs(affinities, open_source(mask) if mask else None)
    if not settings.is_learned or not describes_edges or settings.raw is None:
        return inputs
    descriptors = open_volume(prediction, "lsds") if "lsds" in open_group(prediction) else None
    return replace(inputs, descriptors=descriptors, raw=_open_raw(settings.raw, affinities))


def _open_raw(source: Source, affinities: Volume) -> Volume:
    """The image; DataError if its voxels are not those of the prediction."""
    raw = open_image(source, checks_floats=False)
    if raw.voxel_size_nm != affinities.voxel_size_nm or raw.channels:
        raise DataError(
            f"{raw.name} has voxels of {list(raw.voxel_size_nm)} nm and {raw.channels} channels, "
            f"{affinities.name} voxels of {list(affinities.voxel_size_nm)} nm; predict again from "
            "this raw"
        )
    if raw.box.intersect(affinities.box) != affinities.box:
        raise DataError(f"{raw.name} ends inside of {affinities.name}; predict again from this raw")
    return raw


def open_affinities(prediction: Path, boundary: str | None) -> Volume:
    """The predicted affinities (C, Z, Y, X), or those that follow from the array `boundary`."""
    if boundary is None:
        return open_volume(prediction, "affs")
    return from_interior(open_volume(prediction, boundary))


def check_affinities(affinities: Volume, settings: SegmentationSettings) -> None:
    """Raises ConfigError or DataError if channels or dtype of a prediction do not fit."""
    if affinities.channels < 3:
        raise DataError(
            f"{affinities.name} has {affinities.channels} channels; affinities (c, z, y, x) with "
            "at least the three direct neighbours are needed"
        )
    if affinities.channels != len(settings.neighborhood):
        raise ConfigError(
            f"{affinities.name} has {affinities.channels} channels, the network's `neighborhood` "
            f"{len(settings.neighborhood)}; predict again with this network"
        )
    if affinities.dtype not in (np.uint8, np.float32):
        raise DataError(
            f"{affinities.name} is {affinities.dtype}; predictions are uint8 or float32"
        )
