"""Counts the weights of a network from its settings, and refuses what no machine can hold.

Settings are foreign where they come from a .znn, a configuration of ELEKTRONN or a file of weights,
and a number with too many zeros is a common mistake. Nothing is built before it is counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from retrace.errors import ConfigError
from retrace.limits import LAYERS, MAPS, PATCH_VALUES, WEIGHTS, counted


class WeightedLayer(NamedTuple):
    """A convolution or perceptron layer, with a bias for each output."""

    name: str
    """For messages: a layer, or the settings that decide its size."""
    inputs: int
    outputs: int
    """Feature maps, or units."""
    taps: int = 1
    """Weights of the filter from one map to another."""

    @property
    def weights(self) -> int:
        """Weights and biases."""
        return self.outputs * (self.inputs * self.taps + 1)


def check_layers(network: str, layers: Iterable[WeightedLayer]) -> None:
    """ConfigError for more layers, feature maps or weights than a network of this name may have.

    `layers` may be endless, and grow beyond all bounds: no more are made than are allowed.
    """
    weights = 0
    for number, layer in enumerate(layers, start=1):
        if number > LAYERS:
            raise ConfigError(
                f"{network} has more than {LAYERS} layers with weights, which are allowed; take "
                "fewer levels, layers or outputs"
            )
        if layer.outputs > MAPS:
            raise ConfigError(
                f"{network}: {layer.name} has {counted(layer.outputs)} feature maps; allowed: 1 to "
                f"{MAPS}. Lower that number"
            )
        weights += layer.weights
        if weights > WEIGHTS:
            raise ConfigError(
                f"{network}: the layers up to {layer.name} have {counted(weights)} weights; "
                f"allowed: up to {WEIGHTS}. Take fewer feature maps, or smaller filters"
            )


def check_patch(
    network: str, key: str, shape: Sequence[int], channels: int, batch: int = 1
) -> None:
    """ConfigError for a patch of more values than fit into any memory; `key`: its setting."""
    values = math.prod(shape) * channels * batch
    if values > PATCH_VALUES:
        sizes = " x ".join(counted(size) for size in shape)
        raise ConfigError(
            f"{network}: {key} of {sizes} voxels, {counted(channels)} channels and a batch of "
            f"{counted(batch)} has {counted(values)} values; allowed: up to {PATCH_VALUES}. Take "
            "a smaller one"
        )
