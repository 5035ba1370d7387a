"""Neural networks, built from a network's settings."""

from __future__ import annotations

from typing import Any

import torch

from retrace.config.families import FAMILIES
from retrace.config.network_settings import NetworkSettings
from retrace.errors import ConfigError
from retrace.networks.elektronn import ElektronnNetwork
from retrace.networks.unet import UNet
from retrace.networks.znn import ZnnNetwork

__all__ = ["ElektronnNetwork", "Network", "UNet", "ZnnNetwork", "build_network"]

Network = UNet | ZnnNetwork | ElektronnNetwork
"""A network that predicts volumes or single examples; input (N, C, ...), output {head: tensor}."""


def build_network(
    network: NetworkSettings, *, seed: int = 0, device: torch.device | str = "cpu"
) -> Any:
    """The module of a network's resolved settings, in training mode; see `Network`.

    Networks of the family seamless are `Seamless` instead. Weights are drawn from `seed` and are
    the same on every device; "meta" gives shapes without memory.
    """
    if not isinstance(network, NetworkSettings):
        raise ConfigError(
            f"{network!r} is no network; give what `network_by_name` returns, whose arguments are "
            "a name and a voxel size"
        )
    builder = FAMILIES[network.family].load("builder")
    return builder.build(**builder.arguments(network), seed=seed, device=device)
