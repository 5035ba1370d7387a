"""Growing the boundaries between labels by eroding every label."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Reduction = Callable[[Tensor, Tensor], Tensor]


def grow_boundary(
    labels: Tensor, mask: Tensor | None = None, steps: int = 1, only_xy: bool = False
) -> Tensor:
    """`labels` (..., Z, Y, X) int with voxels within `steps` of another label set to 0.

    `mask`: same shape, 0 where there is no ground truth. `only_xy`: within each section. Source:
    gunpowder, `GrowBoundary`: every label is eroded with a cross-shaped element; voxels outside the
    array or the mask count as the same label, so they erode nothing. If the mask covers only a part
    of the labels, pass that part alone: gunpowder leaves the ring around it unchanged.

    A voxel is kept if all unmasked voxels within `steps` have the same label above 0, or if none
    is unmasked. Both follow from the smallest and the largest label nearby, without a loop over
    the labels.
    """
    unmasked = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask != 0
    info = torch.iinfo(labels.dtype)
    smallest = labels.masked_fill(~unmasked, info.max)
    largest = labels.masked_fill(~unmasked, info.min)
    axes = (-2, -1) if only_xy else (-3, -2, -1)
    for _ in range(steps):
        smallest = _over_cross(smallest, axes, torch.minimum)
        largest = _over_cross(largest, axes, torch.maximum)
    keep = ((smallest == largest) & (smallest != 0)) | (smallest > largest)
    return torch.where(keep, labels, torch.zeros_like(labels))


def _over_cross(values: Tensor, axes: Sequence[int], reduce: Reduction) -> Tensor:
    """Minimum or maximum over each voxel and its direct neighbours along `axes`, same shape."""
    result = values.clone()
    for axis in axes:
        pairs = values.shape[axis] - 1
        first, second = (values.narrow(axis, start, pairs) for start in (0, 1))
        for start, neighbour in ((0, second), (1, first)):
            target = result.narrow(axis, start, pairs)
            target.copy_(reduce(target, neighbour))
    return result
