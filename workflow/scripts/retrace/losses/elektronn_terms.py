"""ELEKTRONN's losses as terms of a training, named by the network's `target`.

Each function gets the network's output, a batch and the network. The first term is minimised; with
class labels the second is the monitored error.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from retrace.config.elektronn_network import ElektronnNetworkSettings
from retrace.losses.elektronn import (
    binary_overlap,
    error_rate,
    nll,
    nll_multiple_binary,
    nll_weak,
    squared_error,
)

Batch = Mapping[str, Tensor]
"""`target` (N, ...), and what the loss needs besides."""


def nll_terms(output: Tensor, batch: Batch, network: ElektronnNetworkSettings) -> dict[str, Tensor]:
    """Negative log-likelihood of `output` (N, K, ...), and the error."""
    loss = nll(
        output,
        batch["target"],
        class_weights=network.class_weights,
        example_weights=batch.get("example_weights"),
        labelled=batch.get("labelled"),
        absent=batch.get("absent"),
        propagate_above=network.label_prop_thresh,
    )
    return {"nll": loss, "error": _error(output, batch)}


def weak_terms(
    output: Tensor, batch: Batch, network: ElektronnNetworkSettings
) -> dict[str, Tensor]:
    """Cross-entropy of `output` (N, K, ...) with targets that are half its own, and the error."""
    loss = nll_weak(output, batch["target"], class_weights=network.class_weights)
    return {"nll": loss, "error": _error(output, batch)}


def binary_terms(
    output: Tensor, batch: Batch, network: ElektronnNetworkSettings
) -> dict[str, Tensor]:
    """Binary cross-entropy of `output` (N, K), and 1 - overlap."""
    target = batch["target"]
    loss = nll_multiple_binary(output, target, class_weights=network.class_weights)
    return {"nll": loss, "error": (1 - binary_overlap(output, target)).detach()}


def squared_terms(
    output: Tensor, batch: Batch, network: ElektronnNetworkSettings
) -> dict[str, Tensor]:
    """Mean squared error of `output`, of any shape."""
    return {"mse": squared_error(output, batch["target"].reshape(output.shape))}


def _error(output: Tensor, batch: Batch) -> Tensor:
    return error_rate(output.detach(), batch["target"]).nan_to_num(0.0)
