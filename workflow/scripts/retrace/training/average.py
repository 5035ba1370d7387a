"""An exponential moving average (EMA) of the weights, kept alongside a training."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Exponential moving average of a network's weights, in `module`; training does not use it.

    With a constant learning rate the weights wander around a minimum; their average is closer to it
    (Polyak & Juditsky 1992).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = deepcopy(module).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, iteration: int) -> None:
        """Adds the weights after `iteration` (from 1).

        Early iterations decay faster, as in TensorFlow's ExponentialMovingAverage with
        `num_updates`, so that the random initial weights do not count.
        """
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        averages, weights = list(self.module.parameters()), list(module.parameters())
        get_ema_multi_avg_fn(decay)(averages, weights, iteration)
