"""The volumes that a network reads: raw, predicted descriptors, or preprocessed images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from retrace.config.families import FAMILIES
from retrace.errors import DataError
from retrace.formats.placement import check_place_in_image
from retrace.formats.precomputed import check_inside
from retrace.geometry import NmBox, VoxelBox
from retrace.inference.tiles import TileNetwork, output_box, read_reflected
from retrace.planning.predict_settings import PredictedVolume, PredictionSettings
from retrace.remote.addresses import is_address
from retrace.storage.images import open_image
from retrace.storage.manifest import check_manifest
from retrace.storage.normalised import UNIT, NormalisedImage, open_normalised
from retrace.storage.volumes import Volume, is_masked, open_source


@dataclass(frozen=True)
class RawInputs:
    """Raw and descriptors; `raw_is_read` is False for networks that read descriptors alone."""

    raw: Volume
    descriptors: Volume | None = None
    raw_is_read: bool = True
    tissue_mask: Volume | None = None

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """The volumes of the dataset that are read: raw."""
        return (self.raw,)

    def is_masked(self, box: VoxelBox) -> bool:
        """Whether `box` has no tissue, so that its output is 0 and need not be computed."""
        return is_masked(self.tissue_mask, box, self.raw.voxel_size_nm)

    def read(self, window: VoxelBox) -> np.ndarray:
        """The input of a window, (C, Z, Y, X), raw first; uint8, or float in [0, 1].

        Beyond their border raw is mirrored and descriptors are 0, their value on background
        (Sheridan et al. 2023, predict_scan).
        """
        if self.descriptors is None:
            return self._read_raw(window)[None]
        lsds = self.descriptors.read(window, fill=0)
        if not self.raw_is_read:
            return lsds
        raw = self._read_raw(window)[None]
        if raw.dtype != lsds.dtype:
            raw, lsds = as_unit_float(raw), as_unit_float(lsds)
        return np.concatenate((raw, lsds))

    def _read_raw(self, window: VoxelBox) -> np.ndarray:
        """Raw of a window, (Z, Y, X)."""
        return read_reflected(self.raw, window)

    def output_box(self, network: TileNetwork, padding: str, roi: VoxelBox | None) -> VoxelBox:
        """The box that is predicted, world voxels: with descriptors all of theirs, within `roi`."""
        if self.descriptors is None:
            return output_box(self.raw, network, padding, roi)
        box = self.descriptors.box if roi is None else self.descriptors.box.intersect(roi)
        if box.is_empty:
            raise DataError(
                f"{self.descriptors.name} ends outside the requested region; predict the "
                "descriptors of that region first"
            )
        return box


@dataclass(frozen=True)
class PreprocessedInputs:
    """Images as networks of ZNN and ELEKTRONN read them: preprocessed, mirrored at the border."""

    images: tuple[NormalisedImage, ...]
    tissue_mask: Volume | None = None
    precision: str = "float32"
    """Type of the numbers that the network computes with: float32 or float64."""
    raw_is_read: ClassVar[bool] = False
    """False: the images are scaled already, so raw is not scaled to [-1, 1] again."""

    @property
    def raw(self) -> Volume:
        """The first image; the others have the same voxel grid."""
        return self.images[0].volume

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """All images."""
        return tuple(image.volume for image in self.images)

    def is_masked(self, box: VoxelBox) -> bool:
        """Whether `box` has no tissue, so that its output is 0 and need not be computed."""
        return is_masked(self.tissue_mask, box, self.raw.voxel_size_nm)

    def read(self, window: VoxelBox) -> np.ndarray:
        """The input of a window, (C, Z, Y, X) of `precision`, one channel for each image."""
        return np.stack([image.read(window) for image in self.images]).astype(self.precision)

    def output_box(self, network: TileNetwork, padding: str, roi: VoxelBox | None) -> VoxelBox:
        """The box that is predicted, world voxels."""
        return output_box(self.raw, network, padding, roi)


NetworkInputs = RawInputs | PreprocessedInputs


def as_unit_float(values: np.ndarray) -> np.ndarray:
    """uint8 as float32 in [0, 1]; floats unchanged."""
    return values.astype(np.float32) / 255 if values.dtype == np.uint8 else values


def check_descriptors(inputs: RawInputs, channels: int) -> None:
    """Raises DataError if voxel size or number of descriptors do not fit raw and the network."""
    lsds = inputs.descriptors
    if lsds is None:
        return
    if lsds.voxel_size_nm != inputs.raw.voxel_size_nm:
        raise DataError(
            f"{lsds.name} has voxels of {list(lsds.voxel_size_nm)} nm, raw of "
            f"{list(inputs.raw.voxel_size_nm)} nm; predict the descriptors from this raw"
        )
    if lsds.channels + inputs.raw_is_read != channels:
        raise DataError(
            f"{lsds.name} has {lsds.channels} channels; the network reads {channels} with raw "
            f"{'among them' if inputs.raw_is_read else 'not among them'}"
        )


def region_of_interest(volume: PredictedVolume, raw: Volume) -> VoxelBox | None:
    """The region of interest in voxels; None for the whole volume.

    It is the volume's `roi_nm`, or with `roi_of` the box of those labels, `margin_nm` larger on
    every side.
    """
    if volume.roi_of is not None:
        labels = open_source(volume.roi_of)
        check_place_in_image(labels.place, raw.place)
        box = labels.box.to_nm(labels.voxel_size_nm).grow(volume.margin_nm)
        return box.to_voxels(raw.voxel_size_nm)
    roi = volume.roi_nm
    if roi is None:
        return None
    box_nm = NmBox(roi.offset, roi.shape)
    if is_address(volume.raw.path):
        check_inside(raw.name, raw.box, raw.voxel_size_nm, box_nm)
    return box_nm.to_voxels(raw.voxel_size_nm)


def check_covered(raw: Volume, box: VoxelBox, roi: VoxelBox | None) -> None:
    """Raises DataError if raw ends too close to the region for the network to predict all of it."""
    if roi is not None and box != roi:
        raise DataError(
            f"{raw.name} ends too close to `roi_nm` {roi.offset}+{roi.shape}: with its context the "
            f"network predicts {box.offset}+{box.shape} (voxels); choose a smaller region"
        )


def open_network_inputs(settings: PredictionSettings) -> NetworkInputs:
    """Opens the volumes that a network reads, and checks that they fit each other.

    Raises DataError if they do not.
    """
    volume, network = settings.volume, settings.network
    tissue_mask = open_source(volume.tissue_mask) if volume.tissue_mask else None
    family = FAMILIES[network.family]
    if not family.scales_raw:
        preprocess = UNIT if family.unit_images else None
        sources = (volume.raw, *volume.inputs)
        images = tuple(open_normalised(source, preprocess) for source in sources)
        _check_tissue_mask(tissue_mask, images[0].volume)
        precision = getattr(network, "dtype", "float32")  # of networks of the family znn
        return PreprocessedInputs(images, tissue_mask, precision)
    raw = open_image(volume.raw)
    _check_tissue_mask(tissue_mask, raw)
    if raw.channels:
        raise DataError(f"{raw.name} has {raw.channels} channels; raw is (z, y, x)")
    if settings.descriptors is None:
        return RawInputs(raw, tissue_mask=tissue_mask)
    check_manifest(Path(settings.descriptors.path))
    lsds = open_source(settings.descriptors)
    inputs = RawInputs(raw, lsds, network.input_channels > lsds.channels, tissue_mask)
    check_descriptors(inputs, network.input_channels)
    return inputs


def _check_tissue_mask(mask: Volume | None, raw: Volume) -> None:
    """DataError for a mask whose place nothing states; its voxels may be larger."""
    if mask is not None:
        check_place_in_image(mask.place, raw.place, same_voxels=False)


def descriptor_stores(settings: PredictionSettings) -> list[Path]:
    """The store of the descriptors that are read, in a list; empty without descriptors."""
    return [Path(settings.descriptors.path)] if settings.descriptors else []
