"""The layers that ELEKTRONN derives from the parameters of a network."""

from __future__ import annotations

from typing import Any

from retrace.elektronn.architecture import Architecture, ElektronnLayer
from retrace.elektronn.parameters import ElektronnParameters, Size
from retrace.errors import ConfigError
from retrace.limits import LAYERS


def architecture_of(name: str, parameters: ElektronnParameters) -> Architecture:
    """The layers of network `name`, as ELEKTRONN derives them from its parameters.

    The last layer is added: `n_lab` maps of filters of one voxel, or `n_lab` units. A 2-D network
    of volumes is a 3-D one whose filters have a single section. ConfigError for parameters that
    contradict each other.
    """
    mode = parameters.mode
    check_counts(name, parameters)
    axes = 0 if mode == "vect-scalar" else parameters.n_dim
    flat = mode == "img-img" and axes == 2
    layers = _own_layers(name, parameters, axes, flat)
    decoder = parameters.autoencoder
    if decoder is None:
        if parameters.n_lab is None:
            raise ConfigError(
                f"network {name!r} needs `n_lab`, the number of classes; 2 for barriers"
            )
        single = (1,) * (3 if flat else axes) if mode == "img-img" else ()
        layers.append(ElektronnLayer(parameters.n_lab, single, single, "linear"))
    if parameters.desired_input is None:
        raise ConfigError(f"network {name!r} needs `desired_input`, the input of one example")
    shape = _shape(parameters.desired_input, axes or 1, f"{name}: desired_input")
    architecture = Architecture(
        mode,
        parameters.input_channels,
        _lifted(shape, flat),
        tuple(layers),
        None if decoder is None else decoder.activation_func,
    )
    _check_layers(name, architecture)
    return architecture


def _own_layers(
    name: str, parameters: ElektronnParameters, axes: int, flat: bool
) -> list[ElektronnLayer]:
    """All layers except the last, which is added."""
    count = len(parameters.nof_filters)
    total = count + len(parameters.MLP_layers)
    activations = _each(name, "activation_func", parameters.activation_func, total)
    poolings = _each(name, "pooling_mode", parameters.pooling_mode, count)
    layers = [
        ElektronnLayer(
            parameters.nof_filters[i],
            _lifted(_shape(parameters.filters[i], axes, f"{name}: filters"), flat),
            _lifted(_shape(parameters.pool[i], axes, f"{name}: pool"), flat),
            activations[i],
            poolings[i],
        )
        for i in range(count)
    ]
    perceptrons = zip(parameters.MLP_layers, activations[count:], strict=True)
    return [
        *layers,
        *(ElektronnLayer(units, activation=activation) for units, activation in perceptrons),
    ]


def check_counts(name: str, parameters: ElektronnParameters) -> None:
    """ConfigError for numbers of layers that contradict each other or the mode."""
    mode, count = parameters.mode, len(parameters.nof_filters)
    perceptrons = list(parameters.MLP_layers)
    if count + len(perceptrons) > LAYERS:
        raise ConfigError(
            f"network {name!r} has {count + len(perceptrons)} layers; allowed: up to {LAYERS}"
        )
    for key in ("filters", "pool"):
        if len(getattr(parameters, key)) != count:
            raise ConfigError(
                f"network {name!r}: nof_filters has {count} entries and {key} "
                f"{len(getattr(parameters, key))}; each convolution needs one of both"
            )
    if mode == "img-img" and (perceptrons or not count):
        raise ConfigError(
            f"network {name!r}: mode img-img has only convolutions, at least one; "
            f"MLP_layers is {perceptrons}, nof_filters {list(parameters.nof_filters)}"
        )
    if mode == "vect-scalar" and count:
        raise ConfigError(
            f"network {name!r}: mode vect-scalar has no convolutions; remove `filters`, `pool` and "
            "`nof_filters`, or take mode img-scalar"
        )
    if mode == "img-scalar" and not perceptrons:
        raise ConfigError(
            f"network {name!r}: mode img-scalar needs `MLP_layers`, for example [300, 300]"
        )
    if parameters.autoencoder and (count or not perceptrons):
        raise ConfigError(
            f"network {name!r}: a tied auto-encoder has only `MLP_layers`; remove "
            "`nof_filters`, `filters` and `pool`"
        )


def _check_layers(name: str, architecture: Architecture) -> None:
    for layer in architecture.layers:
        if layer.maps % layer.pieces:
            raise ConfigError(
                f"network {name!r}: {layer.activation!r} makes one of every {layer.pieces} maps, "
                f"and a layer has {layer.maps}; take a multiple"
            )
    try:
        sizes = architecture.sizes
    except ConfigError as error:
        raise ConfigError(f"network {name!r}, desired_input: {error}") from None
    if architecture.mode != "img-img" or sizes is None:
        return
    for axis, field in zip("zyx", sizes.fields, strict=True):
        if field[-1] % 2 == 0:
            raise ConfigError(
                f"network {name!r}: the field of view on axis {axis} is {field[-1]}, an even "
                "number, so that no output is centred on a voxel; make the first filter one larger"
            )


def _each(name: str, key: str, value: Any, count: int) -> list[Any]:
    """One value for each layer, from one value for all or a sequence."""
    values = list(value) if isinstance(value, tuple) else [value] * count
    if len(values) != count:
        raise ConfigError(
            f"network {name!r}: {key} has {len(values)} entries for {count} layers; give one for "
            "each (the last layer, which is added, has none), or one for all"
        )
    return values


def dropout_of(name: str, parameters: ElektronnParameters, layers: int) -> list[float]:
    """The fraction that each of `layers` layers drops; the added last layer never drops any."""
    own = layers if parameters.autoencoder else layers - 1
    rates = _each(name, "dropout_rates", parameters.dropout_rates or 0, own)
    return [float(rate) for rate in rates] + [0.0] * (layers - own)


def check_lists(name: str, parameters: ElektronnParameters) -> None:
    """ConfigError for weights and channels that the network's classes and input do not have."""
    weights, channels = parameters.class_weights, parameters.input_channels
    classes = 2 if parameters.target == "nll_multiple_binary" else parameters.n_lab
    if weights is not None and classes is not None and len(weights) != classes:
        raise ConfigError(
            f"network {name!r}: class_weights has {len(weights)} entries for {classes} classes; "
            "give one for each"
        )
    if spare := [n for n in parameters.grey_augment_channels if n >= channels]:
        raise ConfigError(
            f"network {name!r}: grey_augment_channels names channel {spare[0]}, and the input has "
            f"{channels} (input_channels); give numbers below {channels}"
        )


def _shape(value: Size, axes: int, where: str) -> tuple[int, ...]:
    """One number for each axis, from one number for all or a sequence."""
    shape = value if isinstance(value, tuple) else (value,) * axes
    if len(shape) != axes:
        raise ConfigError(f"network {where} {list(shape)} has {len(shape)} axes, not {axes}")
    return shape


def _lifted(shape: tuple[int, ...], flat: bool) -> tuple[int, ...]:
    """A 2-D shape as a 3-D one of a single section, where `flat`."""
    return (1, *shape) if flat else shape
