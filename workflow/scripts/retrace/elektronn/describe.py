"""Sizes, parameters and costs of a network as a table, as ELEKTRONN prints them before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrace.elektronn.architecture import Architecture
from retrace.elektronn.calculator import axes_of, sizes_near, uncentred
from retrace.elektronn.layers import architecture_of
from retrace.elektronn.parameters import ElektronnParameters
from retrace.errors import ConfigError

UNITS = ((1e9, "Giga"), (1e6, "Mega"), (1e3, "kilo"))
ROW_LABELS = {
    "input": "Input",
    "layers": "Layer/Fragment sizes",
    "unpooled": "Unpooled Layer sizes",
    "fields": "Receptive fields",
    "strides": "Strides",
    "overlaps": "Overlap",
    "offset": "Offset",
    "output": "Output",
    "valid_around": "Valid inputs around",
}
"""Labels as in ELEKTRONN."""
VALID_INPUTS_SHOWN = 3
"""Valid inputs on each side that are shown."""


def at_input(
    name: str,
    parameters: ElektronnParameters,
    exact: Sequence[int] | None = None,
    desired: Sequence[int] | None = None,
) -> Architecture:
    """The layers of network `name` at its own input, or at another (z, y, x).

    `exact` is refused if it does not fit; for `desired` the nearest smaller size is taken.
    """
    if exact and desired:
        raise ConfigError("--input and --desired exclude each other")
    if desired and parameters.filters:
        own = architecture_of(name, parameters)
        layers = [(layer.filter, layer.pool) for layer in own.convolutions]
        axes = axes_of([f for f, _ in layers], [p for _, p in layers])
        flat = len(desired) < len(axes)
        exact = list(sizes_near(axes, [1, *desired] if flat else desired).input)[flat:]
    return architecture_of(name, parameters.with_(desired_input=exact) if exact else parameters)


def description(
    architecture: Architecture, batch_size: int = 1, dropout: Sequence[float] = ()
) -> dict[str, Any]:
    """Everything that `describe` shows; lists have one entry per axis (z, y, x), or per layer.

    `dropout`: the fraction that each layer drops; none without.
    """
    per_layer = _layer_rows(architecture, batch_size, dropout)
    return {
        "mode": architecture.mode,
        "batch_size": batch_size,
        **_sizes(architecture),
        "per_layer": per_layer,
        "parameters": sum(row["parameters"] for row in per_layer),
        "multiplications": sum(row["multiplications"] for row in per_layer),
    }


def _sizes(architecture: Architecture) -> dict[str, Any]:
    """Sizes along each axis; of a network without convolutions that of its input."""
    sizes = architecture.sizes
    if sizes is None:
        return {"input": list(architecture.input_shape)}
    names = ("layers", "unpooled", "fields", "strides", "overlaps", "offset", "output")
    return {
        **{name: getattr(sizes, name) for name in names},
        "input": list(sizes.input),
        "not_centred": uncentred(sizes.axes),
        "valid_around": [
            [n for n in axis.valid if n < size][-VALID_INPUTS_SHOWN:]
            + [n for n in axis.valid if n >= size][: VALID_INPUTS_SHOWN + 1]
            for axis, size in zip(sizes.axes, sizes.input, strict=True)
        ],
    }


def _layer_rows(
    architecture: Architecture, batch_size: int, dropout: Sequence[float]
) -> list[dict[str, Any]]:
    """What each layer computes, and its costs."""
    parameters = architecture.parameters()
    cost = architecture.multiplications(batch_size)
    rates, maps = dropout or [0.0] * len(parameters), _maps_of(architecture)
    columns = (architecture.layers, architecture.widths, parameters, cost, rates, maps)
    return [
        {
            "kind": "perceptron" if layer.is_dense else "convolution",
            "inputs": width,
            "outputs": layer.outputs,
            "input_shape": [batch_size, width, *read],
            "filter_shape": [layer.maps, width, *layer.filter],
            "output_shape": [batch_size, layer.outputs, *given],
            "filter": list(layer.filter),
            "pool": list(layer.pool),
            "pooling": None if layer.is_dense else layer.pooling,
            "activation": layer.activation,
            "dropout": rate,
            "parameters": count,
            "multiplications": multiplications,
        }
        for layer, width, count, multiplications, rate, (read, given) in zip(*columns, strict=True)
    ]


def _maps_of(architecture: Architecture) -> list[tuple[list[int], list[int]]]:
    """Per layer the sizes of the maps that it reads and gives; empty for perceptrons."""
    sizes = architecture.sizes
    own = [list(size) for size in zip(*sizes.layers, strict=True)] if sizes is not None else []
    read = [list(architecture.input_shape), *own]
    flat = len(architecture.layers) - len(own)
    return [*zip(read, own, strict=False), *[([], [])] * flat]


def in_units(count: float) -> str:
    """A count as ELEKTRONN prints it, such as 4.1 Mega."""
    for size, name in UNITS:
        if count >= size:
            return f"{count / size:.1f} {name}"
    return f"{count:.1f} "


def _row(number: int, layer: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of a layer; shapes are (batch, maps, sizes), of filters (maps, inputs, sizes)."""
    shapes = ("input_shape", "filter_shape", "output_shape")
    pooled = "" if layer["pooling"] is None else f"{layer['pooling']} {_times(layer['pool'])}"
    return (
        f"{number} {layer['kind']}",
        *(_times(layer[name]) for name in shapes),
        f"{layer['dropout']:g}" if layer["dropout"] else "off",
        layer["activation"],
        pooled,
        str(layer["parameters"]),
        f"{in_units(layer['multiplications'])} Ops",
    )


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def table(content: Mapping[str, Any]) -> str:
    """The description as text."""
    lines = [
        f"{label + ':':<22}{content[key]}" for key, label in ROW_LABELS.items() if key in content
    ]
    for axis in content.get("not_centred", []):
        lines.append(f"Not centred on axis {axis}: the field of view is even")
    lines.append("")
    head = ("layer", "input", "filter", "output", "dropout", "activation", "pool")
    rows: list[tuple[str, ...]] = [(*head, "parameters", "cost")]
    rows += [_row(number, layer) for number, layer in enumerate(content["per_layer"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines += [
        "  ".join(text.ljust(n) for text, n in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.append("")
    lines.append(
        f"Batch of {content['batch_size']}: {in_units(content['multiplications'])} Ops. "
        f"Total count of trainable parameters: {content['parameters']}"
    )
    return "\n".join(lines)
