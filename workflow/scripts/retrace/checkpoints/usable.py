"""Whether weights can be used: finite, and no larger than a training that converges leaves them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

LARGEST_WEIGHT = 1e10
"""Largest absolute weight. Trained weights are far below it; products of larger ones overflow."""


def unusable_weight(weights: Mapping[str, Tensor]) -> str | None:
    """The first weight that is NaN, infinite or above LARGEST_WEIGHT, as text; None if none is.

    `weights`: a state_dict, tensors of any shape by name.
    """
    for name, weight in weights.items():
        if not weight.is_floating_point() or not weight.numel():
            continue
        largest = float(weight.detach().abs().amax())  # NaN if any weight is NaN
        if not largest <= LARGEST_WEIGHT:
            is_finite = bool(torch.isfinite(weight).all())
            return f"{name} reaches {largest:.3g}" if is_finite else f"{name} holds NaN or infinity"
    return None
