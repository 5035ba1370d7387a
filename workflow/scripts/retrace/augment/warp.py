"""The geometric steps of a recipe as one map from output voxels to source coordinates.

The steps of the list are applied to the data in order; a voxel of the result is therefore traced
back through the last step first. Data is read once, at the composed coordinates, where the original
resampled it after every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrace.augment.elastic import Elastic, draw_elastic
from retrace.augment.simple import Simple, draw_simple
from retrace.geometry import Triple, VoxelBox, triple

LATTICE = 9
"""Points per axis (all sections in z) at which the reach of a box is found on the CPU."""


@dataclass(frozen=True)
class Warp:
    """Steps from the last to the first, each with the first voxel of its frame."""

    steps: tuple[tuple[Triple, Elastic | Simple], ...]

    def source(self, points: Tensor) -> Tensor:
        """Source coordinates (3, ...) float32 of output coordinates `points` (3, ...)."""
        for origin, step in self.steps:
            begin = torch.tensor(origin, device=points.device, dtype=points.dtype)
            begin = begin.reshape(3, *[1] * (points.ndim - 1))
            points = step.source(points - begin) + begin
        return points

    def reach(self, box: VoxelBox) -> VoxelBox:
        """The box of source voxels that `box` of the output is read from, found on a lattice."""
        axes = [np.arange(box.offset[0], box.end[0], dtype=np.float32)]
        for axis in (1, 2):
            axes.append(np.linspace(box.offset[axis], box.end[axis] - 1, LATTICE, dtype=np.float32))
        points = torch.from_numpy(np.stack(np.meshgrid(*axes, indexing="ij")))
        return bounding_box(self.source(points))


def bounding_box(points: Tensor) -> VoxelBox:
    """The smallest box of voxels between which all `points` (3, ...) lie."""
    flat = points.reshape(3, -1)
    begin, end = torch.stack([flat.amin(1).floor(), flat.amax(1).ceil() + 1]).long().tolist()
    return VoxelBox(triple(begin), triple([e - b for b, e in zip(begin, end, strict=True)]))


def grid(box: VoxelBox, device: torch.device) -> Tensor:
    """Coordinates (3, Z, Y, X) float32 of all voxels of `box`."""
    axes = [
        torch.arange(b, e, device=device, dtype=torch.float32)
        for b, e in zip(box.offset, box.end, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def draw_warp(rng: np.random.Generator, steps: Sequence[Mapping[str, Any]], shape: Triple) -> Warp:
    """Draws all geometric steps of a recipe for an output of `shape` voxels (z, y, x)."""
    drawn: list[tuple[Triple, Elastic | Simple]] = []
    origin: Triple = (0, 0, 0)
    for entry in reversed(steps):
        step: Elastic | Simple
        if "elastic" in entry:
            step = draw_elastic(rng, shape, entry["elastic"])
        elif "simple" in entry:
            step = draw_simple(rng, shape, entry["simple"])
        else:
            continue
        drawn.append((origin, step))
        begin, shape = step.bounds()
        origin = triple([o + b for o, b in zip(origin, begin, strict=True)])
    return Warp(tuple(drawn))
