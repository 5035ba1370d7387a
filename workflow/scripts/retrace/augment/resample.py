"""Sampling a block at real-valued coordinates; 0 outside the block.

On a CPU, float32 blocks and int32 labels are sampled by compiled loops over the voxels of the
result, which release Python's lock, so that batches are prepared while the network computes.
torch's operations would write and read an array of the result's size at each step of the formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from retrace.compiled import compiled
from retrace.geometry import Triple

Coordinates = Sequence[Tensor] | Tensor
"""Rows z, y, x of coordinates, voxels; they broadcast against each other. A row that varies along
one axis only has size 1 along the others. A tensor (3, ...) is a case of it."""
ORIGIN: Triple = (0, 0, 0)


def sample_linear(block: Tensor, points: Coordinates, origin: Triple = ORIGIN) -> Tensor:
    """`block` (Z, Y, X) float at `points`, trilinear, in the rows' common shape (...).

    `origin`: coordinates of the block's first voxel.
    """
    rows = torch.broadcast_tensors(*points)
    if block.dtype == rows[0].dtype == torch.float32 and block.device.type == "cpu":
        return _compiled(_linear, block, rows, origin)
    scaled = []
    for axis in (2, 1, 0):
        row = rows[axis] - origin[axis]
        scaled.append(row * (2 / max(block.shape[axis] - 1, 1)) - 1)
    grid = torch.stack(scaled, dim=-1).reshape(1, 1, 1, -1, 3)
    flat = functional.grid_sample(
        block[None, None], grid, mode="bilinear", padding_mode="zeros", align_corners=True
    )
    return flat.reshape(rows[0].shape)


def sample_nearest(block: Tensor, points: Coordinates, origin: Triple = ORIGIN) -> Tensor:
    """`block` (Z, Y, X) of any type at the voxels nearest to `points`; see `sample_linear`."""
    rows = torch.broadcast_tensors(*points)
    if (block.dtype, rows[0].dtype) == (torch.int32, torch.float32) and block.device.type == "cpu":
        return _compiled(_nearest, block, rows, origin)
    index = torch.zeros(rows[0].shape, dtype=torch.int64, device=block.device)
    inside = torch.ones(rows[0].shape, dtype=torch.bool, device=block.device)
    for row, begin, size in zip(rows, origin, block.shape, strict=True):
        nearest = torch.floor(row - begin + 0.5).long()
        inside &= (nearest >= 0) & (nearest < size)
        index = index * size + nearest.clamp(0, size - 1)
    return block.reshape(-1)[index] * inside


def _compiled(
    sample: Callable[..., None], block: Tensor, rows: Sequence[Tensor], origin: Triple
) -> Tensor:
    """What the compiled loop `sample` writes for `rows` of one shape (...)."""
    result = torch.empty(rows[0].shape, dtype=block.dtype)
    z, y, x = (row.reshape(-1).numpy() for row in rows)
    begin = np.array(origin, dtype=np.float32)
    sample(block.contiguous().numpy(), z, y, x, begin, result.view(-1).numpy())
    return result


@compiled
def _linear(
    block: np.ndarray,
    z: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    origin: np.ndarray,
    result: np.ndarray,
) -> None:
    """Writes the interpolated value of each point; corners outside the block count as 0."""
    depth, height, width = block.shape
    for point in range(len(result)):
        p, q, r = z[point] - origin[0], y[point] - origin[1], x[point] - origin[2]
        k, j, i = int(np.floor(p)), int(np.floor(q)), int(np.floor(r))
        c, b, a = p - np.float32(k), q - np.float32(j), r - np.float32(i)
        total = np.float32(0)
        for dz in range(2):
            if not 0 <= k + dz < depth:
                continue
            weight_z = c if dz else np.float32(1) - c
            for dy in range(2):
                if not 0 <= j + dy < height:
                    continue
                weight = weight_z * (b if dy else np.float32(1) - b)
                if 0 <= i < width:
                    total += weight * (np.float32(1) - a) * block[k + dz, j + dy, i]
                if 0 <= i + 1 < width:
                    total += weight * a * block[k + dz, j + dy, i + 1]
        result[point] = total


@compiled
def _nearest(
    block: np.ndarray,
    z: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    origin: np.ndarray,
    result: np.ndarray,
) -> None:
    """Writes the value of the voxel nearest to each point; halves round up."""
    depth, height, width = block.shape
    half = np.float32(0.5)
    for point in range(len(result)):
        k = int(np.floor(z[point] - origin[0] + half))
        j = int(np.floor(y[point] - origin[1] + half))
        i = int(np.floor(x[point] - origin[2] + half))
        inside = 0 <= k < depth and 0 <= j < height and 0 <= i < width
        result[point] = block[k, j, i] if inside else 0
