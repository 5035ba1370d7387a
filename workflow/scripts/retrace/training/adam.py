"""Adam, and its learning rates, for networks of the family lsd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from retrace.config.lsd_network import AdamSettings
from retrace.training.learning_rate import rate_factor


def make_optimizer(
    module: nn.Module,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float | None = None,
) -> torch.optim.Adam:
    """Adam with TensorFlow's eps; one fused kernel per step.

    TensorFlow adds eps to the root of the second moment before the bias correction (Kingma & Ba
    2015, end of section 2), torch after it; eps is therefore rescaled at each step. `weight_decay`:
    each step first multiplies the weights of all layers, not their biases, by 1 - lr * weight_decay
    (AdamW; Loshchilov & Hutter 2019).
    """
    settings: dict[str, Any] = {"lr": lr, "betas": betas, "eps": eps, "fused": True}
    if weight_decay is None:
        optimizer = torch.optim.Adam(module.parameters(), **settings)
    else:
        optimizer = torch.optim.AdamW(_groups(module, weight_decay), **settings)
    steps: int | None = None

    def correct_eps(adam: torch.optim.Optimizer, *_: Any) -> None:
        nonlocal steps
        if steps is None or not adam.state:  # read once: on a GPU each read synchronises
            steps = max((int(moments["step"]) for moments in adam.state.values()), default=0)
        steps += 1
        for group in adam.param_groups:
            group["eps"] = eps / math.sqrt(1 - group["betas"][1] ** steps)

    optimizer.register_step_pre_hook(correct_eps)
    return optimizer


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The weights of all layers with a decay, and the biases without."""
    weights = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    biases = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
    return [
        {"params": weights, "weight_decay": weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]


def scheduled_rate(adam: AdamSettings, iterations: int) -> Callable[[int], float] | None:
    """The learning rate of each iteration, from 1 to `iterations`; None for a constant one."""
    if adam.warmup is None and adam.decay is None:
        return None
    fall, final = (adam.decay.kind, adam.decay.final) if adam.decay else ("constant", 1.0)
    warmup, last = adam.warmup or 0, iterations - 1
    return lambda iteration: adam.lr * rate_factor(iteration - 1, warmup, last, fall, final)
