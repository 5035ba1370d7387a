"""Squared distances to boundaries, as whole numbers, and their maxima within a window.

Equal to scipy's Euclidean distance transform, squared, and to its maximum filter.
"""

from __future__ import annotations

import numpy as np

from retrace.compiled import compiled

FAR = 1 << 30
"""Squared distance where no boundary is found yet, voxels^2; FAR + FAR still fits into int32."""
_TILE = 64
"""Voxels along x that are computed together, so that they stay in the nearest cache."""


def squared_distances(inside: np.ndarray) -> np.ndarray:
    """Squared distance (Z, Y, X) int32 of each voxel to the nearest one that is not `inside`,
    voxels^2, of a boolean array (Z, Y, X) with at least one such voxel."""
    first, second = np.empty(inside.shape, np.int32), np.empty(inside.shape, np.int32)
    _along_x(inside, first)
    _along_y(first, second)
    _along_z(second, first)
    return first


def window_maxima(values: np.ndarray, window: int) -> np.ndarray:
    """The maximum of `values` (Z, Y, X) >= 0 within a cube of `window` voxels around each voxel.

    As scipy places it: an even window reaches further to lower indices.
    """
    before, after = window // 2, (window + 1) // 2
    first, second = np.empty_like(values), np.empty_like(values)
    _maxima_along_x(values, first, before, after)
    _maxima_along(first, second, 1, before, after)
    _maxima_along(second, first, 0, before, after)
    return first


@compiled
def _along_x(inside: np.ndarray, out: np.ndarray) -> None:
    depth, height, width = inside.shape
    for z in range(depth):
        for y in range(height):
            distance = FAR
            for x in range(width):
                distance = min(distance + 1, FAR) if inside[z, y, x] else 0
                out[z, y, x] = distance
            distance = FAR
            for x in range(width - 1, -1, -1):
                distance = min(distance + 1, int(out[z, y, x]))
                out[z, y, x] = min(distance * distance, FAR)


@compiled
def _along_y(values: np.ndarray, out: np.ndarray) -> None:
    depth, height, width = values.shape
    for z in range(depth):
        for x in range(0, width, _TILE):
            _lowest(values, out, z * height * width + x, width, height, min(_TILE, width - x))


@compiled
def _along_z(values: np.ndarray, out: np.ndarray) -> None:
    depth, height, width = values.shape
    for y in range(height):
        for x in range(0, width, _TILE):
            _lowest(values, out, y * width + x, height * width, depth, min(_TILE, width - x))


@compiled
def _lowest(
    values: np.ndarray, out: np.ndarray, start: int, step: int, count: int, tile: int
) -> None:
    """The least values[i] + (i - j)^2 over rows i, for each row j of a tile, as row j of `out`.

    A tile has `count` rows, `step` apart, of `tile` voxels each. Rows are compared from near to
    far, until no further one can be lower.
    """
    source, target = values.reshape(-1), out.reshape(-1)
    best = np.empty(_TILE, values.dtype)
    for row in range(count):
        at = start + row * step
        highest = source[at]
        for i in range(tile):
            best[i] = source[at + i]
            highest = max(highest, best[i])
        away = 1
        while away * away < highest and (away <= row or away < count - row):
            # At an end of the axis the only neighbour counts twice, which changes nothing.
            low = at - away * step if away <= row else at + away * step
            high = at + away * step if away < count - row else low
            square = values.dtype.type(away * away)
            highest = values.dtype.type(0)
            for i in range(tile):
                value = min(best[i], min(source[low + i], source[high + i]) + square)
                best[i] = value
                highest = max(highest, value)
            away += 1
        for i in range(tile):
            target[at + i] = best[i]


@compiled
def _maxima_along_x(values: np.ndarray, out: np.ndarray, before: int, after: int) -> None:
    depth, height, width = values.shape
    row = np.full(width + before + after, -1, values.dtype)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                row[before + x] = values[z, y, x]
                out[z, y, x] = row[before + x]
            for shift in range(before + after):
                for x in range(width):
                    out[z, y, x] = max(out[z, y, x], row[x + shift])


@compiled
def _maxima_along(values: np.ndarray, out: np.ndarray, axis: int, before: int, after: int) -> None:
    source, target = values.reshape(-1), out.reshape(-1)
    depth, height, width = values.shape
    count, step = (depth, height * width) if axis == 0 else (height, width)
    for line in range(depth * height):
        place = line // height if axis == 0 else line % height
        low, high = max(-before, -place), min(after, count - place)
        for x in range(line * width, (line + 1) * width, _TILE):
            end = min(x + _TILE, (line + 1) * width)
            for i in range(x, end):
                target[i] = source[i + low * step]
            for shift in range(low + 1, high):
                for i in range(x, end):
                    target[i] = max(target[i], source[i + shift * step])
