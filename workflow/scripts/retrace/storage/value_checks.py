"""Checks of the values in volumes: raw is uint8 or float in [0, 1], labels are integers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from retrace.errors import DataError
from retrace.geometry import VoxelBox, blocks
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import CHUNK_SHAPE

BLANK_CHECK_SHAPE = CHUNK_SHAPE
"""Voxels (z, y, x) that are read at once to find one that is not 0."""


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


def check_not_blank(raw: Volume, box: VoxelBox, parts: Iterable[VoxelBox] | None = None) -> None:
    """DataError if raw is 0 in all of `box` (voxels); stops at the first voxel that is not.

    `parts`: the parts of `box` to look at, in this order; default: all of it.
    """
    has_voxels = False
    for part in [box] if parts is None else parts:
        for block in blocks(part.intersect(raw.box), BLANK_CHECK_SHAPE):
            has_voxels = True
            if raw.read(block).any():
                return
    if has_voxels:
        nm = box.to_nm(raw.voxel_size_nm)
        raise DataError(
            f"{raw.name} is 0 in the whole requested box {list(nm.offset)}+{list(nm.shape)} nm "
            "(z, y, x): there is no image. Correct `path`, `array`, `offset_nm` or `roi_nm` of the "
            "dataset, or restore the file"
        )


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
