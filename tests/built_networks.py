"""Networks built from settings that a test writes as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrace.config.any_network import of_family
from retrace.config.network_settings import NetworkSettings
from retrace.networks import UNet, build_network


def built(network: NetworkSettings | Mapping[str, Any], **options: Any) -> Any:
    """`build_network` of these settings, checked as the model of their family."""
    return build_network(of_family(network), **options)


def is_valid_shape(unet: UNet, input_shape: Sequence[int]) -> bool:
    """Whether every pooling divides evenly, so that output shape = input shape - context."""
    outputs = [max(size - lost, 1) for size, lost in zip(input_shape, unet.context, strict=True)]
    return unet.valid_shape(outputs) == tuple(input_shape)
