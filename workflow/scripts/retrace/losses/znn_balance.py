"""ZNN's rebalancing: gradients of the rarer class weigh more.

Source: seung-lab/znn-release, python/front_end/zsample. Weights are computed from the voxels inside
the mask; where a class is absent, all weigh 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassCounts:
    """Numbers of voxels above 0 (`positive`) and at 0 (`zero`) inside a mask."""

    positive: int
    zero: int

    def global_weights(self) -> tuple[float, float]:
        """Weights of positive and zero voxels from a whole label volume: 0.5 n / n_class."""
        if not (self.positive and self.zero):
            return 1.0, 1.0
        both = self.positive + self.zero
        return 0.5 * both / self.positive, 0.5 * both / self.zero

    def patch_weights(self) -> tuple[float, float]:
        """Weights of positive and zero voxels from a patch: the fraction of the other class.

        ZNN uses them for affinities in every mode.
        """
        if not (self.positive and self.zero):
            return 1.0, 1.0
        both = self.positive + self.zero
        return self.zero / both, self.positive / both


def class_weights(voxels: Sequence[int], mode: str) -> list[float]:
    """Weight of each class from its number of `voxels`; 1 for absent classes.

    Extends the two formulas for boundaries to any number of classes. `mode` "global": n / (classes
    n_class), "patch": 1 / n_class, normalised to a sum of 1. Absent classes do not count.
    """
    present = [n for n in voxels if n]
    total, inverse = sum(present), sum(1 / n for n in present)
    if mode == "global":
        return [total / (len(present) * n) if n else 1.0 for n in voxels]
    return [1 / n / inverse if n else 1.0 for n in voxels]


def count_classes(positive: Tensor, mask: Tensor) -> ClassCounts:
    """Voxels of both classes inside `mask`; `positive` (bool) and `mask` have equal shapes."""
    inside = mask > 0
    above = int((positive & inside).sum())
    return ClassCounts(above, int(inside.sum()) - above)


def class_weight_map(positive: Tensor, weights: tuple[float, float], dtype: torch.dtype) -> Tensor:
    """`weights` of positive and zero voxels as a tensor of the shape of `positive` (bool)."""
    high, low = (torch.tensor(w, dtype=dtype, device=positive.device) for w in weights)
    return torch.where(positive, high, low)
