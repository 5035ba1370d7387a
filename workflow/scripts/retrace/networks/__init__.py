"""Networks, built from a network's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from retrace.networks.unet import UNet, build_unet, centre_crop
from retrace.networks.znn import ZnnNetwork, build_znn

__all__ = ["Network", "UNet", "ZnnNetwork", "build_network", "centre_crop"]

Network = UNet | ZnnNetwork
"""What the training loop and the predictor take."""


def build_network(
    network: Mapping[str, Any], *, seed: int = 0, device: torch.device | str = "cpu"
) -> Any:
    """The module of a network's configuration; a `Network` of its family.

    The weights depend on `seed` only, not on the device; "meta" gives shapes without memory.
    """
    build = build_znn if network["family"] == "znn" else build_unet
    return build(network, seed=seed, device=device)
