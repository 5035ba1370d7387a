"""Small networks of ELEKTRONN as modules."""

from __future__ import annotations

from typing import Any

import tiny_elektronn as tiny
from built_networks import built
from retrace.config import networks
from retrace.config.network_settings import DatasetTraits
from retrace.networks import ElektronnNetwork


def build(seed: int = 0, **changes: Any) -> ElektronnNetwork:
    module = built(tiny.network(**changes), seed=seed)
    assert isinstance(module, ElektronnNetwork)
    return module


def digits(seed: int = 0, **changes: Any) -> ElektronnNetwork:
    """A network of single inputs."""
    content = {"name": "digits", "family": "elektronn", "n_lab": 10, **changes}
    module = built(networks.resolved(content, DatasetTraits(), "digits"), seed=seed)
    assert isinstance(module, ElektronnNetwork)
    return module


IMAGE_TO_SCALAR: dict[str, Any] = {
    "mode": "img-scalar",
    "n_dim": 2,
    "desired_input": 10,
    "filters": [3],
    "pool": [2],
    "nof_filters": [2],
    "MLP_layers": [5],
}
"""A network of images with perceptrons at its end."""
