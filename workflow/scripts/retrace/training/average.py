"""A running mean of the weights: what a short training with a constant rate is judged by."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Exponential mean of a network's weights, kept beside the training and not seen by it.

    With a constant learning rate the weights wander around a minimum; their mean lies nearer to it
    (Polyak & Juditsky 1992). `module` has the mean.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = deepcopy(module).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, iteration: int) -> None:
        """Takes in the weights after `iteration` (from 1).

        The first iterations are forgotten faster, as TensorFlow's ExponentialMovingAverage does
        with `num_updates`: random initial weights should not weigh.
        """
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        mean, now = list(self.module.parameters()), list(module.parameters())
        get_ema_multi_avg_fn(decay)(mean, now, iteration)
