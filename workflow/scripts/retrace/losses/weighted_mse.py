"""Weighted mean squared error, with the reduction of TensorFlow 1."""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_mse(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """sum(w (p - t)^2) / number of elements with a weight other than 0, a scalar; 0 if none has.

    `prediction` and `target` (..., C, Z, Y, X); `weight` broadcasts against them. Fractional
    weights scale the sum, not the divisor. Computed in at least float32. Source: TensorFlow 1,
    `tf.losses.mean_squared_error` with SUM_BY_NONZERO_WEIGHTS, as the LSD networks were trained.
    """
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    error = (prediction.to(dtype) - target.to(dtype)).square()
    total = (error * weight.to(dtype)).sum()
    copies = error.numel() // max(weight.numel(), 1)
    return total / (torch.count_nonzero(weight) * copies).clamp(min=1)
