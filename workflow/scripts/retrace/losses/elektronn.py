"""ELEKTRONN's losses: sums over what is labelled, divided by the number of labels.

Source: ELEKTRONN, elektronn/net/convlayer2d.py, convlayer3d.py and perceptronlayer.py. `logits`
are (N, K) or (N, K, Z, Y, X): classes on axis 1. Labels below 0 are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EPS = 1e-6
"""Added to every probability before its logarithm."""


def _along_classes(values: Tensor | Sequence[float], like: Tensor) -> Tensor:
    """(K,) or (N, K) shaped to multiply (N, K, ...)."""
    row = torch.as_tensor(values, dtype=like.dtype, device=like.device)
    lead = row if row.ndim == 2 else row[None]
    return lead.reshape(*lead.shape, *[1] * (like.ndim - 2))


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Bool (N, K, ...) of labels (N, ...); no class where a label is below 0."""
    numbers = torch.arange(classes, device=labels.device)
    return labels.unsqueeze(1) == numbers.reshape(1, -1, *[1] * (labels.ndim - 1))


def nll(
    logits: Tensor,
    labels: Tensor,
    *,
    class_weights: Sequence[float] | None = None,
    example_weights: Tensor | None = None,
    labelled: Tensor | None = None,
    absent: Tensor | None = None,
    propagate_above: float | None = None,
) -> Tensor:
    """Negative log-likelihood by the number of labels; the weights are not normalised.

    `example_weights` (N, ...) multiply each voxel. Lazy labels: `labelled` (N, K), 0 for classes
    that were not looked for in this example, and `absent` (N, K), 1 for classes that it does not
    hold, whose probability is pushed down everywhere. `propagate_above`: a class not looked for
    counts as the label where its probability is above.
    """
    p = torch.softmax(logits, dim=1)
    positive = one_hot(labels, p.shape[1])
    if labelled is not None:
        known = _along_classes(labelled, p) > 0
        positive = positive & known
        if propagate_above is not None:
            positive = positive | ((p > propagate_above) & ~known)
    cost = torch.where(positive, -torch.log(p + EPS), 0.0)
    if class_weights is not None:
        cost = cost * _along_classes(class_weights, p)
    count = positive.sum()
    if absent is not None:
        missing = _along_classes(absent, p)
        cost = cost - torch.log(1 - p * missing + EPS)
        count = count + (missing > 0).expand_as(p).sum()
    if example_weights is not None:
        cost = cost * example_weights.unsqueeze(1)
    return cost.sum() / count.clamp(min=1)


def nll_weak(
    logits: Tensor, labels: Tensor, *, class_weights: Sequence[float] | None = None
) -> Tensor:
    """The target is half the label, half what the network predicts itself."""
    p = torch.softmax(logits, dim=1)
    hard = one_hot(labels, p.shape[1])
    known = (labels >= 0).unsqueeze(1)
    cost = torch.where(known, -(0.5 * hard + 0.5 * p) * torch.log(p + EPS), 0.0)
    if class_weights is not None:
        cost = cost * _along_classes(class_weights, p)
    return cost.sum() / hard.sum().clamp(min=1)


def nll_multiple_binary(
    logits: Tensor, labels: Tensor, *, class_weights: Sequence[float] | None = None
) -> Tensor:
    """Mean over all outputs (N, K), each with a label of its own in {0, 1} (N, K).

    The original takes the sigmoid as the probability of 0; so is it here, so that its weights keep
    their meaning.
    """
    zero = torch.sigmoid(logits)
    off, on = class_weights or (1.0, 1.0)
    truth = labels.to(zero.dtype)
    return (
        -torch.log(zero + EPS) * (1 - truth) * off - torch.log(1 - zero + EPS) * truth * on
    ).mean()


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference, of shapes that agree."""
    return ((output - target) ** 2).mean()


def error_share(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of the labels >= 0 that the most likely class misses; nan where there is none."""
    known = labels >= 0
    wrong = (logits.argmax(dim=1) != labels) & known
    return wrong.sum() / known.sum()


def binary_overlap(logits: Tensor, labels: Tensor) -> Tensor:
    """tp / (tp + fp + fn) of `nll_multiple_binary`, what ELEKTRONN shows for it."""
    on, truth = logits < 0, labels > 0
    return (on & truth).sum() / (on | truth).sum()
