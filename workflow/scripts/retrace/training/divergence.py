"""Ends a training whose loss or weights are no numbers, before they are saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from retrace.checkpoints.usable import unusable_weight
from retrace.errors import StateError

NEXT_STEP = "Lower `optimizer.lr` or set `precision: fp32`, and delete {work} to start over"


def check_loss(values: Tensor, terms: Sequence[str], iteration: int, work: Path) -> None:
    """StateError if a loss term of an iteration, `values` (terms,), is infinite.

    `retrace.training.compared.marked` has made divergent ones infinite; NaN had nothing to compare.
    """
    if not values.isinf().any():
        return
    shown = dict(zip(terms, values.tolist(), strict=True))
    raise StateError(
        f"the loss is no number at iteration {iteration}: {shown}; nothing was saved since the "
        f"last checkpoint. {NEXT_STEP.format(work=work)}"
    )


def check_trained_weights(module: nn.Module, iteration: int, work: Path) -> None:
    """StateError if a weight is NaN, infinite or absurdly large after an iteration."""
    unusable = unusable_weight(module.state_dict())
    if unusable is not None:
        raise StateError(
            f"the network has diverged by iteration {iteration}: {unusable}; nothing was saved "
            f"since the last checkpoint. {NEXT_STEP.format(work=work)}"
        )
