"""ZNN's cost functions, with the gradients that it sends back.

Source: seung-lab/znn-release, python/front_end/cost_fn. The gradient is not always that of the
reported error: `binomial_cross_entropy` sends p - y, which is right behind a node that passes
gradients through (`forward_logistics`), and masks and weights act on it in different ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SMALL = 0.2
"""Differences up to this count nothing in square-square_loss."""


@dataclass(frozen=True)
class Cost:
    """What one patch costs; `gradient` (C, Z, Y, X) with respect to the network's output."""

    error: Tensor
    """Sum over channels and voxels inside the mask."""
    gradient: Tensor
    probability: Tensor
    """The outputs, after softmax where that is the cost."""


def cost(kind: str, output: Tensor, target: Tensor, mask: Tensor) -> Cost:
    """Error and gradient of `output` against `target`, both (C, Z, Y, X); `mask` 0 or 1."""
    if kind == "softmax_loss":
        log_q = torch.log_softmax(output, 0)
        q = log_q.exp()
        return Cost(-(target * log_q * mask).sum(), (q - target) * mask, q)
    if kind == "binomial_cross_entropy":
        # torch keeps the logarithm above -100; ZNN reports nan there, and trains on all the same.
        entropy = functional.binary_cross_entropy(output, target, mask, reduction="sum")
        return Cost(entropy, (output - target) * mask, output)
    difference = (output - target) * mask
    if kind == "square-square_loss":
        difference = torch.where(difference.abs() > SMALL, difference, 0)
    return Cost(difference.square().sum(), 2 * difference, output)


def misclassified(probability: Tensor, target: Tensor) -> Tensor:
    """Elements on the wrong side of 0.5, as 0 or 1."""
    return ((probability > 0.5) != (target > 0.5)).to(probability.dtype)


class _Announced(torch.autograd.Function):
    """A value whose gradient is told, not derived."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None


def announced(output: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """`value`, whose derivative with respect to `output` is `gradient`."""
    return _Announced.apply(output, value.detach(), gradient.detach())
