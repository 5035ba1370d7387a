"""Warping as ELEKTRONN does it: rotation, shear, scale, perspective stretch and twist at once.

Source: ELEKTRONN, elektronn/training/warping.py. Every voxel of the result takes the value of the
nearest voxel of the source, also in images; what lies outside is 0. Angles are degrees.
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
    """One warp. `scale` (z, y, x), above 1 magnifies; `stretch` as ELEKTRONN numbers it: x by y,
    y by x, x by z, y by z."""

    rotation: float = 0.0
    shear: float = 0.0
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    stretch: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    twist: float = 0.0

    def coordinates(self, points: Tensor, middle: Sequence[float]) -> Tensor:
        """Source coordinates (3, ...) of `points` (3, ...), both z, y, x.

        `points` are counted from the middle of the source, which lies at `middle` voxels.
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
    """The middle of a block, voxels."""
    return tuple(size / 2 - 0.5 for size in shape)


def source_points(
    warp: BackwardWarp, source: Triple, output: Triple, device: torch.device | str = "cpu"
) -> Tensor:
    """Source voxel (3, Z, Y, X) float64 of each voxel of an output in the middle of the source.

    Rounded as the original does, towards 0 from half a voxel up.
    """
    middle = middle_of(source)
    axes = [
        torch.arange(out, device=device, dtype=torch.float64) - c + (size - out) // 2
        for size, out, c in zip(source, output, middle, strict=True)
    ]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return torch.trunc(warp.coordinates(points, middle) + 0.5)


def apply_warp(block: Tensor, warp: BackwardWarp, output: Triple) -> Tensor:
    """`block` (..., Z, Y, X) warped into (..., *output) of the same type."""
    source = triple(block.shape[-3:])
    points = source_points(warp, source, output, block.device)
    flat = block.reshape(-1, *source)
    warped = torch.stack([sample_nearest(part, points) for part in flat])
    return warped.reshape(*block.shape[:-3], *output)


def required_source(warp: BackwardWarp, output: Triple) -> Triple:
    """The least source (z, y, x) whose corners the warped output stays within."""
    middle = middle_of(output)
    corners = np.array(list(product(*((-c, c) for c in middle)))).T
    reached = warp.coordinates(torch.from_numpy(corners), middle).numpy()
    sizes = []
    for row, size in zip(reached, output, strict=True):
        below = math.floor(abs(min(row.min(), 0.0)))
        above = math.ceil(max(row.max() - size + 1, 0.0))
        sizes.append(size + 2 * max(below, above))
    return triple(sizes)


def draw_volume_warp(rng: np.random.Generator) -> BackwardWarp:
    """A warp of a 3-D patch; the rotation is limited so that with the twist it stays below 15."""
    shear = float(rng.uniform(-3, 3))
    twist = float(rng.uniform(-15, 15))
    rotation = min(15 - abs(twist), float(rng.uniform(0, 15)))
    x, y, z = (1 + 0.1 * rng.random(3)).tolist()
    return BackwardWarp(rotation, shear, (z, y, x), _four(rng, 0.1), twist)


def draw_section_warp(rng: np.random.Generator) -> BackwardWarp:
    """A warp of a 2-D patch; as in the original only y is scaled."""
    shear = float(rng.uniform(-3, 3))
    rotation = float(rng.uniform(-15, 15))
    y = 1 + 0.1 * float(rng.random())
    first, second = rng.uniform(-0.1, 0.1, 2).tolist()
    return BackwardWarp(rotation, shear, (1.0, y, 1.0), (first, second, 0.0, 0.0))


def draw_digits_warp(rng: np.random.Generator) -> BackwardWarp:
    """ELEKTRONN's warp of a batch of digits (N, Y, X), whose examples lie along z.

    Twist and the last two stretches make rotation and size differ from example to example.
    """
    shear = float(rng.uniform(-7, 7))
    twist = float(rng.uniform(-5, 5))
    x, y = (1 + 0.15 * rng.random(2)).tolist()
    return BackwardWarp(0.0, shear, (1.0, y, x), _four(rng, 0.25), twist)


def _four(rng: np.random.Generator, most: float) -> tuple[float, float, float, float]:
    a, b, c, d = rng.uniform(-most, most, 4).tolist()
    return a, b, c, d
