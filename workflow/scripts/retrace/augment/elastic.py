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


@dataclass(frozen=True)
class Elastic:
    """Where each voxel of a frame is read from.

    `nodes` (3, z, y, x) float32: source coordinates, voxels in the frame, on a coarse grid whose
    corners are the frame's corners; between nodes they are linear. `shifts` (Z, 2) int: how far
    each section is misaligned in y and x.
    """

    nodes: np.ndarray
    shifts: np.ndarray
    shape: Triple

    def source(self, points: Tensor) -> Tensor:
        """Source coordinates, (3, ...) float32, of `points` (3, ...) given in the frame."""
        nodes = torch.from_numpy(self.nodes).to(points.device)
        result = _interpolate(nodes, points, self.shape)
        shifts = torch.from_numpy(self.shifts).to(points.device, torch.float32)
        section = points[0].round().long().clamp(0, self.shape[0] - 1)
        result[1] += shifts[:, 0][section]
        result[2] += shifts[:, 1][section]
        return result

    def bounds(self) -> tuple[Triple, Triple]:
        """First voxel and shape of the smallest box that holds all source coordinates."""
        low = self.nodes.min(axis=(1, 2, 3))
        high = self.nodes.max(axis=(1, 2, 3))
        low[1:] += self.shifts.min(axis=0)
        high[1:] += self.shifts.max(axis=0)
        begin = np.floor(low + 1e-4).astype(int)
        end = np.ceil(high - 1e-4).astype(int) + 1
        return triple(begin.tolist()), triple((end - begin).tolist())


def _interpolate(nodes: Tensor, points: Tensor, shape: Triple) -> Tensor:
    """Values of the node grid at `points`, linear, exact at the nodes; (3, ...)."""
    scale = [2 / max(n - 1, 1) for n in shape]
    grid = torch.stack([points[axis] * scale[axis] - 1 for axis in (2, 1, 0)], dim=-1)
    flat = functional.grid_sample(
        nodes[None],
        grid.reshape(1, 1, 1, -1, 3),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return flat.reshape(points.shape)


def _coarse_axes(shape: Sequence[int], subsample: int) -> list[np.ndarray]:
    """Node positions per axis: every `subsample` voxels, both ends included."""
    return [np.linspace(0, n - 1, max(2, n // subsample)) for n in shape]


def _jitter(
    rng: np.random.Generator, shape: Sequence[int], step: Mapping[str, Any], nodes: Triple
) -> np.ndarray:
    """Displacements (3, *nodes): Gaussian at the control points, cubic splines between them."""
    spacing, sigma = step["control_spacing"], step["jitter_sigma"]
    points = [max(1, round(n / s)) for n, s in zip(shape, spacing, strict=True)]
    result = np.zeros((3, *nodes))
    if max(points) == 1:
        return result
    where = np.meshgrid(
        *(np.linspace(0, p - 1, n) for p, n in zip(points, nodes, strict=True)), indexing="ij"
    )
    for axis in range(3):
        if sigma[axis] > 0:
            control = rng.normal(scale=sigma[axis], size=points)
            result[axis] = map_coordinates(control, where, order=3, mode="mirror")
    return result


def rotate(points: np.ndarray, shape: Sequence[int], angle: float) -> np.ndarray:
    """`points` (3, ...) turned by `angle` in the y/x plane about the centre of a block, in voxels."""
    centre = [(n - 1) / 2 for n in shape]
    y, x = points[1] - centre[1], points[2] - centre[2]
    cos, sin = math.cos(angle), math.sin(angle)
    turned = (points[0], centre[1] + cos * y + sin * x, centre[2] - sin * y + cos * x)
    return np.stack(turned)


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
    axes = _coarse_axes(shape, step["subsample"])
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    angle = rng.uniform(*step["rotation"])
    nodes = rotate(grid, shape, angle) + _jitter(rng, shape, step, triple(grid.shape[1:]))
    shifts = draw_shifts(rng, shape[0], step)
    return Elastic(nodes.astype(np.float32), shifts, shape)
