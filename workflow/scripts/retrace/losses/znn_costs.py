"""ZNN's cost functions, each with the gradient that ZNN propagates, under the names of `cost_fn`.

Source: seung-lab/znn-release, python/front_end/cost_fn. The gradient is not always that of the
reported error: `binomial_cross_entropy` propagates p - y, which is correct behind a
`forward_logistics` node, whose gradient is the identity's; masks and weights change error and
gradient in different ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SMALL = 0.2
"""square-square_loss ignores differences up to this (ZNN)."""


@dataclass(frozen=True)
class ZnnCost:
    """The cost of one patch."""

    error: Tensor
    """Sum over channels and voxels inside the mask, a scalar."""
    gradient: Tensor
    """Gradient (C, Z, Y, X) with respect to the network's output."""
    probability: Tensor
    """The outputs (C, Z, Y, X), after softmax with softmax_loss."""


def softmax_loss(output: Tensor, target: Tensor, mask: Tensor) -> ZnnCost:
    """Cross-entropy of the softmax of `output` (C, Z, Y, X), where `mask` is 1."""
    log_q = torch.log_softmax(output, 0)
    q = log_q.exp()
    return ZnnCost(-(target * log_q * mask).sum(), (q - target) * mask, q)


def binomial_cross_entropy(output: Tensor, target: Tensor, mask: Tensor) -> ZnnCost:
    """Binary cross-entropy of `output` (C, Z, Y, X), where `mask` is 1."""
    # torch clamps the logarithm at -100, where ZNN reports nan and trains on regardless.
    entropy = functional.binary_cross_entropy(output, target, mask, reduction="sum")
    return ZnnCost(entropy, (output - target) * mask, output)


def square_loss(output: Tensor, target: Tensor, mask: Tensor) -> ZnnCost:
    """Squared difference of `output` and `target` (C, Z, Y, X), where `mask` is 1."""
    difference = (output - target) * mask
    return ZnnCost(difference.square().sum(), 2 * difference, output)


def square_square_loss(output: Tensor, target: Tensor, mask: Tensor) -> ZnnCost:
    """`square_loss` of (C, Z, Y, X) that ignores differences up to SMALL."""
    difference = (output - target) * mask
    difference = torch.where(difference.abs() > SMALL, difference, 0)
    return ZnnCost(difference.square().sum(), 2 * difference, output)


def misclassified(probability: Tensor, target: Tensor) -> Tensor:
    """1 where `probability` and `target` are on different sides of 0.5, else 0; equal shapes."""
    return ((probability > 0.5) != (target > 0.5)).to(probability.dtype)


class _CustomGradient(torch.autograd.Function):
    """Custom autograd gradient: a value whose gradient is an argument."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None


def with_gradient(output: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """`value`, a scalar, whose gradient with respect to `output` is `gradient`, of equal shape."""
    return _CustomGradient.apply(output, value.detach(), gradient.detach())
