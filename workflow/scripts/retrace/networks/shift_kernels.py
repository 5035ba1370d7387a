"""Compiled loops over rows of feature maps: all shifts of maps, and means over windows.

Each fills the rows `first` to `stop`, exclusive, of its first array.
"""

from __future__ import annotations

import numpy as np

from retrace.compiled import compiled, inlined


@compiled
def standardise_rows(
    result: np.ndarray, maps: np.ndarray, shortest: float, first: int, stop: int
) -> None:
    """Writes `maps` (C, H, W) with mean 0 and length 1 over the channels of each pixel.

    A length below `shortest` counts as that.
    """
    channels, _, width = maps.shape
    mean, length = np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(first, stop):
        mean[:] = 0
        length[:] = 0
        for channel in range(channels):
            values = maps[channel, y]
            for x in range(width):
                mean[x] += values[x]
        for x in range(width):
            mean[x] /= np.float32(channels)
        for channel in range(channels):
            values = maps[channel, y]
            for x in range(width):
                apart = values[x] - mean[x]
                length[x] += apart * apart
        for x in range(width):
            length[x] = max(np.sqrt(length[x]), np.float32(shortest))
        for channel in range(channels):
            values, standard = maps[channel, y], result[channel, y]
            for x in range(width):
                standard[x] = (values[x] - mean[x]) / length[x]


@inlined
def _overlap(sums: np.ndarray, one: np.ndarray, other: np.ndarray, shift: int) -> None:
    """Adds one(x) other(x + shift), both (W,), to the sums (W,) wherever x + shift is inside."""
    width = len(sums)
    low, high = max(0, -shift), min(width, width - shift)
    total, left, right = sums[low:high], one[low:high], other[low + shift : high + shift]
    for x in range(len(total)):
        total[x] += left[x] * right[x]


@compiled
def multiply_shifts(
    costs: np.ndarray, moved: np.ndarray, centre: np.ndarray, radius: int, first: int, stop: int
) -> None:
    """Fills `costs` ((2 r + 1)^2, H, W) from maps (C, H, W)."""
    channels, height, _ = centre.shape
    side = 2 * radius + 1
    for y in range(first, stop):
        for shift in range(side * side):
            sums, row = costs[shift, y], y + shift // side - radius
            sums[:] = 0
            if 0 <= row < height:
                for channel in range(channels):
                    right = shift % side - radius
                    _overlap(sums, centre[channel, y], moved[channel, row], right)


@compiled
def sum_shifts(
    sums: np.ndarray,
    costs: np.ndarray,
    maps: np.ndarray,
    radius: int,
    sign: int,
    first: int,
    stop: int,
) -> None:
    """Fills the gradients `sums` (C, H, W) from those of the costs and the other factor `maps`.

    `sign`: 1 for the gradient of the centre, -1 for that of the moved maps, whose costs belong to
    the pixels of the centre.
    """
    channels, height, width = maps.shape
    side = 2 * radius + 1
    products = np.empty(width, np.float32)
    for y in range(first, stop):
        for channel in range(channels):
            sums[channel, y] = 0
        for shift in range(side * side):
            row, right = y + sign * (shift // side - radius), sign * (shift % side - radius)
            if not 0 <= row < height:
                continue
            for channel in range(channels):
                if sign > 0:
                    _overlap(sums[channel, y], costs[shift, y], maps[channel, row], right)
                else:
                    for x in range(width):
                        products[x] = costs[shift, row, x] * maps[channel, row, x]
                    _add_shifted(sums[channel, y], products, right)


@inlined
def _add_shifted(sums: np.ndarray, values: np.ndarray, shift: int) -> None:
    """Adds values(x + shift) to the sums, both (W,), wherever x + shift is inside."""
    width = len(sums)
    low, high = max(0, -shift), min(width, width - shift)
    total, moved = sums[low:high], values[low + shift : high + shift]
    for x in range(len(total)):
        total[x] += moved[x]


@compiled
def average_rows(means: np.ndarray, values: np.ndarray, radius: int, first: int, stop: int) -> None:
    """Fills rows of `means` (C, H, W) of `values`, see `cost_volume.window_means`."""
    channels, height, width = values.shape
    sums = np.zeros(width + 2 * radius, np.float32)
    inner = sums[radius : radius + width]
    for channel in range(channels):
        for y in range(first, stop):
            low, high = max(0, y - radius), min(height, y + radius + 1)
            inner[:] = 0
            for row in range(low, high):
                line = values[channel, row]
                for x in range(width):
                    inner[x] += line[x]
            mean = means[channel, y]
            mean[:] = 0
            for start in range(2 * radius + 1):
                moved = sums[start : start + width]
                for x in range(width):
                    mean[x] += moved[x]
            for x in range(width):
                inside = min(x + radius, width - 1) - max(x - radius, 0) + 1
                mean[x] /= np.float32((high - low) * inside)
