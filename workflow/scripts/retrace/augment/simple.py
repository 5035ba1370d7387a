"""Mirroring and transposing as gunpowder's SimpleAugment defines them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrace.geometry import Triple, triple


@dataclass(frozen=True)
class Simple:
    """Axis a of the source runs along axis `order[a]` of the frame, backwards where mirrored.

    `shape` is that of the source box (z, y, x); coordinates stay whole numbers.
    """

    order: Triple
    mirrored: tuple[bool, bool, bool]
    shape: Triple

    def source(self, points: Tensor) -> Tensor:
        """Source coordinates, (3, ...), of `points` (3, ...) given in the frame."""
        rows = []
        for axis in range(3):
            row = points[self.order[axis]]
            rows.append(self.shape[axis] - 1 - row if self.mirrored[axis] else row)
        return torch.stack(rows)

    def bounds(self) -> tuple[Triple, Triple]:
        """First voxel and shape of the source box."""
        return (0, 0, 0), self.shape


def draw_simple(rng: np.random.Generator, shape: Triple, step: Mapping[str, Any]) -> Simple:
    """Draws the `simple` step of a recipe: each named axis mirrored with probability 1/2, the
    named axes in a random order."""
    order = np.arange(3)
    axes = sorted(step["transpose"])
    order[axes] = rng.permutation(axes)
    coins = rng.random(3) < 0.5
    mirrored = [bool(coins[axis]) and axis in step["mirror"] for axis in range(3)]
    source = triple([shape[order[axis]] for axis in range(3)])
    return Simple(triple(order.tolist()), (mirrored[0], mirrored[1], mirrored[2]), source)
