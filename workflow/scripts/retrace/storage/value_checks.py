"""Checks of the values in volumes: raw is uint8 or float in [0, 1], labels are integers."""

from __future__ import annotations

import numpy as np

from retrace.errors import DataError
from retrace.geometry import VoxelBox
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import CHUNK_SHAPE


def check_raw(raw: Volume, box: VoxelBox | None = None) -> None:
    """DataError for raw that is neither uint8 nor float in [0, 1].

    Reads float data once, all of it or `box` (voxels).
    """
    check_raw_type(raw)
    if raw.dtype == np.uint8:
        return
    region = box or raw.box
    for z in range(region.offset[0], region.end[0], CHUNK_SHAPE[0]):
        depth = min(CHUNK_SHAPE[0], region.end[0] - z)
        slab = VoxelBox((z, *region.offset[1:]), (depth, *region.shape[1:]))
        check_float(raw.name, raw.read(slab, fill=0))


def check_raw_type(raw: Volume) -> None:
    """DataError for raw that is neither uint8 nor float."""
    if raw.dtype != np.uint8 and raw.dtype.kind != "f":
        raise DataError(
            f"{raw.name} is {raw.dtype}; raw must be uint8, or float in [0, 1]. Convert it first"
        )


def check_float(name: str, data: np.ndarray) -> None:
    """DataError for float data with NaN or values outside [0, 1]; `name` for the message."""
    if np.isnan(data).any():
        raise DataError(f"{name} contains NaN; replace them (0 for absent voxels) and run again")
    if data.size and (data.min() < 0 or data.max() > 1):
        raise DataError(
            f"{name} is float with values {data.min():.4g} to {data.max():.4g}; raw must lie in "
            "[0, 1]: rescale it, or store it as uint8"
        )


def check_labels(labels: Volume) -> None:
    """DataError for labels that are not integers."""
    if labels.dtype.kind not in "ui":
        raise DataError(f"{labels.name} is {labels.dtype}; labels must be an integer type")
