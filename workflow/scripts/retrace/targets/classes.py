"""Classes of voxels, from labels that are classes or from objects whose boundaries are class 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from retrace.targets.boundary import grow_boundary as grown

IGNORED = -1
"""The class of a voxel that has none: no loss looks at it."""


def class_labels(
    labels: Tensor, known: Tensor, *, are_classes: bool, grow_boundary: Mapping[str, Any] | None
) -> Tensor:
    """Int64 classes (Z, Y, X) of `labels`, IGNORED where `known` is False.

    Of objects, class 1 is the boundary: labels of 0, and after `grow_boundary` {steps, only_xy}
    the voxels that it takes from each object. Hand over `steps` voxels more on every side than are
    used.
    """
    if not are_classes:
        if grow_boundary:
            steps, only_xy = grow_boundary["steps"], grow_boundary["only_xy"]
            labels = grown(labels, known, steps, only_xy)
        labels = (labels == 0).long()
    return torch.where(known, labels.long(), IGNORED)
