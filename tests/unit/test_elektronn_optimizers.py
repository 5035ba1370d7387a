"""ELEKTRONN's optimisers and losses against numbers that the original printed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from retrace.config.schema import check
from retrace.elektronn.parameters import (
    AdamParameters,
    ConjugateGradientParameters,
    ElektronnParameters,
    GradientDescentParameters,
    LbfgsParameters,
    OptimizerSettings,
    RpropParameters,
)
from retrace.errors import ConfigError
from retrace.losses.elektronn import (
    binary_overlap,
    error_rate,
    nll,
    nll_multiple_binary,
    nll_weak,
    squared_error,
)
from retrace.training.elektronn_optimizers import ElektronnOptimizer, elektronn_optimizer

X = torch.cos(1.1 * torch.arange(24, dtype=torch.float32)).reshape(6, 4)
Y = torch.tensor([0, 2, 1, 1, 0, 2])
EXPECTED = {
    "SGD": [1.028294, 0.999142, 0.947504, 0.881716, 0.809834],
    "RPROP": [1.028294, 1.028642, 1.028990, 1.029303, 1.029575],
    "CG": [0.668089, 0.518679, 0.430239, 0.370645, 0.327272],
    "LBFGS": [0.090493, 0.034373, 0.009175, 0.000633, 0.000187],
    "Adam": [1.028294, 1.011145, 0.994457, 0.978223, 0.962437],
}
SETTINGS: dict[str, OptimizerSettings] = {
    "SGD": GradientDescentParameters(LR=0.1, momentum=0.9),
    "RPROP": RpropParameters(),
    "CG": ConjugateGradientParameters(n_steps=4, alpha=0.35, beta=0.75, max_step=0.5),
    "LBFGS": LbfgsParameters(),
    "Adam": AdamParameters(LR=0.01),
}
DECAY = {"SGD": 0.01, "RPROP": 0.01}


def weights() -> list[torch.nn.Parameter]:
    n = torch.arange(12, dtype=torch.float32)
    filters = 0.5 * torch.sin(0.7 * n).reshape(4, 3)
    return [
        torch.nn.Parameter(filters),
        torch.nn.Parameter(0.1 * torch.cos(torch.arange(3, dtype=torch.float32))),
    ]


def trained(optimizer: ElektronnOptimizer, params: list[torch.nn.Parameter]) -> list[float]:
    def closure() -> float:
        optimizer.zero_grad()
        loss = nll(X @ params[0] + params[1], Y)
        loss.backward()
        return float(loss.detach())

    losses = []
    for _ in range(5):
        loss = closure()
        optimizer.step(closure if optimizer.evaluates else None)
        losses.append(optimizer.loss if optimizer.evaluates else loss)
    return losses


@pytest.mark.parametrize("name", EXPECTED)
def test_losses_of_five_steps_are_the_originals(name: str) -> None:
    params = weights()
    optimizer = elektronn_optimizer(params, SETTINGS[name], weight_decay=DECAY.get(name, 0))

    assert trained(optimizer, params) == pytest.approx(EXPECTED[name], abs=2e-6)


def test_weight_decay_of_sgd_is_not_torchs() -> None:
    own, theirs = weights(), weights()
    torchs = torch.optim.SGD(theirs, lr=0.1, momentum=0.9, weight_decay=0.5)
    ours = elektronn_optimizer(own, SETTINGS["SGD"], weight_decay=0.5)
    for _ in range(3):
        for params, optimizer in ((own, ours), (theirs, torchs)):
            optimizer.zero_grad()
            nll(X @ params[0] + params[1], Y).backward()
            optimizer.step()

    assert not torch.allclose(own[0], theirs[0], atol=1e-3)


def test_an_unknown_optimizer_or_parameter_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'RPROP'"):
        check(ElektronnParameters, {"optimizer": "RPRP"}, "network")
    with pytest.raises(ConfigError, match="did you mean 'n_steps'"):
        check(ElektronnParameters, {"CG_params": {"nsteps": 2}}, "network")


def logits_of(p: list[float], count: int) -> Tensor:
    return torch.log(torch.tensor(p)).repeat(count, 1)


LABELS = torch.tensor([0, 1, 2, -1])
LOGITS = logits_of([0.5, 0.3, 0.2], 4)
LAZY = {
    ("111", "000"): 1.168845,
    ("110", "000"): 0.948552,
    ("110", "001"): 0.464946,
    ("000", "001"): 0.223140,
    ("000", "000"): -1.1e-5,
}


def bits(text: str) -> Tensor:
    return torch.tensor([[int(c) for c in text]])


def test_nll_plain_and_weighted() -> None:
    examples = torch.tensor([1.0, 2, 3, 4])

    assert float(nll(LOGITS, LABELS)) == pytest.approx(1.168849, abs=1e-6)
    assert float(error_rate(LOGITS, LABELS)) == pytest.approx(2 / 3)
    assert float(nll(LOGITS, LABELS, class_weights=[1, 2, 4])) == pytest.approx(3.179605, abs=2e-6)
    assert float(nll(LOGITS, LABELS, example_weights=examples)) == pytest.approx(2.643128, abs=2e-6)


@pytest.mark.parametrize(("labelled", "absent"), LAZY)
def test_lazy_labels(labelled: str, absent: str) -> None:
    cost = nll(LOGITS, LABELS, labelled=bits(labelled), absent=bits(absent))

    assert float(cost) == pytest.approx(LAZY[labelled, absent], abs=2e-6)


@pytest.mark.parametrize(("above", "expected"), [(0.4, 0.930995), (0.6, 1.406695)])
def test_label_propagation(above: float, expected: float) -> None:
    cost = nll(LOGITS, LABELS, labelled=bits("011"), absent=bits("000"), propagate_above=above)

    assert float(cost) == pytest.approx(expected, abs=2e-6)


def test_an_unlabelled_batch_costs_nothing_and_has_no_error() -> None:
    nothing = torch.full((4,), -1)

    assert float(nll(LOGITS, nothing)) == 0
    assert math.isnan(float(error_rate(LOGITS, nothing)))


def test_ignored_voxels_do_not_matter() -> None:
    logits = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(-1, 3, (2, 4, 5, 6), generator=torch.Generator().manual_seed(2))
    changed = torch.where((labels < 0).unsqueeze(1), logits + 7, logits)

    assert torch.equal(nll(logits, labels), nll(changed, labels))
    assert torch.equal(nll_weak(logits, labels), nll_weak(changed, labels))


def test_other_targets_at_the_start() -> None:
    filters, bias = (w.detach() for w in weights())
    logits = X @ filters + bias
    binary = torch.arange(18).reshape(6, 3) % 2
    regression = squared_error(torch.tanh(logits), X[:, :3])

    assert float(nll_multiple_binary(logits, binary)) == pytest.approx(0.702354, abs=1e-6)
    assert float(binary_overlap(logits, binary)) == pytest.approx(0.461538, abs=1e-6)
    assert float(nll_weak(logits, Y)) == pytest.approx(1.054298, abs=1e-6)
    assert float(regression) == pytest.approx(0.579766, abs=1e-6)
