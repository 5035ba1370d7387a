"""Layers of an ELEKTRONN network as plain data, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from retrace.elektronn.calculator import Sizes, axes_of, sizes_at
from retrace.errors import ConfigError, nearest

Settings = dict[str, Any]

NETWORK_MODES = ("img-img", "img-scalar", "vect-scalar")
ACTIVATIONS = ("relu", "tanh", "abs", "linear", "sigmoid")
MAXOUT = "maxout "
POOLINGS = ("max", "maxabs")

HEAD = "classes"
"""The output of networks that classify: probabilities of the classes."""
RECONSTRUCTION = "reconstruction"
"""The output of an auto-encoder."""


@dataclass(frozen=True)
class Layer:
    """A layer: convolution, pooling, dropout, bias, activation, in this order.

    `filter` and `pool` have an entry an axis, and none where every unit sees the whole input.
    """

    maps: int
    filter: tuple[int, ...] = ()
    pool: tuple[int, ...] = ()
    activation: str = "relu"
    pooling: str = "max"

    @property
    def is_dense(self) -> bool:
        """Whether it is a perceptron layer."""
        return not self.filter

    @property
    def pieces(self) -> int:
        """Maps that `maxout N` makes one of; else 1."""
        text = self.activation
        return int(text.removeprefix(MAXOUT)) if text.startswith(MAXOUT) else 1

    @property
    def outputs(self) -> int:
        """Maps that the next layer reads."""
        return self.maps // self.pieces


@dataclass(frozen=True)
class Architecture:
    """What decides which weights fit. `input_shape` (z, y, x), (y, x), or (units,)."""

    mode: str
    input_channels: int
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    autoencoder: str | None = None
    """Activation of the tied decoder, where there is one."""

    def as_dict(self) -> Settings:
        """Plain lists and dicts, as they are stored beside the weights."""
        return {
            "mode": self.mode,
            "input_channels": self.input_channels,
            # A network of convolutions alone takes any input, so its weights fit all of them.
            "input_shape": None if self.mode == "img-img" else list(self.input_shape),
            "layers": [
                {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(layer).items()}
                for layer in self.layers
            ],
            "autoencoder": self.autoencoder,
        }

    @property
    def convolutions(self) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.layers if not layer.is_dense)

    @property
    def sizes(self) -> Sizes | None:
        """Sizes of the convolutions at `input_shape`; None where there are none."""
        if not self.convolutions:
            return None
        filters = [layer.filter for layer in self.convolutions]
        axes = axes_of(filters, [layer.pool for layer in self.convolutions])
        return sizes_at(axes, self.input_shape)

    @property
    def widths(self) -> list[int]:
        """What each layer reads: maps, or of perceptron layers units."""
        found, width = [], self.input_channels
        sizes = self.sizes
        if sizes is None:
            width *= math.prod(self.input_shape)
        for index, layer in enumerate(self.layers):
            if layer.is_dense and index and not self.layers[index - 1].is_dense:
                assert sizes is not None
                width *= math.prod(sizes.output)
            found.append(width)
            width = layer.outputs
        return found

    def parameters(self) -> list[int]:
        """Weights and biases of each layer."""
        return [
            layer.maps * (width * math.prod(layer.filter) + 1)
            for layer, width in zip(self.layers, self.widths, strict=True)
        ]

    def multiplications(self, batch_size: int = 1) -> list[int]:
        """Multiplications of each layer, for a batch."""
        sizes, found = self.sizes, []
        for index, (layer, width) in enumerate(zip(self.layers, self.widths, strict=True)):
            places = 1
            if not layer.is_dense:
                assert sizes is not None
                places = math.prod(axis[index] for axis in sizes.unpooled)
            found.append(batch_size * places * layer.maps * width * math.prod(layer.filter))
        return found


def from_dict(content: Mapping[str, Any], input_shape: Sequence[int]) -> Architecture:
    """What `Architecture.as_dict` made, at an input."""
    layers = [
        Layer(**{**layer, "filter": tuple(layer["filter"]), "pool": tuple(layer["pool"])})
        for layer in content["layers"]
    ]
    shape = tuple(content["input_shape"] or input_shape)
    channels, decoder = content["input_channels"], content["autoencoder"]
    return Architecture(content["mode"], channels, shape, tuple(layers), decoder)


def architecture_of(network: Mapping[str, Any]) -> Architecture:
    """The layers that ELEKTRONN makes of its parameters (all given, axes in the order z, y, x).

    The last layer is added: `n_lab` maps of filters of one voxel, or units. A 2-D network of
    images and label images is one whose filters have a single section. ConfigError for parameters
    that contradict each other.
    """
    name, mode = network["name"], network["mode"]
    count = len(network["nof_filters"])
    check_counts(network, count)
    axes = 0 if mode == "vect-scalar" else network["n_dim"]
    flat = mode == "img-img" and axes == 2
    total = count + len(network["MLP_layers"])
    activations = _each(network, "activation_func", total)
    poolings = _each(network, "pooling_mode", count)
    layers = [
        Layer(
            network["nof_filters"][i],
            _lifted(_shape(network["filters"][i], axes, f"{name}: filters"), flat),
            _lifted(_shape(network["pool"][i], axes, f"{name}: pool"), flat),
            activations[i],
            poolings[i],
        )
        for i in range(count)
    ]
    layers += [
        Layer(units, activation=activation)
        for units, activation in zip(network["MLP_layers"], activations[count:], strict=True)
    ]
    decoder = network.get("autoencoder")
    if decoder is None:
        one = (1,) * (3 if flat else axes) if mode == "img-img" else ()
        layers.append(Layer(network["n_lab"], one, one, "linear"))
    shape = _shape(network["desired_input"], axes or 1, f"{name}: desired_input")
    found = Architecture(
        mode,
        network["input_channels"],
        _lifted(shape, flat),
        tuple(layers),
        None if decoder is None else decoder["activation_func"],
    )
    _check_layers(name, found)
    return found


def check_counts(network: Mapping[str, Any], count: int) -> None:
    """ConfigError for numbers of layers that do not go together."""
    name, mode = network["name"], network["mode"]
    for key in ("filters", "pool"):
        if len(network[key]) != count:
            raise ConfigError(
                f"network {name!r}: nof_filters has {count} entries and {key} "
                f"{len(network[key])}; each convolution needs one of both"
            )
    if mode == "img-img" and (network["MLP_layers"] or not count):
        raise ConfigError(
            f"network {name!r}: mode img-img is made of convolutions alone, at least one; "
            f"MLP_layers is {network['MLP_layers']}, nof_filters {network['nof_filters']}"
        )
    if mode == "vect-scalar" and count:
        raise ConfigError(
            f"network {name!r}: mode vect-scalar has no convolutions; remove `filters`, `pool` and "
            "`nof_filters`, or take mode img-scalar"
        )
    if mode == "img-scalar" and not network["MLP_layers"]:
        raise ConfigError(
            f"network {name!r}: mode img-scalar needs `MLP_layers`, for example [300, 300]"
        )
    if network.get("autoencoder") and (count or not network["MLP_layers"]):
        raise ConfigError(
            f"network {name!r}: a tied auto-encoder is made of `MLP_layers` alone; remove "
            "`nof_filters`, `filters` and `pool`"
        )


def _check_layers(name: str, found: Architecture) -> None:
    for layer in found.layers:
        if not layer.activation.startswith(MAXOUT) and layer.activation not in ACTIVATIONS:
            raise ConfigError(
                f"network {name!r}: activation_func {layer.activation!r}; "
                f"{nearest(layer.activation, [*ACTIVATIONS, 'maxout 2'])}"
            )
        if layer.pieces < 1 or layer.maps % layer.pieces:
            raise ConfigError(
                f"network {name!r}: {layer.activation!r} makes one of every {layer.pieces} maps, "
                f"and a layer has {layer.maps}; take a multiple"
            )
        if layer.pooling not in POOLINGS:
            hint = nearest(layer.pooling, POOLINGS)
            raise ConfigError(f"network {name!r}: pooling_mode {layer.pooling!r}; {hint}")
    try:
        sizes = found.sizes
    except ConfigError as error:
        raise ConfigError(f"network {name!r}, desired_input: {error}") from None
    if found.mode != "img-img" or sizes is None:
        return
    for axis, field in zip("zyx", sizes.fields, strict=True):
        if field[-1] % 2 == 0:
            raise ConfigError(
                f"network {name!r}: the field of view on axis {axis} is {field[-1]}, an even "
                "number, so that no output lies on a voxel; make the first filter one larger"
            )


def _each(network: Mapping[str, Any], key: str, count: int) -> list[Any]:
    """One value a layer, of a value for all or of a list."""
    value = network[key]
    values = list(value) if isinstance(value, list) else [value] * count
    if len(values) != count:
        raise ConfigError(
            f"network {network['name']!r}: {key} has {len(values)} entries for {count} layers; "
            "give one for each (the last layer, which is added, has none), or one for all"
        )
    return values


def dropout_of(network: Mapping[str, Any], layers: int) -> list[float]:
    """The share that each layer drops; the last layer, which is added, never does."""
    rates = network["dropout_rates"] or 0
    own = layers if network.get("autoencoder") else layers - 1
    given = _each({**network, "dropout_rates": rates}, "dropout_rates", own)
    return [float(rate) for rate in given] + [0.0] * (layers - own)


def _shape(value: Any, axes: int, where: str) -> tuple[int, ...]:
    """One number an axis, of a number for all or of a list."""
    shape = tuple(value) if isinstance(value, list) else (value,) * axes
    if len(shape) != axes:
        raise ConfigError(f"network {where} {list(shape)} has {len(shape)} axes, not {axes}")
    return shape


def _lifted(shape: tuple[int, ...], flat: bool) -> tuple[int, ...]:
    return (1, *shape) if flat else shape
