"""Networks built from settings that a test writes as JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.any_network import of_family
from retrace.config.network_settings import NetworkSettings
from retrace.networks import build_network


def built(network: NetworkSettings | Mapping[str, Any], **options: Any) -> Any:
    """`build_network` of these settings, checked as the model of their family."""
    return build_network(of_family(network), **options)
