"""The geometric augmentation steps of a network as one map from output voxels to the source.

Steps are applied to the data in order, so a voxel of the result is traced back through the last
step first. Data is sampled once, at the composed coordinates; gunpowder resamples after each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retrace.augment.lsd import LsdAugmentation, Move
from retrace.augment.resample import Coordinates
from retrace.config.families import LSD
from retrace.config.lsd_network import AugmentStep
from retrace.geometry import Triple, VoxelBox, triple

LATTICE = 9
"""Points per axis in y and x (every section in z) at which `Warp.reach` evaluates the map."""


@dataclass(frozen=True)
class Warp:
    """Steps, the last one first, each with the first voxel of its output."""

    steps: tuple[tuple[Triple, Move], ...]

    def source(self, points: Coordinates) -> Coordinates:
        """Source coordinates float32 of output `points`, voxels; rows that broadcast."""
        for origin, step in self.steps:
            inside = _moved(points, [-begin for begin in origin])
            points = _moved(step.source(inside), origin)
        return points

    def reach(self, box: VoxelBox) -> VoxelBox:
        """The box of source voxels that `box` of the output is sampled from, from a lattice."""
        axes = [np.arange(box.offset[0], box.end[0], dtype=np.float32)]
        for axis in (1, 2):
            axes.append(np.linspace(box.offset[axis], box.end[axis] - 1, LATTICE, dtype=np.float32))
        return bounding_box(self.source(grid_of([torch.from_numpy(axis) for axis in axes])))


def _moved(points: Coordinates, by: Sequence[int]) -> Coordinates:
    """`points` moved by whole voxels (z, y, x)."""
    return [row + steps if steps else row for row, steps in zip(points, by, strict=True)]


def bounding_box(points: Coordinates) -> VoxelBox:
    """The smallest box of voxels that interpolation at all `points` reads."""
    extremes = torch.stack([torch.stack(row.aminmax()) for row in points], dim=1)
    begin, end = torch.stack([extremes[0].floor(), extremes[1].ceil() + 1]).long().tolist()
    return VoxelBox(triple(begin), triple([e - b for b, e in zip(begin, end, strict=True)]))


def grid_of(axes: Sequence[Tensor]) -> Coordinates:
    """The rows (Z, 1, 1), (1, Y, 1) and (1, 1, X) of a grid with these coordinates per axis."""
    z, y, x = axes
    return z[:, None, None], y[None, :, None], x[None, None, :]


def voxel_grid(box: VoxelBox, device: torch.device) -> Coordinates:
    """Coordinates float32 of all voxels of `box`, as rows that broadcast to (Z, Y, X)."""
    return grid_of(
        [
            torch.arange(b, e, device=device, dtype=torch.float32)
            for b, e in zip(box.offset, box.end, strict=True)
        ]
    )


def part_of_grid(points: Coordinates, box: VoxelBox) -> Coordinates:
    """The points of a grid that are in `box`; rows of size 1 along an axis stay so."""
    parts = []
    for row in points:
        sides = zip(row.shape, box.slices(), strict=True)
        parts.append(row[tuple(side if size > 1 else slice(None) for size, side in sides)])
    return parts


def draw_warp(rng: np.random.Generator, steps: Sequence[AugmentStep], shape: Triple) -> Warp:
    """Draws the geometric steps of an augmentation for an output of `shape` voxels (z, y, x)."""
    kinds: dict[str, LsdAugmentation] = LSD.load_all("augmentations")
    drawn: list[tuple[Triple, Move]] = []
    origin: Triple = (0, 0, 0)
    for settings in reversed(steps):
        draw = kinds[settings.kinds[0]].draw
        if draw is None:
            continue
        step = draw(rng, shape, settings.settings)
        drawn.append((origin, step))
        begin, shape = step.bounds()
        origin = triple([o + b for o, b in zip(origin, begin, strict=True)])
    return Warp(tuple(drawn))


def change_grey_values(
    raw: Tensor, rng: np.random.Generator, steps: Sequence[AugmentStep]
) -> Tensor:
    """Applies the steps that change grey values to `raw` (Z, Y, X) in [0, 1], in their order."""
    kinds: dict[str, LsdAugmentation] = LSD.load_all("augmentations")
    for step in steps:
        change = kinds[step.kinds[0]].change
        if change is not None:
            raw = change(raw, rng, step.settings)
    return raw
