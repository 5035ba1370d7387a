"""ELEKTRONN's warp: rotation, shear, scale, perspective stretch and twist in one backward map.

Source: ELEKTRONN, elektronn/training/warping.py. Each output voxel takes the value of the nearest
source voxel, in images too, and 0 outside the source. Angles are in degrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from retrace.augment.resample import sample_nearest
from retrace.geometry import Triple, triple


@dataclass(frozen=True)
class BackwardWarp:
    """The parameters of one warp."""

    rotation: float = 0.0
    """Degrees in the y/x plane."""
    shear: float = 0.0
    """Degrees."""
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """z, y, x; above 1 magnifies."""
    stretch: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Change of magnification, in ELEKTRONN's order: x along y, y along x, x along z, y along z."""
    twist: float = 0.0
    """Degrees that the rotation changes from the middle to the last section."""

    def coordinates(self, points: Tensor, middle: Sequence[float]) -> Tensor:
        """Source coordinates (3, ...) z, y, x in voxels, of output `points` (3, ...).

        `points` are relative to the middle of the source, which is at `middle` (z, y, x) voxels.
        """
        z, y, x = points
        c_z, c_y, c_x = (max(c, 1e-9) for c in middle)  # an axis of one voxel has no extent
        t = self.stretch
        s_z, s_y, s_x = self.scale
        wide = x * (1 / s_x + t[0] / c_x * y + t[2] / c_z * z)
        high = y * (1 / s_y + t[1] / c_y * x + t[3] / c_z * z)
        turn = math.radians(self.rotation) + z * (math.radians(self.twist) / c_z)
        shear = math.radians(self.shear)
        u = wide * torch.cos(turn - shear) - high * torch.sin(turn + shear) + middle[2]
        v = high * torch.cos(turn + shear) + wide * torch.sin(turn - shear) + middle[1]
        return torch.stack((z / s_z + middle[0], v, u))


def middle_of(shape: Sequence[int]) -> tuple[float, ...]:
    """Coordinates (z, y, x) of the middle of a block of `shape` voxels."""
    return tuple(size / 2 - 0.5 for size in shape)


def source_points(
    warp: BackwardWarp, source: Triple, output: Triple, device: torch.device | str = "cpu"
) -> Tensor:
    """Source voxel (3, Z, Y, X) float64 of each voxel of an output centred in the source.

    `source` and `output` are shapes (z, y, x). Rounded as in ELEKTRONN: trunc(coordinate + 0.5).
    """
    middle = middle_of(source)
    axes = [
        torch.arange(out, device=device, dtype=torch.float64) - c + (size - out) // 2
        for size, out, c in zip(source, output, middle, strict=True)
    ]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return torch.trunc(warp.coordinates(points, middle) + 0.5)


def apply_warp(block: Tensor, warp: BackwardWarp, output: Triple) -> Tensor:
    """`block` (..., Z, Y, X) warped to (..., *output), of the same type."""
    source = triple(block.shape[-3:])
    points = source_points(warp, source, output, block.device)
    flat = block.reshape(-1, *source)
    warped = torch.stack([sample_nearest(part, points) for part in flat])
    return warped.reshape(*block.shape[:-3], *output)


def required_source(warp: BackwardWarp, output: Triple) -> Triple:
    """The smallest source shape (z, y, x) that holds the corners of the warped output."""
    middle = middle_of(output)
    corners = np.array(list(product(*((-c, c) for c in middle)))).T
    source = warp.coordinates(torch.from_numpy(corners), middle).numpy()
    sizes = []
    for row, size in zip(source, output, strict=True):
        below = math.floor(abs(min(row.min(), 0.0)))
        above = math.ceil(max(row.max() - size + 1, 0.0))
        sizes.append(size + 2 * max(below, above))
    return triple(sizes)


def draw_volume_warp(rng: np.random.Generator) -> BackwardWarp:
    """Draws a warp of a 3-D patch; rotation and twist together are at most 15 degrees."""
    shear = float(rng.uniform(-3, 3))
    twist = float(rng.uniform(-15, 15))
    rotation = min(15 - abs(twist), float(rng.uniform(0, 15)))
    x, y, z = (1 + 0.1 * rng.random(3)).tolist()
    return BackwardWarp(rotation, shear, (z, y, x), _draw_stretch(rng, 0.1), twist)


def draw_section_warp(rng: np.random.Generator) -> BackwardWarp:
    """Draws a warp of a 2-D patch; as in ELEKTRONN only y is scaled."""
    shear = float(rng.uniform(-3, 3))
    rotation = float(rng.uniform(-15, 15))
    y = 1 + 0.1 * float(rng.random())
    first, second = rng.uniform(-0.1, 0.1, 2).tolist()
    return BackwardWarp(rotation, shear, (1.0, y, 1.0), (first, second, 0.0, 0.0))


def draw_digits_warp(rng: np.random.Generator) -> BackwardWarp:
    """Draws ELEKTRONN's warp of a batch of digits (N, Y, X), with the examples along z.

    Twist and stretch along z make rotation and size differ between examples.
    """
    shear = float(rng.uniform(-7, 7))
    twist = float(rng.uniform(-5, 5))
    x, y = (1 + 0.15 * rng.random(2)).tolist()
    return BackwardWarp(0.0, shear, (1.0, y, x), _draw_stretch(rng, 0.25), twist)


def _draw_stretch(rng: np.random.Generator, most: float) -> tuple[float, float, float, float]:
    a, b, c, d = rng.uniform(-most, most, 4).tolist()
    return a, b, c, d
