"""Boundaries between labels, grown by eroding every label."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Reduction = Callable[[Tensor, Tensor], Tensor]


def grow_boundary(
    labels: Tensor, mask: Tensor | None = None, steps: int = 1, only_xy: bool = False
) -> Tensor:
    """Labels with the `steps` voxels next to another label set to 0.

    `labels` (..., Z, Y, X) int, `mask` of the same shape, 0 = no ground truth. What gunpowder's
    `GrowBoundary` does: every label but 0 is eroded with a cross-shaped element, in each section
    alone if `only_xy`; outside the array and outside the mask everything counts as the label at
    hand, so neither shrinks its neighbours. Where the mask covers less than the labels, hand over
    only the part it covers: gunpowder leaves the ring around it as it is.

    The erosion of "label or masked out" keeps a voxel if all unmasked voxels within `steps` steps
    carry one and the same label above 0, or if none of them is unmasked. Both follow from the
    least and the greatest label around, without a loop over the labels.
    """
    unmasked = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask != 0
    info = torch.iinfo(labels.dtype)
    least = labels.masked_fill(~unmasked, info.max)
    greatest = labels.masked_fill(~unmasked, info.min)
    axes = (-2, -1) if only_xy else (-3, -2, -1)
    for _ in range(steps):
        least = _over_cross(least, axes, torch.minimum)
        greatest = _over_cross(greatest, axes, torch.maximum)
    keep = ((least == greatest) & (least != 0)) | (least > greatest)
    return torch.where(keep, labels, torch.zeros_like(labels))


def _over_cross(values: Tensor, axes: Sequence[int], reduce: Reduction) -> Tensor:
    """Minimum or maximum over each voxel and its neighbours along `axes` inside the array."""
    result = values.clone()
    for axis in axes:
        pairs = values.shape[axis] - 1
        first, second = (values.narrow(axis, start, pairs) for start in (0, 1))
        for start, neighbour in ((0, second), (1, first)):
            target = result.narrow(axis, start, pairs)
            target.copy_(reduce(target, neighbour))
    return result
