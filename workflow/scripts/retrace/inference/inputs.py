"""What a network reads of a window: raw, predicted descriptors, or both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from retrace.errors import DataError
from retrace.geometry import VoxelBox
from retrace.inference.tiles import TileNetwork, output_box, read_window
from retrace.preprocess import Image
from retrace.volumes import Volume, check_float, is_masked


@dataclass(frozen=True)
class Inputs:
    """Volumes that a prediction reads; `raw_is_read` is False for networks of descriptors alone."""

    raw: Volume
    descriptors: Volume | None = None
    raw_is_read: bool = True
    tissue_mask: Volume | None = None

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """What is read of a dataset: raw."""
        return (self.raw,)

    def is_masked(self, box: VoxelBox) -> bool:
        """Whether the tissue mask leaves nothing of `box`, so that its output is 0 unseen."""
        return is_masked(self.tissue_mask, box, self.raw.voxel_size_nm)

    def read(self, window: VoxelBox) -> np.ndarray:
        """(C, Z, Y, X) uint8, or float in [0, 1]; raw first.

        Raw past its border is mirrored; descriptors are 0 there, as on background (Sheridan et al.
        2023, predict_scan).
        """
        if self.descriptors is None:
            return self._read_raw(window)[None]
        lsds = self.descriptors.read(window, fill=0)
        if not self.raw_is_read:
            return lsds
        raw = self._read_raw(window)[None]
        if raw.dtype != lsds.dtype:
            raw, lsds = as_float(raw), as_float(lsds)
        return np.concatenate((raw, lsds))

    def _read_raw(self, window: VoxelBox) -> np.ndarray:
        """Raw of a window; float values are looked at here where they lie elsewhere."""
        raw = read_window(self.raw, window)
        if self.raw.reader is not None and raw.dtype.kind == "f":
            check_float(self.raw.name, raw)
        return raw

    def output_box(self, network: TileNetwork, padding: str, roi: VoxelBox | None) -> VoxelBox:
        """The voxels that are predicted; of descriptors all of theirs, narrowed by `roi`."""
        if self.descriptors is None:
            return output_box(self.raw, network, padding, roi)
        box = self.descriptors.box if roi is None else self.descriptors.box.intersect(roi)
        if box.is_empty:
            raise DataError(
                f"{self.descriptors.name} ends outside the region that is asked for; predict the "
                "descriptors of that region first"
            )
        return box


@dataclass(frozen=True)
class PreprocessedInputs:
    """Images as networks of ZNN read them: on a scale of their own, mirrored at the border."""

    images: tuple[Image, ...]
    tissue_mask: Volume | None = None
    raw_is_read: ClassVar[bool] = False
    """Values are read as they are: no further scaling of raw."""

    @property
    def raw(self) -> Volume:
        """The first image, on whose voxels the others lie."""
        return self.images[0].volume

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """All images."""
        return tuple(image.volume for image in self.images)

    def is_masked(self, box: VoxelBox) -> bool:
        """Whether the tissue mask leaves nothing of `box`, so that its output is 0 unseen."""
        return is_masked(self.tissue_mask, box, self.raw.voxel_size_nm)

    def read(self, window: VoxelBox) -> np.ndarray:
        """(C, Z, Y, X) float32, one channel an image."""
        return np.stack([image.read(window) for image in self.images]).astype(np.float32)

    def output_box(self, network: TileNetwork, padding: str, roi: VoxelBox | None) -> VoxelBox:
        """The voxels that are predicted."""
        return output_box(self.raw, network, padding, roi)


AnyInputs = Inputs | PreprocessedInputs


def as_float(values: np.ndarray) -> np.ndarray:
    """uint8 as float32 in [0, 1]; floats as they are."""
    return values.astype(np.float32) / 255 if values.dtype == np.uint8 else values


def check_descriptors(inputs: Inputs, channels: int) -> None:
    """DataError where descriptors lie on another grid than raw, or the network reads others."""
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
