"""Weighted mean squared error, as TensorFlow 1 reduces it."""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_mse(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """sum(w (p - t)^2) / number of elements whose broadcast weight is not zero; 0 if there is none.

    The reduction SUM_BY_NONZERO_WEIGHTS of `tf.losses.mean_squared_error`, which the LSD networks
    were trained with: fractional weights scale the sum and not the divisor. `weight` broadcasts
    against `prediction` and `target`, both (..., C, Z, Y, X). Computed in at least float32.
    """
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    error = (prediction.to(dtype) - target.to(dtype)).square()
    total = (error * weight.to(dtype)).sum()
    copies = error.numel() // max(weight.numel(), 1)
    return total / (torch.count_nonzero(weight) * copies).clamp(min=1)
