"""Sampling a block at real-valued coordinates; 0 outside the block."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def sample_linear(block: Tensor, points: Tensor) -> Tensor:
    """`block` (Z, Y, X) float at `points` (3, ...) z, y, x in voxels, trilinear; shape (...)."""
    sizes = block.shape
    rows = [points[axis] * (2 / max(sizes[axis] - 1, 1)) - 1 for axis in (2, 1, 0)]
    grid = torch.stack(rows, dim=-1).reshape(1, 1, 1, -1, 3)
    flat = functional.grid_sample(
        block[None, None], grid, mode="bilinear", padding_mode="zeros", align_corners=True
    )
    return flat.reshape(points.shape[1:])


def sample_nearest(block: Tensor, points: Tensor) -> Tensor:
    """`block` (Z, Y, X) of any type at the voxels nearest to `points` (3, ...); shape (...)."""
    index = torch.zeros(points.shape[1:], dtype=torch.int64, device=points.device)
    inside = torch.ones(points.shape[1:], dtype=torch.bool, device=points.device)
    for row, size in zip(points, block.shape, strict=True):
        nearest = torch.floor(row + 0.5).long()
        inside &= (nearest >= 0) & (nearest < size)
        index = index * size + nearest.clamp(0, size - 1)
    return block.reshape(-1)[index] * inside
