"""Label volumes of grown neurites: balls on the voxel grid, gaps filled, pieces numbered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from retrace.geometry import NmTriple, Triple
from retrace.synthetic.growth import Ball

MITOCHONDRION_RADIUS = 0.62
"""Radius of a mitochondrion in radii of its neurite."""


def paint_neurites(
    balls: Sequence[Ball], shape: Triple, voxel_size_nm: NmTriple
) -> tuple[np.ndarray, np.ndarray]:
    """Neurite ids (Z, Y, X) int32, 0 between neurites, and the mask of mitochondria (Z, Y, X)."""
    ids = np.zeros(shape, np.int32)
    mitochondria = np.zeros(shape, bool)
    for ball in balls:
        _paint_ball(ids, ball.neurite, ball.centre, ball.radius, voxel_size_nm)
        if ball.in_mitochondrion:
            radius = MITOCHONDRION_RADIUS * ball.radius
            _paint_ball(mitochondria, True, ball.centre, radius, voxel_size_nm)
    return ids, mitochondria


def _paint_ball(
    target: np.ndarray, value: int, centre: np.ndarray, radius: float, voxel_size_nm: NmTriple
) -> None:
    """Writes `value` into the voxels of a ball; of ids, only where no neurite is yet."""
    size = np.asarray(voxel_size_nm, float)
    begin = np.maximum(0, np.ceil((centre - radius) / size - 0.5)).astype(int)
    end = np.minimum(target.shape, np.floor((centre + radius) / size - 0.5).astype(int) + 1)
    if (end <= begin).any():
        return
    axes = [
        ((np.arange(b, e) + 0.5) * s - c) ** 2
        for b, e, s, c in zip(begin, end, size, centre, strict=True)
    ]
    distance = axes[0][:, None, None] + axes[1][None, :, None] + axes[2]
    box = target[tuple(slice(b, e) for b, e in zip(begin, end, strict=True))]
    free = (box == 0) if target.dtype != bool else True
    box[(distance <= radius**2) & free] = value


def fill_gaps(ids: np.ndarray, voxel_size_nm: NmTriple) -> np.ndarray:
    """Ids (Z, Y, X) without 0: gaps join the nearest neurite (nm), as cells touch in neuropil."""
    if not ids.any():
        return np.ones_like(ids)
    nearest = ndimage.distance_transform_edt(
        ids == 0, sampling=voxel_size_nm, return_distances=False, return_indices=True
    )
    return np.asarray(ids[tuple(nearest)])


def faces(ids: np.ndarray) -> np.ndarray:
    """Mask (Z, Y, X) of the voxels on both sides of each face between two different ids."""
    on_face = np.zeros(ids.shape, bool)
    for axis in range(3):
        low: list[slice] = [slice(None)] * 3
        high: list[slice] = [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        differs = ids[tuple(low)] != ids[tuple(high)]
        on_face[tuple(low)] |= differs
        on_face[tuple(high)] |= differs
    return on_face


def connected_pieces(cells: np.ndarray) -> np.ndarray:
    """Ids 1..N (Z, Y, X) uint64 of 6-connected pieces; specks join what surrounds them."""
    from skimage.measure import label

    pieces = label(cells, connectivity=1, background=-1)
    sizes = np.bincount(pieces.ravel())
    small = sizes < min(60, cells.size // 50 + 1)
    small[0] = False
    if small.any() and not small[pieces].all():
        pieces = fill_gaps(np.where(small[pieces], 0, pieces), (1, 1, 1))
        pieces = label(pieces, connectivity=1, background=-1)
    return np.asarray(pieces, np.uint64)
