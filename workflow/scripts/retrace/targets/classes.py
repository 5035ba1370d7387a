"""Class labels of voxels, from labels that are classes or from objects, whose boundaries are 1."""

from __future__ import annotations

import torch
from torch import Tensor

from retrace.targets.boundary import grow_boundary

IGNORED = -1
"""The class of a voxel without ground truth, which no loss counts."""


def class_labels(
    labels: Tensor,
    known: Tensor,
    *,
    are_classes: bool,
    boundary_steps: int = 0,
    only_xy: bool = False,
) -> Tensor:
    """Classes (Z, Y, X) int64 of `labels` (Z, Y, X) int; IGNORED where `known` (bool) is False.

    If labels are objects (not `are_classes`), class 1 is the boundary: label 0, and the voxels that
    `grow_boundary` takes from each object in `boundary_steps` steps, within sections if `only_xy`.
    Pass a margin of `boundary_steps` voxels on every side.
    """
    if not are_classes:
        if boundary_steps:
            labels = grow_boundary(labels, known, boundary_steps, only_xy)
        labels = (labels == 0).long()
    return torch.where(known, labels.long(), IGNORED)
