"""ZNN's optimiser: SGD with momentum, weight decay and stepwise annealing, in its own formula.

Source: seung-lab/znn-release, src/include/network/filter.hpp.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class ZnnOptimizer(torch.optim.Optimizer):
    """v <- momentum v - eta decay w - eta g; w <- w + v, for filters and biases alike.

    Without momentum, v of filters is not updated, and v of biases is their last step. `eta` is
    multiplied by `anneal_factor` after every `anneal_every` steps.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        eta: float,
        momentum: float,
        weight_decay: float,
        anneal_factor: float,
        anneal_every: int,
    ) -> None:
        """`eta`: learning rate; `anneal_every`: steps between two multiplications of it."""
        defaults = {
            "lr": eta,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "anneal_factor": anneal_factor,
            "anneal_every": anneal_every,
            "steps": 0,
        }
        super().__init__(module.parameters(), defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update with the current gradients."""
        for group in self.param_groups:
            eta = group["lr"] * group["anneal_factor"] ** (group["steps"] // group["anneal_every"])
            group["steps"] += 1
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, eta, group["momentum"], group["weight_decay"])

    @property
    def eta(self) -> float:
        """The annealed learning rate of the next step."""
        group = self.param_groups[0]
        annealed: float = group["anneal_factor"] ** (group["steps"] // group["anneal_every"])
        return float(group["lr"] * annealed)

    def velocity(self, weight: Tensor) -> Tensor:
        """The velocity v of a parameter; zeros before the first step."""
        return self.state[weight].setdefault("velocity", torch.zeros_like(weight))

    def _update(self, weight: Tensor, eta: float, momentum: float, decay: float) -> None:
        assert weight.grad is not None
        change = weight.grad * -eta
        if decay:
            change.add_(weight, alpha=-eta * decay)
        if momentum:
            change = self.velocity(weight).mul_(momentum).add_(change)
        elif weight.ndim == 1:  # a bias
            self.velocity(weight).copy_(change)
        weight.add_(change)
