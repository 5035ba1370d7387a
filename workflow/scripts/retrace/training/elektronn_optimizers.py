"""ELEKTRONN's optimisers: SGD with decoupled weight decay, RPROP, CG, L-BFGS and Adam.

Source: ELEKTRONN, elektronn/net/optimizer.py; described in docs/reference/elektronn.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict, cast

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from retrace.elektronn.parameters import (
    AdamParameters,
    ConjugateGradientParameters,
    GradientDescentParameters,
    LbfgsParameters,
    OptimizerSettings,
    RpropParameters,
)

Closure = Callable[[], float]
"""Returns the loss of the current batch and leaves its gradients in the parameters."""

RPROP_LEAST, RPROP_MOST = 1e-7, 2e-3
"""Smallest and largest step of RPROP."""


class Group(TypedDict):
    """A parameter group of torch, with the values that can change while a network trains."""

    params: list[nn.Parameter]
    lr: float
    momentum: float
    weight_decay: float
    steps: int


class ElektronnOptimizer(torch.optim.Optimizer):
    """Base of ELEKTRONN's optimisers: learning rate, momentum and weight decay of each group.

    With `evaluates`, a step evaluates its batch several times through a closure, and `loss` is the
    loss it ended with.
    """

    evaluates = False
    loss: float | None = None

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float = 0.0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        rates = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": 0}
        super().__init__(params, rates)

    @property
    def group(self) -> Group:
        """The only parameter group."""
        (group,) = self.param_groups
        return cast(Group, group)

    def follow(self, rates: Callable[[int], Mapping[str, float]]) -> None:
        """Takes learning rate and momentum of each iteration, from 0, from the function `rates`."""

        def prepare(*_: Any) -> None:
            self.param_groups[0].update(rates(self.group["steps"]))

        self.register_step_pre_hook(prepare)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> None:  # type: ignore[override]
        """One update with the current gradients."""
        group = self.group
        group["steps"] += 1
        for weight in group["params"]:
            if weight.grad is not None:
                self._update(weight, weight.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: Group) -> None:
        raise NotImplementedError

    def _kept(self, weight: Tensor, name: str, value: float = 0.0) -> Tensor:
        """A state tensor of a parameter, kept between steps."""
        return self.state[weight].setdefault(name, torch.full_like(weight, value))

    def _weights(self) -> list[Tensor]:
        return [w for w in self.group["params"] if w.requires_grad]


class Sgd(ElektronnOptimizer):
    """v <- g + momentum v; w <- w - lr v - lr decay w: the decay is decoupled from momentum."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        settings: GradientDescentParameters,
        weight_decay: float,
    ) -> None:
        super().__init__(
            params, lr=settings.LR, momentum=settings.momentum, weight_decay=weight_decay
        )

    def _update(self, weight: Tensor, gradient: Tensor, group: Group) -> None:
        velocity = self._kept(weight, "velocity").mul_(group["momentum"]).add_(gradient)
        weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(velocity, alpha=-group["lr"])


