"""Labels and segmentations from anywhere as (Z, Y, X)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from retrace.errors import DataError
from retrace.formats.arrangement import ArrangedArray, Arrangement
from retrace.geometry import VoxelBox
from retrace.storage.volumes import Volume


def single_channel(volume: Volume) -> Volume:
    """The volume (Z, Y, X) without an axis of length 1 in place of the channels, or at the end.

    DataError for several channels: labels, segmentations and masks have none.
    """
    shape = tuple(volume.array.shape)
    if len(shape) == 3:
        return volume
    axes = "czyx" if shape[0] == 1 else "zyxc"
    if shape[axes.index("c")] != 1:
        raise DataError(
            f"{volume.name} has shape {shape}, which is {shape[0]} channels; labels, segmentations "
            "and masks have the axes z, y, x: choose one `channel`, or save it as its own array"
        )
    return replace(volume, array=ArrangedArray(volume.array, Arrangement(axes, "zyx")))


def read_mask(mask: Volume, box: VoxelBox) -> np.ndarray:
    """Where a mask is not 0 in `box`, (Z, Y, X) bool; False outside it.

    DataError for a mask that holds NaN, or no numbers.
    """
    if mask.dtype.kind not in "buif":
        raise DataError(f"{mask.name} is {mask.dtype}; a mask holds numbers or truth values")
    values = mask.read(box, fill=0)
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise DataError(
            f"{mask.name} has NaN; write 0 where voxels are ignored, and 1 where they count"
        )
    return np.asarray(values != 0)
