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

    def source(self, points: Tensor) -> Tensor:
        """Source coordinates (3, ...) float32 of output `points` (3, ...), voxels."""
        result = rotate_points(points, self.shape, self.angle)
        if self.displacement is not None:
            nodes = torch.from_numpy(self.displacement).to(points.device)
            result += _interpolate(nodes, points, self.shape)
        if self.shifts.any():
            shifts = torch.from_numpy(self.shifts).to(points.device, torch.float32)
            section = points[0].round().long().clamp_(0, self.shape[0] - 1)
            result[1] += shifts[:, 0][section]
            result[2] += shifts[:, 1][section]
        return result

    def bounds(self) -> tuple[Triple, Triple]:
        """First voxel and shape of a box that holds all source coordinates."""
        return self.source_box


def rotate_points(points: Tensor, shape: Sequence[int], angle: float) -> Tensor:
    """`points` (3, ...) rotated by `angle` (rad) in y/x about the centre of `shape` voxels."""
    centre = [(n - 1) / 2 for n in shape]
    y, x = points[1] - centre[1], points[2] - centre[2]
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.stack((points[0], centre[1] + cos * y + sin * x, centre[2] - sin * y + cos * x))


def _interpolate(nodes: Tensor, points: Tensor, shape: Triple) -> Tensor:
    """Linear interpolation (3, ...) of the grid `nodes` (3, z, y, x) at `points` (3, ...)."""
    scale = [2 / max(n - 1, 1) for n in shape]
    where = torch.stack([points[axis] * scale[axis] - 1 for axis in (2, 1, 0)], dim=-1)
    flat = functional.grid_sample(
        nodes[None],
        where.reshape(1, 1, 1, -1, 3),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return flat.reshape(points.shape)


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
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    source = rotate_points(grid, shape, angle).numpy()
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