class Rprop(ElektronnOptimizer):
    """Each weight has its own step size, which grows while its gradient keeps its sign.

    The update uses the step size of the iteration before; the decay has no rate as factor.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], settings: RpropParameters, weight_decay: float
    ) -> None:
        super().__init__(params, weight_decay=weight_decay)
        self.settings = settings

    def _update(self, weight: Tensor, gradient: Tensor, group: Group) -> None:
        before = self._kept(weight, "gradient")
        step = self._kept(weight, "step_size", self.settings.initial_update_size)
        change = step * gradient / (gradient.abs() + 1e-6)
        agreement = before * gradient
        factor = 1 - self.settings.penalty * (agreement < -1e-9).to(step.dtype)
        factor += self.settings.gain * (agreement > 1e-11).to(step.dtype)
        step.mul_(factor).clamp_(RPROP_LEAST, RPROP_MOST)
        before.copy_(gradient)
        weight.mul_(1 - group["weight_decay"]).sub_(change)


class Adam(ElektronnOptimizer):
    """Adam with the bias correction in the rate; no weight decay, as in the original."""

    def __init__(self, params: Iterable[nn.Parameter], settings: AdamParameters) -> None:
        super().__init__(params, lr=settings.LR)
        self.settings = settings

    def _update(self, weight: Tensor, gradient: Tensor, group: Group) -> None:
        beta1, beta2 = self.settings.beta1, self.settings.beta2
        first = self._kept(weight, "first").lerp_(gradient, 1 - beta1)
        second = self._kept(weight, "second").lerp_(gradient * gradient, 1 - beta2)
        steps = group["steps"]
        rate = group["lr"] * math.sqrt(1 - beta2**steps) / (1 - beta1**steps)
        weight.addcdiv_(first, second.sqrt().add_(self.settings.epsilon), value=-rate)


class ConjugateGradient(ElektronnOptimizer):
    """`n_steps` conjugate directions on one batch, each with a backtracking line search.

    The first direction is the negative gradient, the others follow Polak and Ribiere. The search
    starts at `max_step` and shrinks by `beta` until the loss has fallen enough (Armijo's condition
    with `alpha`) or rises again.
    """

    evaluates = True

    def __init__(
        self, params: Iterable[nn.Parameter], settings: ConjugateGradientParameters
    ) -> None:
        super().__init__(params)
        self.settings = settings

    def step(self, closure: Closure | None = None) -> None:  # type: ignore[override]
        """All `n_steps` directions on the batch of the closure."""
        assert closure is not None
        self.group["steps"] += 1
        weights = self._weights()
        loss = closure()
        gradients = _gradients(weights)
        directions = [-g for g in gradients]
        for number in range(self.settings.n_steps):
            if number:
                before = gradients
                loss = closure()
                gradients = _gradients(weights)
                factor = _polak_ribiere(gradients, before)
                directions = [d * factor - g for d, g in zip(directions, gradients, strict=True)]
            slope = _dot(gradients, directions)
            self.loss = self._search(closure, weights, directions, loss, slope)

    def _search(
        self,
        closure: Closure,
        weights: list[Tensor],
        directions: list[Tensor],
        first: float,
        slope: float,
    ) -> float:
        """Moves the weights along the direction and returns the loss there."""
        if slope > 0:  # not a descent direction
            return first
        largest, beta = self.settings.max_step, self.settings.beta
        rounds = int(math.log(self.settings.min_step / largest) / math.log(beta))
        begin = [w.detach().clone() for w in weights]
        at = largest
        loss = self._loss_at(closure, weights, begin, directions, at)
        last = math.inf
        for _ in range(rounds):
            if loss <= first + at * slope * self.settings.alpha or loss > last:
                break
            at *= beta
            last = loss
            loss = self._loss_at(closure, weights, begin, directions, at)
        return loss

    @staticmethod
    def _loss_at(
        closure: Closure,
        weights: list[Tensor],
        begin: list[Tensor],
        directions: list[Tensor],
        at: float,
    ) -> float:
        with torch.no_grad():
            for weight, start, direction in zip(weights, begin, directions, strict=True):
                weight.copy_(start + direction * at)
        return closure()


class Lbfgs(ElektronnOptimizer):
    """scipy's L-BFGS-B on one batch, restarted at each step."""

    evaluates = True

    def __init__(self, params: Iterable[nn.Parameter], settings: LbfgsParameters) -> None:
        super().__init__(params)
        self.settings = settings

    def step(self, closure: Closure | None = None) -> None:  # type: ignore[override]
        """Up to `maxiter` iterations of the solver on the batch of the closure."""
        assert closure is not None
        self.group["steps"] += 1
        weights = self._weights()

        def at(values: np.ndarray) -> tuple[float, np.ndarray]:
            _set_flat(weights, values)
            loss = closure()
            return loss, _flat(_gradients(weights))

        options = {
            "maxcor": self.settings.m,
            "maxiter": self.settings.maxiter,
            "maxfun": self.settings.maxfun,
            "ftol": self.settings.factr * np.finfo(np.float64).eps,
            "gtol": self.settings.pgtol,
        }
        result = minimize(at, _flat(weights), jac=True, method="L-BFGS-B", options=options)
        _set_flat(weights, result.x)
        self.loss = float(result.fun)


def _gradients(weights: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(w) if w.grad is None else w.grad.detach().clone() for w in weights]


def _dot(some: list[Tensor], others: list[Tensor]) -> float:
    return float(sum((a * b).sum() for a, b in zip(some, others, strict=True)))


def _polak_ribiere(now: list[Tensor], before: list[Tensor]) -> float:
    """The factor of the previous direction, at least 0."""
    return max(0.0, (_dot(now, now) - _dot(now, before)) / max(_dot(before, before), 1e-30))


def _flat(tensors: list[Tensor]) -> np.ndarray:
    return torch.cat([t.detach().reshape(-1) for t in tensors]).double().cpu().numpy()


@torch.no_grad()
def _set_flat(weights: list[Tensor], values: np.ndarray) -> None:
    parts = torch.from_numpy(values.copy()).split([w.numel() for w in weights])
    for weight, part in zip(weights, parts, strict=True):
        weight.copy_(part.reshape(weight.shape))


def elektronn_optimizer(
    params: Iterable[nn.Parameter], settings: OptimizerSettings, *, weight_decay: float = 0.0
) -> ElektronnOptimizer:
    """The optimiser that has these settings."""
    match settings:
        case GradientDescentParameters():
            return Sgd(params, settings, weight_decay)
        case RpropParameters():
            return Rprop(params, settings, weight_decay)
        case ConjugateGradientParameters():
            return ConjugateGradient(params, settings)
        case LbfgsParameters():
            return Lbfgs(params, settings)
        case AdamParameters():
            return Adam(params, settings)
