"""Mirroring and transposing, as gunpowder's SimpleAugment; ELEKTRONN's flips are a case of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from retrace.augment.resample import Coordinates
from retrace.geometry import Triple, triple


@dataclass(frozen=True)
class Simple:
    """Axis a of the source runs along axis `order[a]` of the output, backwards if `mirrored[a]`.

    `shape`: the source box (z, y, x), voxels. Coordinates stay whole numbers.
    """

    order: Triple
    mirrored: tuple[bool, bool, bool]
    shape: Triple

    def source(self, points: Coordinates) -> Coordinates:
        """Source coordinates of output `points`, voxels; rows that broadcast."""
        rows = []
        for axis in range(3):
            row = points[self.order[axis]]
            rows.append(self.shape[axis] - 1 - row if self.mirrored[axis] else row)
        return rows

    def bounds(self) -> tuple[Triple, Triple]:
        """First voxel and shape of the source box."""
        return (0, 0, 0), self.shape

    def apply(self, block: Tensor) -> Tensor:
        """`block` (..., Z, Y, X) of the source's `shape`, flipped and transposed."""
        axes = [axis - 3 for axis in range(3) if self.mirrored[axis]]
        lead = list(range(block.ndim - 3))
        order = [self.order.index(axis) for axis in range(3)]
        return block.flip(axes).permute(*lead, *[len(lead) + axis for axis in order])


def draw_simple(
    rng: np.random.Generator, shape: Triple, *, mirror: Sequence[int], transpose: Sequence[int]
) -> Simple:
    """Draws mirroring and transposing for an output of `shape` (z, y, x).

    Axes in `mirror` (0 is z) are flipped with probability 1/2 each, those in `transpose` are
    randomly permuted.
    """
    order = np.arange(3)
    axes = sorted(transpose)
    order[axes] = rng.permutation(axes)
    coins = rng.random(3) < 0.5
    mirrored = [bool(coins[axis]) and axis in mirror for axis in range(3)]
    source = triple([shape[order[axis]] for axis in range(3)])
    return Simple(triple(order.tolist()), (mirrored[0], mirrored[1], mirrored[2]), source)


def draw_orientation(
    rng: np.random.Generator,
    shape: Triple,
    n_dim: int,
    *,
    anisotropic: bool,
    upright_x: bool = False,
) -> Simple:
    """Draws one of ELEKTRONN's orientations of a patch of `shape` (z, y, x).

    16 orientations of anisotropic volumes, 48 of isotropic ones. Sections (`n_dim` 2) have 8, in
    isotropic volumes of each of the three planes, and 2 if their x axis stays upright.
    Source: ELEKTRONN, elektronn/training/trainutils.py (flip) and CNNData.py.
    """
    if n_dim == 2 and upright_x:
        return draw_simple(rng, shape, mirror=[1], transpose=[])
    if n_dim == 2 and anisotropic:
        return draw_simple(rng, shape, mirror=[1, 2], transpose=[1, 2])
    transpose = [1, 2] if anisotropic else [0, 1, 2]
    return draw_simple(rng, shape, mirror=[0, 1, 2], transpose=transpose)
