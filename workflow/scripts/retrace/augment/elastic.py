"""Elastic deformation, rotation and misaligned sections, as gunpowder's ElasticAugment.

Source: gunpowder at commit b38c515, and the package `augment` that it uses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor
from torch.nn import functional

from retrace.augment.resample import Coordinates
from retrace.geometry import Triple, triple

ROUNDING = 1e-3
"""Voxels by which rounding errors may move a coordinate away from a whole number."""


@dataclass(frozen=True)
class Elastic:
    """A map from output voxels to source coordinates: rotation, displacement, misalignment."""

    shape: Triple
    """Voxels (z, y, x) of the output."""
    angle: float
    """Rotation in the y/x plane about the centre of the output, radians."""
    displacement: np.ndarray | None
    """(3, z, y, x) float32 voxels on a coarse grid whose corners are those of the output; linear in
    between. None: no deformation."""
    shifts: np.ndarray
    """(Z, 2) voxels that each section is moved in y and x."""
    source_box: tuple[Triple, Triple]
    """First voxel and shape of a box that holds all source coordinates."""

    def source(self, points: Coordinates) -> Coordinates:
        """Source coordinates float32 of output `points`, voxels; rows that broadcast."""
        rows = list(rotate_points(points, self.shape, self.angle))
        device = rows[0].device
        if self.displacement is not None:
            moved = np.flatnonzero(self.displacement.any(axis=(1, 2, 3))).tolist()
            nodes = torch.from_numpy(self.displacement[moved]).to(device)
            for axis, offset in zip(moved, _interpolate(nodes, points, self.shape), strict=True):
                rows[axis] = offset.add_(rows[axis])
        if self.shifts.any():
            shifts = torch.from_numpy(self.shifts).to(device, torch.float32)
            section = points[0].round().long().clamp_(0, self.shape[0] - 1)
            for axis in (1, 2):
                rows[axis] = rows[axis] + shifts[:, axis - 1][section]
        return rows

    def bounds(self) -> tuple[Triple, Triple]:
        """First voxel and shape of a box that holds all source coordinates."""
        return self.source_box


def rotate_points(points: Coordinates, shape: Sequence[int], angle: float) -> Coordinates:
    """`points` rotated by `angle` (rad) in y/x about the centre of `shape` voxels."""
    centre = [(n - 1) / 2 for n in shape]
    y, x = points[1] - centre[1], points[2] - centre[2]
    cos, sin = math.cos(angle), math.sin(angle)
    return points[0], centre[1] + cos * y + sin * x, centre[2] - sin * y + cos * x


def _interpolate(nodes: Tensor, points: Coordinates, shape: Triple) -> Tensor:
    """Linear interpolation (C, Z, Y, X) of the grid `nodes` (C, z, y, x) at `points`.

    Along an axis it is a product with a matrix that has two entries per row. The points of a grid
    take three such products; others are interpolated one by one.
    """
    axes = _axes_of_rows(points)
    if axes is None:
        return _interpolate_each(nodes, torch.broadcast_tensors(*points), shape)
    for axis in (2, 1, 0):
        weights = _linear_weights(points[axis].flatten(), shape[axis], nodes.shape[1 + axis])
        nodes = torch.tensordot(weights, nodes, ([1], [1 + axis])).movedim(0, 1 + axis)
    order = [1 + axes.index(axis) for axis in range(3)]
    return nodes.permute(0, *order).contiguous()


def _axes_of_rows(points: Coordinates) -> list[int] | None:
    """The axis along which each row varies; None unless there is one for each, all different."""
    varying = [[a for a in range(row.ndim) if row.shape[a] > 1] for row in points]
    used = [axis for axes in varying for axis in axes]
    if points[0].ndim != 3 or max(map(len, varying)) > 1 or len(set(used)) < len(used):
        return None
    free = iter(sorted({0, 1, 2} - set(used)))
    return [axes[0] if axes else next(free) for axes in varying]


def _linear_weights(row: Tensor, size: int, count: int) -> Tensor:
    """Weights (N, count) of `count` nodes, the outer ones at 0 and `size` - 1, at `row` (N,)."""
    where = (row.double() * ((count - 1) / max(size - 1, 1))).clamp(0, count - 1)
    nodes = torch.arange(count, device=row.device)
    return (1 - (where[:, None] - nodes).abs()).clamp(min=0).float()


def _interpolate_each(nodes: Tensor, points: Coordinates, shape: Triple) -> Tensor:
    scale = [2 / max(n - 1, 1) for n in shape]
    where = torch.stack([points[axis] * scale[axis] - 1 for axis in (2, 1, 0)], dim=-1)
    flat = functional.grid_sample(
        nodes[None],
        where.reshape(1, 1, 1, -1, 3),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return flat.reshape(len(nodes), *points[0].shape)


def _displacement(
    rng: np.random.Generator,
    shape: Triple,
    control_spacing: Sequence[float],
    jitter_sigma: Sequence[float],
    nodes: Triple,
) -> np.ndarray | None:
    """Displacements (3, *nodes) voxels: Gaussian at control points, cubic splines between them."""
    points = [max(1, round(n / s)) for n, s in zip(shape, control_spacing, strict=True)]
    if max(points) == 1 or not any(jitter_sigma):
        return None
    axes = [np.linspace(0, p - 1, n) for p, n in zip(points, nodes, strict=True)]
    where = np.meshgrid(*axes, indexing="ij")
    result = np.zeros((3, *nodes), dtype=np.float32)
    for axis in range(3):
        if jitter_sigma[axis] > 0:
            control = rng.normal(scale=jitter_sigma[axis], size=points)
            result[axis] = map_coordinates(control, where, order=3, mode="mirror")
    return result


def _source_box(
    shape: Triple, nodes: Triple, angle: float, displacement: np.ndarray | None, shifts: np.ndarray
) -> tuple[Triple, Triple]:
    """`Elastic.source_box`; extremes are at the nodes, because the map is linear between them."""
    axes = [torch.linspace(0, n - 1, count) for n, count in zip(shape, nodes, strict=True)]
    rows = rotate_points(torch.meshgrid(*axes, indexing="ij"), shape, angle)
    source = torch.stack(tuple(rows)).numpy()
    if displacement is not None:
        source = source + displacement
    low, high = source.min(axis=(1, 2, 3)), source.max(axis=(1, 2, 3))
    low[1:] += shifts.min(axis=0)
    high[1:] += shifts.max(axis=0)
    begin = np.floor(low + ROUNDING).astype(int)
    end = np.ceil(high - ROUNDING).astype(int) + 1
    return triple(begin.tolist()), triple((end - begin).tolist())


def draw_shifts(
    rng: np.random.Generator,
    sections: int,
    *,
    slip_probability: float,
    shift_probability: float,
    max_misalign: int,
) -> np.ndarray:
    """Misalignment (sections, 2) in y and x, voxels, each component up to `max_misalign`.

    A slip moves a single section, a shift that section and all after it.
    """
    chance = rng.random(sections)
    offset = rng.integers(-max_misalign, max_misalign, size=(sections, 2), endpoint=True)
    slip = chance < slip_probability
    shift = ~slip & (chance < slip_probability + shift_probability)
    following = np.cumsum(offset * shift[:, None], axis=0)
    return np.where(slip[:, None], offset, following)


def draw_elastic(
    rng: np.random.Generator,
    shape: Triple,
    *,
    control_spacing: Sequence[float],
    jitter_sigma: Sequence[float],
    rotation: tuple[float, float],
    slip_probability: float,
    shift_probability: float,
    max_misalign: int,
    subsample: int,
) -> Elastic:
    """Draws an elastic deformation of an output of `shape` voxels (z, y, x).

    `control_spacing` and `jitter_sigma` (z, y, x): distance of the control points and standard
    deviation of their displacement, voxels. `rotation`: smallest and largest angle, radians.
    `subsample`: the displacement grid is coarser by this factor. The others: see `draw_shifts`.
    """
    nodes = triple([max(2, n // subsample) for n in shape])
    angle = float(rng.uniform(*rotation))
    displacement = _displacement(rng, shape, control_spacing, jitter_sigma, nodes)
    shifts = draw_shifts(
        rng,
        shape[0],
        slip_probability=slip_probability,
        shift_probability=shift_probability,
        max_misalign=max_misalign,
    )
    box = _source_box(shape, nodes, angle, displacement, shifts)
    return Elastic(shape, angle, displacement, shifts, box)
