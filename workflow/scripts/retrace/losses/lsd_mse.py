"""The weighted squared error of each head, as the LSD networks were trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from retrace.losses.lsd import LsdLoss

if TYPE_CHECKING:
    from torch import Tensor

    from retrace.config.lsd_network import LsdNetworkSettings


def squared_errors(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], network: LsdNetworkSettings
) -> dict[str, Tensor]:
    """A scalar for each head, from outputs (1, C, Z, Y, X), targets and weights."""
    return {head.name: squared_error(head.name, outputs, batch) for head in network.heads}


def squared_error(head: str, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """The weighted squared error of one head, a scalar."""
    from retrace.losses.weighted_mse import weighted_mse

    return weighted_mse(outputs[head][0], batch[head], batch[f"{head}_weight"])


MSE = LsdLoss("weighted squared error", squared_errors)
