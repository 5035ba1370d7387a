"""Networks, built from a network's configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from retrace.networks.elektronn import ElektronnNetwork, build_elektronn
from retrace.networks.unet import UNet, build_unet, centre_crop
from retrace.networks.znn import ZnnNetwork, build_znn

__all__ = ["ElektronnNetwork", "Network", "UNet", "ZnnNetwork", "build_network", "centre_crop"]

Network = UNet | ZnnNetwork | ElektronnNetwork
"""What the training loop and the predictor take."""


BUILDERS: dict[str, Callable[..., Network]] = {
    "lsd": build_unet,
    "znn": build_znn,
    "elektronn": build_elektronn,
}


def build_network(
    network: Mapping[str, Any], *, seed: int = 0, device: torch.device | str = "cpu"
) -> Any:
    """The module of a network's configuration; a `Network` of its family.

    The weights depend on `seed` only, not on the device; "meta" gives shapes without memory.
    """
    return BUILDERS[network["family"]](network, seed=seed, device=device)
