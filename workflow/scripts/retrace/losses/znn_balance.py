"""ZNN's rebalancing: gradients of the rarer class weigh more.

Source: seung-lab/znn-release, python/front_end/zsample. Weights count voxels inside the mask; where
one class is absent all weigh 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Counts:
    """Voxels above 0 and at 0 inside a mask."""

    positive: int
    zero: int

    def global_boundary(self) -> tuple[float, float]:
        """Weights of positive and zero voxels of a whole label volume: 0.5 n / n_class."""
        if not (self.positive and self.zero):
            return 1.0, 1.0
        both = self.positive + self.zero
        return 0.5 * both / self.positive, 0.5 * both / self.zero

    def shares(self) -> tuple[float, float]:
        """Weights of a patch, and of affinities in any mode: the share of the other class."""
        if not (self.positive and self.zero):
            return 1.0, 1.0
        both = self.positive + self.zero
        return self.zero / both, self.positive / both


def class_weights(voxels: Sequence[int], mode: str) -> list[float]:
    """Weights of classes with so many voxels; classes without any count for nothing.

    The two formulas of boundaries for any number of classes: "global" n / (classes n_class),
    "patch" the share of 1 / n_class in the sum of these.
    """
    present = [n for n in voxels if n]
    total, inverse = sum(present), sum(1 / n for n in present)
    if mode == "global":
        return [total / (len(present) * n) if n else 1.0 for n in voxels]
    return [1 / n / inverse if n else 1.0 for n in voxels]


def count(positive: Tensor, mask: Tensor) -> Counts:
    """Voxels of the two classes inside `mask`, equal shapes."""
    inside = mask > 0
    above = int((positive & inside).sum())
    return Counts(above, int(inside.sum()) - above)


def weigh(positive: Tensor, weights: tuple[float, float], dtype: torch.dtype) -> Tensor:
    """The weight of each voxel, in the shape of `positive`."""
    high, low = (torch.tensor(w, dtype=dtype, device=positive.device) for w in weights)
    return torch.where(positive, high, low)
