"""The layers of a network of ELEKTRONN, their sizes and costs; without torch and pydantic."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from retrace.elektronn.calculator import Sizes, axes_of, sizes_at
from retrace.errors import ConfigError

MAXOUT = "maxout "

HEAD = "classes"
"""Output of networks that classify: the probabilities of the classes."""
RECONSTRUCTION = "reconstruction"
"""Output of an auto-encoder."""


@dataclass(frozen=True)
class ElektronnLayer:
    """A layer: convolution, pooling, dropout, bias and activation, in this order.

    `filter` and `pool` have one entry per axis; a perceptron layer has none.
    """

    maps: int
    filter: tuple[int, ...] = ()
    pool: tuple[int, ...] = ()
    activation: str = "relu"
    pooling: str = "max"

    @property
    def is_dense(self) -> bool:
        """Whether this is a perceptron layer."""
        return not self.filter

    @property
    def pieces(self) -> int:
        """Maps that `maxout N` combines into one; 1 for other activations.

        ConfigError for an activation that stored settings must not have.
        """
        word, _, number = self.activation.partition(" ")
        if f"{word} " != MAXOUT:
            return 1
        if not re.fullmatch("[1-9][0-9]{0,8}", number):
            raise ConfigError(f"activation_func {self.activation!r}; allowed: `maxout N`, N from 1")
        return int(number)

    @property
    def outputs(self) -> int:
        """Maps that the next layer reads."""
        return self.maps // self.pieces


@dataclass(frozen=True)
class Architecture:
    """The layers of a network and its input, which decide which weights fit.

    `input_shape` is (z, y, x), (y, x), or (units,).
    """

    mode: str
    input_channels: int
    input_shape: tuple[int, ...]
    layers: tuple[ElektronnLayer, ...]
    autoencoder: str | None = None
    """Activation of the tied decoder, where there is one."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values, as they are stored with the weights."""
        return {
            "mode": self.mode,
            "input_channels": self.input_channels,
            # Weights of a network of convolutions alone fit any input.
            "input_shape": None if self.mode == "img-img" else list(self.input_shape),
            "layers": [
                {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(layer).items()}
                for layer in self.layers
            ],
            "autoencoder": self.autoencoder,
        }

    @property
    def convolutions(self) -> tuple[ElektronnLayer, ...]:
        """The layers that are not perceptron layers."""
        return tuple(layer for layer in self.layers if not layer.is_dense)

    @property
    def sizes(self) -> Sizes | None:
        """Sizes of the convolutions at `input_shape`; None for a network without any."""
        if not self.convolutions:
            return None
        filters = [layer.filter for layer in self.convolutions]
        axes = axes_of(filters, [layer.pool for layer in self.convolutions])
        return sizes_at(axes, self.input_shape)

    @property
    def widths(self) -> list[int]:
        """Inputs of each layer: maps, or units of a perceptron layer."""
        widths, width = [], self.input_channels
        sizes = self.sizes
        if sizes is None:
            width *= math.prod(self.input_shape)
        for index, layer in enumerate(self.layers):
            if layer.is_dense and index and not self.layers[index - 1].is_dense:
                assert sizes is not None
                width *= math.prod(sizes.output)
            widths.append(width)
            width = layer.outputs
        return widths

    def parameters(self) -> list[int]:
        """Weights and biases of each layer."""
        return [
            layer.maps * (width * math.prod(layer.filter) + 1)
            for layer, width in zip(self.layers, self.widths, strict=True)
        ]

    def multiplications(self, batch_size: int = 1) -> list[int]:
        """Multiplications of each layer for one batch."""
        sizes, counts = self.sizes, []
        for index, (layer, width) in enumerate(zip(self.layers, self.widths, strict=True)):
            places = 1
            if not layer.is_dense:
                assert sizes is not None
                places = math.prod(axis[index] for axis in sizes.unpooled)
            counts.append(batch_size * places * layer.maps * width * math.prod(layer.filter))
        return counts


def from_dict(content: Mapping[str, Any]) -> Architecture:
    """The architecture with these fields, as JSON values."""
    layers = [
        ElektronnLayer(**{**one, "filter": tuple(one["filter"]), "pool": tuple(one["pool"])})
        for one in content["layers"]
    ]
    shape = tuple(content["input_shape"])
    return Architecture(**{**content, "input_shape": shape, "layers": tuple(layers)})
