"""Local histogram equalisation of sections, fast enough for training.

SEAMLeSS's normalizer.py uses skimage's rank filter with a disk of radius 256 // (mip + 1): 2.6 s
for 1024 x 1024 pixels at mip 5, 5.5 s at mip 2. Here the histograms of disks are computed on a grid
of cells a third of the radius wide, and ranks are interpolated between cells. The result differs
from the filter's by a few grey values of 255.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from retrace.compiled import compiled

LEVELS = 256
CELLS = 3
"""Cells per radius."""
DARKEST = 1 / 255
"""Value of the darkest pixel; 0 is reserved for pixels that were not imaged. (SEAMLeSS computes
this value too, but does not use it.)"""


def radius_at(mip: int) -> int:
    """Radius of the disk, pixels, for sections of a mip."""
    return max(1, 256 // (mip + 1))


def normalise_contrast(sections: Tensor, radius: int) -> Tensor:
    """Sections (..., H, W) in [0, 1], each locally equalised to [1/255, 1].

    Pixels of 0 stay 0 and are ignored; a constant section becomes 1/255.
    """
    flat = sections.reshape(-1, *sections.shape[-2:])
    even = [_stretched(equalise(_stretched(section), radius)) for section in flat]
    return torch.stack(even).reshape(sections.shape)


def _stretched(section: Tensor) -> Tensor:
    """A section (H, W) whose pixels above 0 are scaled linearly to [DARKEST, 1]."""
    valid = section > 0
    high = section.max()
    if not high > 0:
        return section
    low = torch.where(valid, section, high).min()
    scaled = (section - low) / (high - low).clamp_min(1e-6) * (1 - DARKEST) + DARKEST
    return torch.where(valid, scaled, 0)


def equalise(section: Tensor, radius: int) -> Tensor:
    """Local ranks (H, W): the fraction of pixels within `radius` that are no brighter.

    Pixels of 0 stay 0 and are ignored.
    """
    level = (section * (LEVELS - 1)).round().clamp_(0, LEVELS - 1).to(torch.uint8).numpy()
    valid, cell = (section > 0).numpy(), max(1, radius // CELLS)
    table = _cumulated(level, valid, cell, radius)
    rows, columns = (
        _neighbours(pixels, cells, cell)
        for pixels, cells in zip(level.shape, table.shape[1:], strict=True)
    )
    return torch.from_numpy(_interpolated(table, level, valid, *rows, *columns))


def _cumulated(level: np.ndarray, valid: np.ndarray, cell: int, radius: int) -> np.ndarray:
    """Cumulative histogram of the valid pixels around each cell, (LEVELS, rows, columns)."""
    counts = torch.from_numpy(_histograms(level, valid, cell))
    kernel = disk_of_cells(cell, radius)
    padding = kernel.shape[-1] // 2
    # Levels as channels: on a CPU torch is faster with many channels than with many images.
    around = functional.conv2d(
        counts[None],
        kernel.expand(LEVELS, 1, *kernel.shape),
        padding=padding,
        groups=LEVELS,
    )
    return around[0].cumsum(0).numpy()


@compiled
def _histograms(level: np.ndarray, valid: np.ndarray, cell: int) -> np.ndarray:
    """Valid pixels of each level in each cell, (LEVELS, rows, columns) float32."""
    height, width = level.shape
    counts = np.zeros((LEVELS, -(-height // cell), -(-width // cell)), np.float32)
    for y in range(height):
        for x in range(width):
            if valid[y, x]:
                counts[level[y, x], y // cell, x // cell] += 1
    return counts


def disk_of_cells(cell: int, radius: int) -> Tensor:
    """Fraction of each cell within `radius` of the centre of the central cell, (K, K)."""
    reach = (radius + cell // 2) // cell + 1
    side = (2 * reach + 1) * cell
    axis = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    inside = (axis[:, None] ** 2 + axis[None, :] ** 2 <= (radius + 0.5) ** 2).float()
    return functional.avg_pool2d(inside[None, None], cell)[0, 0]


@compiled
def _interpolated(
    table: np.ndarray,
    level: np.ndarray,
    valid: np.ndarray,
    rows: np.ndarray,
    row_weights: np.ndarray,
    columns: np.ndarray,
    column_weights: np.ndarray,
) -> np.ndarray:
    """Each pixel's rank (H, W), interpolated between the four cells around it; 0 if invalid."""
    ranks = np.zeros(level.shape, np.float32)
    totals = table[-1]
    for y in range(level.shape[0]):
        for x in range(level.shape[1]):
            if not valid[y, x]:
                continue
            darker, counted = np.float32(0), np.float32(0)
            for i in range(2):
                for j in range(2):
                    row, column = rows[i, y], columns[j, x]
                    weight = row_weights[i, y] * column_weights[j, x]
                    darker += weight * table[level[y, x], row, column]
                    counted += weight * totals[row, column]
            ranks[y, x] = darker / max(counted, np.float32(1e-6))
    return ranks


def _neighbours(pixels: int, cells: int, cell: int) -> tuple[np.ndarray, np.ndarray]:
    """The two cells (2, pixels) whose centres enclose each pixel of an axis, and their weights."""
    place = np.clip((np.arange(pixels, dtype=np.float32) + 0.5) / cell - 0.5, 0, cells - 1)
    first = np.floor(place).astype(np.int64)
    second = np.minimum(first + 1, cells - 1)
    fraction = (place - first).astype(np.float32)
    return np.stack([first, second]), np.stack([1 - fraction, fraction])
