"""Compiled loops of max filters within sections, whose results are written in phases."""

from __future__ import annotations

import numpy as np

from retrace.compiled import compiled, inlined

NOWHERE = np.uint8(255)
"""Instead of the number of a voxel of the window: ReLU cut the value, its gradient goes nowhere."""


@inlined
def _copy(target: np.ndarray, source: np.ndarray) -> None:
    """`target[:] = source` without numba's check of overlap, which takes longer than the copy."""
    for i in range(len(source)):
        target[i] = source[i]


@inlined
def _raise(largest: np.ndarray, taps: np.ndarray, values: np.ndarray, number: np.uint8) -> None:
    """Takes over what is larger in `values`, and notes the number of this voxel of the window."""
    for i in range(len(largest)):
        value, best, tap = values[i], largest[i], taps[i]
        is_larger = (value > best) | (value != value)
        largest[i] = value if is_larger else best
        taps[i] = number if is_larger else tap


@inlined
def _cut(largest: np.ndarray, taps: np.ndarray) -> None:
    """ReLU of `largest`."""
    for i in range(len(largest)):
        best, tap = largest[i], taps[i]
        is_cut = best <= 0
        largest[i] = np.float32(0) if is_cut else best
        taps[i] = NOWHERE if is_cut else tap


@inlined
def _add_own(total: np.ndarray, given: np.ndarray, taps: np.ndarray, number: np.uint8) -> None:
    """Adds `given` where the window's largest value was its voxel `number`."""
    for i in range(len(given)):
        value = given[i]
        total[i] += value if taps[i] == number else np.float32(0)


@compiled
def filter_rows(
    result: np.ndarray,
    taps: np.ndarray,
    maps: np.ndarray,
    places: np.ndarray,
    window: tuple[int, int],
    rectify: bool,
    first: int,
    stop: int,
) -> None:
    """Writes the largest value of each window of `maps` (B, Z, Y, X, C), and where in it it was.

    `result`, `taps` (B', Z, ceil(Y' / sy), ceil(X' / sx), C): value, and number of the voxel in the
    window; zeros fill the phases up. `places` (B, sy, sx): where in B' a map's phases are.
    `rectify`: ReLU of the value. `first`, `stop`: of the B Z ceil(Y' / sy) sy rows. Of equal values
    the first counts.
    """
    _, depth, height, width, channels = maps.shape
    _, step_y, step_x = places.shape
    rows, columns = result.shape[2] * step_y, result.shape[3] * step_x
    high, wide = height - window[0] + 1, width - window[1] + 1
    largest, at = np.empty(wide * channels, np.float32), np.empty(wide * channels, np.uint8)
    pixels, numbers = largest.reshape(wide, channels), at.reshape(wide, channels)
    for row in range(first, stop):
        y, z, batch = row % rows, row // rows % depth, row // rows // depth
        if y < high:
            _copy(largest, maps[batch, z, y, :wide].reshape(-1))
            at[:] = 0
            for number in range(1, window[0] * window[1]):
                down, right = number // window[1], number % window[1]
                values = maps[batch, z, y + down, right : right + wide].reshape(-1)
                _raise(largest, at, values, np.uint8(number))
            if rectify:
                _cut(largest, at)
        for x in range(columns):
            place = places[batch, y % step_y, x % step_x]
            if y < high and x < wide:
                _copy(result[place, z, y // step_y, x // step_x], pixels[x])
                _copy(taps[place, z, y // step_y, x // step_x], numbers[x])
            else:
                result[place, z, y // step_y, x // step_x] = 0


@compiled
def spread_rows(
    result: np.ndarray,
    gradient: np.ndarray,
    taps: np.ndarray,
    places: np.ndarray,
    window: tuple[int, int],
    first: int,
    stop: int,
) -> None:
    """Writes the gradient (B, Z, Y, X, C) of `filter_rows`'s maps from that of its result.

    `first`, `stop`: of the B Z Y rows. Each voxel adds up what its windows give it, in their order.
    """
    _, depth, height, width, channels = result.shape
    _, step_y, step_x = places.shape
    high, wide = height - window[0] + 1, width - window[1] + 1
    given, at = np.empty(wide * channels, np.float32), np.empty(wide * channels, np.uint8)
    pixels, numbers = given.reshape(wide, channels), at.reshape(wide, channels)
    for row in range(first, stop):
        y, z, batch = row % height, row // height % depth, row // height // depth
        total = result[batch, z, y].reshape(-1)
        total[:] = 0
        for down in range(max(0, y - window[0] + 1), min(y + 1, high)):
            for x in range(wide):
                place = places[batch, down % step_y, x % step_x]
                _copy(pixels[x], gradient[place, z, down // step_y, x // step_x])
                _copy(numbers[x], taps[place, z, down // step_y, x // step_x])
            for right in range(window[1] - 1, -1, -1):
                number = np.uint8((y - down) * window[1] + right)
                _add_own(total[right * channels :], given, at, number)
