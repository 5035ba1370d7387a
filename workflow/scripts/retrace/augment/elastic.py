"""Elastic deformation as gunpowder's ElasticAugment (b38c515) and the package augment define it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor
from torch.nn import functional

from retrace.geometry import Triple, triple

ROUNDING = 1e-3
"""Voxels by which a coordinate may miss a whole number through rounding alone."""


@dataclass(frozen=True)
class Elastic:
    """Where each voxel of a frame is read from: turned, displaced, its section misaligned.

    `angle` turns about the frame's centre in y/x. `displacement` (3, z, y, x) float32, voxels, lies
    on a coarse grid whose corners are the frame's corners and is linear in between; may be None.
    `shifts` (Z, 2) is how far each section is moved in y and x. `source_box` holds all source
    coordinates, as first voxel and shape.
    """

    shape: Triple
    angle: float
    displacement: np.ndarray | None
    shifts: np.ndarray
    source_box: tuple[Triple, Triple]

    def source(self, points: Tensor) -> Tensor:
        """Source coordinates, (3, ...) float32, of `points` (3, ...) given in the frame."""
        result = rotate(points, self.shape, self.angle)
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


def rotate(points: Tensor, shape: Sequence[int], angle: float) -> Tensor:
    """`points` (3, ...) turned by `angle` in y/x about the centre of a block of `shape` voxels."""
    centre = [(n - 1) / 2 for n in shape]
    y, x = points[1] - centre[1], points[2] - centre[2]
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.stack((points[0], centre[1] + cos * y + sin * x, centre[2] - sin * y + cos * x))


def _interpolate(nodes: Tensor, points: Tensor, shape: Triple) -> Tensor:
    """Values of the node grid at `points`, linear, exact at the nodes; (3, ...)."""
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
    rng: np.random.Generator, shape: Triple, step: Mapping[str, Any], nodes: Triple
) -> np.ndarray | None:
    """Displacements (3, *nodes): Gaussian at the control points, cubic splines between them."""
    spacing, sigma = step["control_spacing"], step["jitter_sigma"]
    points = [max(1, round(n / s)) for n, s in zip(shape, spacing, strict=True)]
    if max(points) == 1 or not any(sigma):
        return None
    axes = [np.linspace(0, p - 1, n) for p, n in zip(points, nodes, strict=True)]
    where = np.meshgrid(*axes, indexing="ij")
    result = np.zeros((3, *nodes), dtype=np.float32)
    for axis in range(3):
        if sigma[axis] > 0:
            control = rng.normal(scale=sigma[axis], size=points)
            result[axis] = map_coordinates(control, where, order=3, mode="mirror")
    return result


def _source_box(
    shape: Triple, nodes: Triple, angle: float, displacement: np.ndarray | None, shifts: np.ndarray
) -> tuple[Triple, Triple]:
    """The extremes lie at nodes: between them everything is linear."""
    axes = [torch.linspace(0, n - 1, count) for n, count in zip(shape, nodes, strict=True)]
    source = rotate(torch.stack(torch.meshgrid(*axes, indexing="ij")), shape, angle).numpy()
    if displacement is not None:
        source = source + displacement
    low, high = source.min(axis=(1, 2, 3)), source.max(axis=(1, 2, 3))
    low[1:] += shifts.min(axis=0)
    high[1:] += shifts.max(axis=0)
    begin = np.floor(low + ROUNDING).astype(int)
    end = np.ceil(high - ROUNDING).astype(int) + 1
    return triple(begin.tolist()), triple((end - begin).tolist())


def draw_shifts(rng: np.random.Generator, sections: int, step: Mapping[str, Any]) -> np.ndarray:
    """Misalignment (sections, 2) in y and x: a slip moves one section, a shift all that follow."""
    chance = rng.random(sections)
    far = step["max_misalign"]
    offset = rng.integers(-far, far, size=(sections, 2), endpoint=True)
    slip = chance < step["slip_probability"]
    shift = ~slip & (chance < step["slip_probability"] + step["shift_probability"])
    following = np.cumsum(offset * shift[:, None], axis=0)
    return np.where(slip[:, None], offset, following)


def draw_elastic(rng: np.random.Generator, shape: Triple, step: Mapping[str, Any]) -> Elastic:
    """Draws the `elastic` step of a recipe for a frame of `shape` voxels (z, y, x)."""
    nodes = triple([max(2, n // step["subsample"]) for n in shape])
    angle = float(rng.uniform(*step["rotation"]))
    displacement = _displacement(rng, shape, step, nodes)
    shifts = draw_shifts(rng, shape[0], step)
    box = _source_box(shape, nodes, angle, displacement, shifts)
    return Elastic(shape, angle, displacement, shifts, box)
