"""MALIS on the affinities of the family lsd; other heads keep their squared error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from retrace.losses.lsd import LsdLoss
from retrace.losses.lsd_mse import squared_error, squared_errors

if TYPE_CHECKING:
    from torch import Tensor

    from retrace.config.lsd_network import LsdNetworkSettings


def objects_and_known(known: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Where affinities are known (C, Z, Y, X), and connected objects (Z, Y, X)."""
    from retrace.targets.objects import connected_objects

    return {"affs_known": known, "objects": connected_objects(labels)}


def malis_terms(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], network: LsdNetworkSettings
) -> dict[str, Tensor]:
    """MALIS of the affinities (1, C, Z, Y, X), a scalar, and the squared errors of other heads."""
    if "objects" not in batch:
        return squared_errors(outputs, batch, network)
    # Imported here, because compiling MALIS takes seconds.
    from retrace.losses.malis import malis_loss

    targets = (batch["affs"], batch["affs_known"], batch["objects"])
    malis = malis_loss(outputs["affs"][0], *targets, network.neighborhood)
    heads = [head.name for head in network.heads]
    return {h: malis if h == "affs" else squared_error(h, outputs, batch) for h in heads}


MALIS = LsdLoss("the MALIS loss on affinities", malis_terms, affinity_inputs=objects_and_known)
