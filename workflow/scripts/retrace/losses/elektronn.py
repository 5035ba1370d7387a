"""ELEKTRONN's losses: sums over labelled elements, divided by the number of labels.

Source: ELEKTRONN, elektronn/net/convlayer2d.py, convlayer3d.py and perceptronlayer.py. `logits` are
(N, K) or (N, K, Z, Y, X) with K classes, `labels` (N,) or (N, Z, Y, X) integers; labels below 0 are
ignored.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EPS = 1e-6
"""Added to every probability before taking its logarithm (ELEKTRONN)."""


def _along_classes(values: Tensor | Sequence[float], like: Tensor) -> Tensor:
    """`values` (K,) or (N, K) as (1 or N, K, 1, ...), to be multiplied with `like` (N, K, ...)."""
    row = torch.as_tensor(values, dtype=like.dtype, device=like.device)
    lead = row if row.ndim == 2 else row[None]
    return lead.reshape(*lead.shape, *[1] * (like.ndim - 2))


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(N, K, ...) bool from `labels` (N, ...); no class where a label is below 0."""
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
    """Negative log-likelihood per label, a scalar; the weights are not normalised.

    `logits` (N, K, ...), `labels` (N, ...). `class_weights` (K,); `example_weights` (N, ...) for
    each voxel. Lazy labels: `labelled` (N, K) is 0 for classes that were not annotated in an
    example, `absent` (N, K) is 1 for classes that it does not contain, whose probability is pushed
    down everywhere. A class that was not annotated counts as the label where its probability
    exceeds `propagate_above`.
    """
    p = torch.softmax(logits, dim=1)
    positive = one_hot(labels, p.shape[1])
    if labelled is not None:
        annotated = _along_classes(labelled, p) > 0
        positive = positive & annotated
        if propagate_above is not None:
            positive = positive | ((p > propagate_above) & ~annotated)
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
    """Cross-entropy per label with targets that are half label, half the network's own output.

    `logits` (N, K, ...), `labels` (N, ...), `class_weights` (K,). The targets pass gradients.
    """
    p = torch.softmax(logits, dim=1)
    hard = one_hot(labels, p.shape[1])
    labelled = (labels >= 0).unsqueeze(1)
    cost = torch.where(labelled, -(0.5 * hard + 0.5 * p) * torch.log(p + EPS), 0.0)
    if class_weights is not None:
        cost = cost * _along_classes(class_weights, p)
    return cost.sum() / hard.sum().clamp(min=1)


def nll_multiple_binary(
    logits: Tensor, labels: Tensor, *, class_weights: Sequence[float] | None = None
) -> Tensor:
    """Mean binary cross-entropy of outputs (N, K), each with its own label in {0, 1} (N, K).

    `class_weights`: of labels 0 and 1. As in ELEKTRONN, the sigmoid is the probability of label 0,
    so that trained weights keep their meaning.
    """
    zero = torch.sigmoid(logits)
    weight_0, weight_1 = class_weights or (1.0, 1.0)
    one = labels.to(zero.dtype)
    return (
        -torch.log(zero + EPS) * (1 - one) * weight_0 - torch.log(1 - zero + EPS) * one * weight_1
    ).mean()


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of two tensors of equal shape."""
    return ((output - target) ** 2).mean()


def error_rate(logits: Tensor, labels: Tensor) -> Tensor:
    """Fraction of the labels >= 0 that differ from the most likely class; nan if there are none.

    `logits` (N, K, ...), `labels` (N, ...).
    """
    labelled = labels >= 0
    wrong = (logits.argmax(dim=1) != labels) & labelled
    return wrong.sum() / labelled.sum()


def binary_overlap(logits: Tensor, labels: Tensor) -> Tensor:
    """tp / (tp + fp + fn) of outputs (N, K) of `nll_multiple_binary`, ELEKTRONN's metric for it."""
    predicted, positive = logits < 0, labels > 0
    return (predicted & positive).sum() / (predicted | positive).sum()
