"""Checks of the values in volumes: raw is uint8 or float in [0, 1], labels are integers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from retrace.errors import DataError
from retrace.formats.grey_values import WHITE, GreyValues
from retrace.formats.label_types import needs_ids
from retrace.formats.normalize import (
    PERCENTILES,
    Normalize,
    as_setting,
    is_grey_type,
    needs_normalize,
)
from retrace.geometry import VoxelBox, blocks
from retrace.storage.chunk_edges import CHUNK_SHAPE
from retrace.storage.grey_range import sample_boxes, sampled_range
from retrace.storage.volumes import Volume

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
        check_float(raw, raw.read(slab, fill=0))


def check_sample(raw: Volume, box: VoxelBox) -> None:
    """DataError for raw that is neither uint8 nor float in [0, 1] in some blocks of `box` (voxels).

    For streamed raw and views; the other values are checked when they are read.
    """
    check_raw_type(raw)
    if raw.dtype.kind == "f":
        for block in sample_boxes(box.intersect(raw.box)):
            check_float(raw, raw.read(block))


def check_not_blank(raw: Volume, box: VoxelBox, parts: Iterable[VoxelBox] | None = None) -> None:
    """DataError if raw is 0 in all of `box` (voxels), or black or white after `normalize`.

    Stops at the first block that is not. `parts`: the parts of `box` to look at, in this order;
    default: all of it.
    """
    stored = _stored(raw)
    has_voxels, has_image = False, False
    for part in [box] if parts is None else parts:
        for block in blocks(part.intersect(raw.box), BLANK_CHECK_SHAPE):
            has_voxels = True
            if stored.read(block).any():
                has_image = True
                if stored is raw or _has_contrast(raw.read(block)):
                    return
    if has_image:
        raise DataError(_clipped(raw, box))
    if has_voxels:
        raise DataError(
            f"{raw.name} is 0 in the whole requested box {_nm(raw, box)}: there is no image. "
            "Correct `path`, `array`, `offset_nm` or `roi_nm` of the dataset, or restore the file"
        )


def _stored(raw: Volume) -> Volume:
    """The volume with its stored values."""
    grey = _grey_values(raw)
    return raw if grey is None else replace(raw, array=grey.array)


def _has_contrast(values: np.ndarray) -> bool:
    """Whether grey values (Z, Y, X) are not all black, nor all white."""
    low, high = values.min(), values.max()
    return bool(low != high or 0 < low < (WHITE if values.dtype == np.uint8 else 1))


def _clipped(raw: Volume, box: VoxelBox) -> str:
    settings = _normalize(raw)
    assert settings is not None
    sample = sampled_range(raw.name, _stored(raw).array)
    return (
        f"{raw.name} is black or white in the whole requested box {_nm(raw, box)} after "
        f"{as_setting(settings.range, settings.invert, settings.percentiles)}: its values are "
        "outside the range. Correct it in the dataset's file: "
        f"{as_setting(sample, settings.invert, PERCENTILES)}"
    )


def _nm(raw: Volume, box: VoxelBox) -> str:
    nm = box.to_nm(raw.voxel_size_nm)
    return f"{list(nm.offset)}+{list(nm.shape)} nm (z, y, x)"


def _normalize(raw: Volume) -> Normalize | None:
    """The setting `normalize` that a volume is read with."""
    grey = _grey_values(raw)
    return None if grey is None else grey.settings


def _grey_values(raw: Volume) -> GreyValues | None:
    """The array of a volume that applies `normalize`."""
    array = raw.array
    while array is not None and not isinstance(array, GreyValues):
        array = getattr(array, "array", None)
    return array


def check_raw_type(raw: Volume) -> None:
    """DataError for raw that is neither uint8 nor float."""
    if not is_grey_type(raw.dtype.name):
        sample = sampled_range(raw.name, _stored(raw).array) if raw.dtype.kind in "uib" else None
        raise DataError(needs_normalize(f"{raw.name} is {raw.dtype}", _normalize(raw), sample))


def check_float(raw: Volume, data: np.ndarray) -> None:
    """DataError for float data (Z, Y, X) of raw with NaN or values outside [0, 1]."""
    if np.isnan(data).any():
        raise DataError(
            f"{raw.name} contains NaN; replace them (0 for absent voxels) and run again"
        )
    if data.size and (data.min() < 0 or data.max() > 1):
        settings = _normalize(raw)
        values = 1 - data if settings is not None and settings.invert else data
        what = f"{raw.name} is {raw.dtype} with values {values.min():.4g} to {values.max():.4g}"
        sample = sampled_range(raw.name, _stored(raw).array)
        raise DataError(needs_normalize(what, settings, sample))


def check_labels(labels: Volume) -> None:
    """DataError for labels that are not integers."""
    if labels.dtype.kind not in "ui":
        raise DataError(needs_ids(labels.name, str(labels.dtype)))
