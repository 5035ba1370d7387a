"""Fragments: a seeded watershed on the distance to boundaries, which low affinities mark.

The steps of `lsd/post/fragments.py` (Sheridan et al. 2023), with the distances of scipy and the
watershed of scikit-image instead of mahotas: distances in voxels, seeds where the distance is the
maximum within 10 voxels. Both are compiled here and give equal fragments.
"""

from __future__ import annotations

import fastremap
import numpy as np

from retrace.errors import DataError
from retrace.segmentation.distances import squared_distances, window_maxima
from retrace.segmentation.flooding import flood_from_maxima

SEED_DISTANCE = 10
"""Edge of the maximum filter that finds seeds, voxels."""


def highest_value(affinities: np.ndarray) -> float:
    """The affinity of certainly connected voxels: 255 for uint8, 1 for float."""
    return 255.0 if affinities.dtype == np.uint8 else 1.0


def flood(inside: np.ndarray) -> np.ndarray:
    """Fragments, uint64, 1 ... n without 0, of a boolean array that is False on boundaries (2-D or
    3-D)."""
    volume = np.ascontiguousarray(inside).reshape((1, *inside.shape)[-3:])
    depths = squared_distances(volume) if not inside.all() else _distances_from_nowhere(inside)
    maxima = window_maxima(depths, SEED_DISTANCE)
    return flood_from_maxima(depths, maxima).reshape(inside.shape)


def _distances_from_nowhere(inside: np.ndarray) -> np.ndarray:
    """What scipy's transform gives where there is no boundary: distances to a voxel next to the
    first one, before it on the first axis; squared."""
    squares = np.zeros(inside.shape, np.int32)
    for axis, index in enumerate(np.ogrid[tuple(map(slice, inside.shape))]):
        squares += (index + (axis == 0)) ** 2
    return squares.reshape((1, *inside.shape)[-3:])


def _flood_sections(mean: np.ndarray, threshold: float) -> np.ndarray:
    fragments = np.empty(mean.shape, dtype=np.uint64)
    last = 0
    for z, section in enumerate(mean):
        fragments[z] = flood(section > threshold) + last
        last = int(fragments[z].max())
    return fragments


def mean_of_channels(channels: np.ndarray) -> np.ndarray:
    """The mean (Z, Y, X) float32 of channels (C, Z, Y, X)."""
    return np.asarray(np.mean(channels, axis=0, dtype=np.float32))


def watershed_fragments(affinities: np.ndarray, *, in_xy: bool) -> np.ndarray:
    """Fragments (Z, Y, X) uint64 from affinities (C >= 3, Z, Y, X), channels z, y, x first.

    In 3-D, boundaries are where the mean of the first three channels is low. The lsd code averages
    all channels; with long-range affinities, edges of 9 voxels would then shape the boundary. Its
    agglomeration uses three channels, and here both steps do. `in_xy`: the mean of y and x, section
    by section; ids continue from section to section.
    """
    shape = tuple(affinities.shape)
    if not isinstance(affinities, np.ndarray) or len(shape) != 4 or shape[0] < 3:
        raise DataError(
            "affinities must be an array (channels, z, y, x) with the channels z, y, x first, not "
            f"{type(affinities).__name__} {shape}"
        )
    threshold = 0.5 * highest_value(affinities)
    if in_xy:
        return _flood_sections(mean_of_channels(affinities[1:3]), threshold)
    return flood(mean_of_channels(affinities[:3]) > threshold)


def drop_weak(
    affinities: np.ndarray, fragments: np.ndarray, least: float, *, in_xy: bool
) -> np.ndarray:
    """`fragments` (Z, Y, X) without those whose mean affinity, in [0, 1], is below `least`.

    In 3-D the mean of channels z, y and x; with `in_xy` that of y and x, from which the fragments
    were made (the lsd code takes z and y there, by a slice that is off by one).
    """
    channels = affinities[1:3] if in_xy else affinities[:3]
    mean = mean_of_channels(channels) / np.float32(highest_value(affinities))
    count = int(fragments.max(initial=0))
    flat = fragments.ravel().astype(np.int64)
    sizes = np.bincount(flat, minlength=count + 1)
    sums = np.bincount(flat, weights=mean.ravel(), minlength=count + 1)
    keep = sums >= least * sizes
    return np.where(keep[flat].reshape(fragments.shape), fragments, np.uint64(0))


def renumber(fragments: np.ndarray) -> np.ndarray:
    """The fragments with ids 1 ... n, uint64, in the order of their first voxels; 0 stays 0."""
    numbered, _ = fastremap.renumber(np.ascontiguousarray(fragments), preserve_zero=True)
    return numbered.astype(np.uint64)


def runs_of(fragments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids of runs of equal voxels, one after the other, and the runs' lengths, both (R,).

    Of an array of any shape that is not empty. There are far fewer runs than voxels.
    """
    flat = fragments.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    return flat[starts], np.diff(starts, append=len(flat))


def compact_ids(fragments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids of fragments (any shape), ascending after a 0, and each voxel's row of them."""
    runs, lengths = runs_of(fragments)
    ids, rows = np.unique(np.append(np.uint64(0), runs), return_inverse=True)
    return ids, np.repeat(rows[1:].astype(np.int32), lengths).reshape(fragments.shape)
