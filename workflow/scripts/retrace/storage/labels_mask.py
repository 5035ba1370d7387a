"""Where labels say something: 1, except where they hold a background id."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from retrace.errors import ConfigError, DataError
from retrace.geometry import Triple, VoxelBox, blocks, triple
from retrace.storage.volumes import Volume, check_labels
from retrace.storage.zarr_writer import CHUNK_SHAPE, create_volume

MASK_ARRAY = "labels_mask"


@dataclass(frozen=True)
class MaskCounts:
    """Voxels of the labels: all, those inside the mask, and those of them that name a neuron."""

    voxels: int
    inside: int
    neurons: int


def background_values(ids: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """The ids in the labels' own type, exactly; ids that the type cannot hold never occur in it.

    No step goes through floats: 2^64 - 3 would become 2^64.
    """
    for value in ids:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
            raise ConfigError(f"background id {value!r} is no whole number in 0 ... 2^64 - 1")
    highest = int(np.iinfo(dtype).max)
    return np.array([value for value in ids if value <= highest], dtype=dtype)


def mask_of(labels: np.ndarray, background: np.ndarray) -> np.ndarray:
    """1 where `labels` is none of `background` (same dtype) and not below 0, 0 elsewhere; uint8,
    same shape."""
    mask = (labels >= 0).astype(np.uint8)
    for value in background:
        mask[labels == value] = 0
    return mask


def _mask_block(
    labels: Volume, mask: zarr.Array, box: VoxelBox, background: np.ndarray, given: Volume | None
) -> MaskCounts:
    data = labels.read(box)
    block = mask_of(data, background)
    if given is not None:
        block[given.read(box, fill=0) == 0] = 0
    mask[box.slices(labels.box.offset)] = block
    neurons = int(np.count_nonzero(data[block == 1]))
    return MaskCounts(block.size, int(np.count_nonzero(block)), neurons)


def chunk_shape(labels: Volume) -> Triple:
    """Chunks that are read whole: the labels' own where they have some of useful size."""
    own = getattr(labels.array, "chunks", None)
    if own and len(own) == 3 and 2**15 <= int(np.prod(own)) <= 2**24:
        return triple(own)
    return CHUNK_SHAPE


def write_mask(
    labels: Volume,
    background_ids: Sequence[int],
    store: Path,
    threads: int = 4,
    given: Volume | None = None,
) -> MaskCounts:
    """Writes `labels_mask` (uint8, same box as `labels`) into `store`, chunk by chunk.

    `given`: a mask of one's own, 0 where labels do not count. Memory is a few chunks, whatever the
    volume's size. Raises DataError for labels that are no
    whole numbers, hold no voxel, only background, or only 0.
    """
    check_labels(labels)
    if len(labels.array.shape) != 3 or labels.box.is_empty:
        raise DataError(f"{labels.name} has shape {tuple(labels.array.shape)}; it must hold voxels")
    background = background_values(background_ids, labels.dtype)
    chunks = chunk_shape(labels)
    mask = create_volume(
        store,
        MASK_ARRAY,
        shape=labels.array.shape,
        chunks=chunks,
        dtype=np.uint8,
        voxel_size_nm=labels.voxel_size_nm,
        offset_nm=labels.offset_nm,
    )
    parts: list[MaskCounts] = []
    with ThreadPoolExecutor(threads) as pool:
        boxes = blocks(labels.box, chunks)
        done = pool.map(lambda box: _mask_block(labels, mask, box, background, given), boxes)
        parts.extend(done)
    return _checked(labels, background_ids, parts)


def _checked(labels: Volume, background_ids: Sequence[int], parts: list[MaskCounts]) -> MaskCounts:
    voxels, inside, neurons = (
        sum(getattr(part, name) for part in parts) for name in ("voxels", "inside", "neurons")
    )
    if inside == 0:
        raise DataError(
            f"{labels.name} holds only background ({list(background_ids)}) where it is not masked: "
            "all of it would be masked; correct `background_ids` or `labels_mask` of the dataset, "
            "or choose another volume"
        )
    if neurons == 0:
        raise DataError(
            f"{labels.name} holds no neuron: every voxel is 0 or background; choose another volume"
        )
    return MaskCounts(voxels, inside, neurons)
