"""Labels masks (Z, Y, X) uint8: 1 where labels are known, 0 on background ids."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from retrace.errors import DataError
from retrace.formats.label_ids import background_values, is_known
from retrace.geometry import Triple, VoxelBox, blocks, triple
from retrace.setting_types import DEFAULT_ZARR_FORMAT, ZarrFormat
from retrace.storage.chunk_edges import CHUNK_SHAPE
from retrace.storage.label_volumes import read_mask
from retrace.storage.unfinished import open_unfinished, write_complete_shards
from retrace.storage.value_checks import check_labels
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import create_volume

MASK_ARRAY = "labels_mask"


@dataclass(frozen=True)
class MaskCounts:
    """Numbers of voxels: all, inside the mask, and inside the mask with a neuron's id (not 0)."""

    voxels: int
    inside: int
    neurons: int


def _mask_block(
    labels: Volume, mask: zarr.Array, box: VoxelBox, background: np.ndarray, own_mask: Volume | None
) -> MaskCounts:
    """Writes and counts one block of the mask."""
    data = labels.read(box)
    block = is_known(data, background).astype(np.uint8)
    if own_mask is not None:
        block[~read_mask(own_mask, box)] = 0
    region = box.slices(labels.box.offset)
    mask[region] = block
    write_complete_shards(mask, region)
    neurons = int(np.count_nonzero(data[block == 1]))
    return MaskCounts(block.size, int(np.count_nonzero(block)), neurons)


def mask_chunk_shape(labels: Volume) -> Triple:
    """The chunk shape (z, y, x): that of the labels, unless it is very small or very large.

    With the labels' own chunks, each of them is decoded only once.
    """
    own = getattr(labels.array, "chunks", None)
    if own and len(own) == 3 and 2**15 <= int(np.prod(own)) <= 2**24:
        return triple(own)
    return CHUNK_SHAPE


def write_mask(
    labels: Volume,
    background_ids: Sequence[int],
    store: Path,
    threads: int = 4,
    own_mask: Volume | None = None,
    zarr_format: ZarrFormat = DEFAULT_ZARR_FORMAT,
) -> MaskCounts:
    """Writes `labels_mask` (Z, Y, X) uint8, with the box of `labels`, into `store`.

    `own_mask`: the dataset's own mask, 0 where labels are to be ignored. Needs memory for a few
    chunks only. DataError for labels that are not integers, have no voxels, or are background or 0
    everywhere.
    """
    check_labels(labels)
    if len(labels.array.shape) != 3 or labels.box.is_empty:
        raise DataError(f"{labels.name} has shape {tuple(labels.array.shape)}; (z, y, x) is needed")
    background = background_values(background_ids, labels.dtype)
    chunks = mask_chunk_shape(labels)
    create_volume(
        store,
        MASK_ARRAY,
        shape=labels.array.shape,
        chunks=chunks,
        dtype=np.uint8,
        voxel_size_nm=labels.voxel_size_nm,
        offset_nm=labels.offset_nm,
        zarr_format=zarr_format,
    )
    mask: Any = open_unfinished(store)[MASK_ARRAY]
    parts: list[MaskCounts] = []
    with ThreadPoolExecutor(threads) as pool:
        boxes = blocks(labels.box, chunks)
        done = pool.map(lambda box: _mask_block(labels, mask, box, background, own_mask), boxes)
        parts.extend(done)
    return _checked(labels, background_ids, parts)


def _checked(labels: Volume, background_ids: Sequence[int], parts: list[MaskCounts]) -> MaskCounts:
    """The sum of the counts of all blocks; DataError if no neuron is inside the mask."""
    voxels, inside, neurons = (
        sum(getattr(part, name) for part in parts) for name in ("voxels", "inside", "neurons")
    )
    if inside == 0:
        raise DataError(
            f"{labels.name} would be masked everywhere: it has only background "
            f"({list(background_ids)}) inside the dataset's own mask; correct `background_ids` or "
            "`labels_mask` of the dataset, or choose another volume"
        )
    if neurons == 0:
        raise DataError(
            f"{labels.name} has no neuron: every voxel is 0 or background; choose another volume"
        )
    return MaskCounts(voxels, inside, neurons)
