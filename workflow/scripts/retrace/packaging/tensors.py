"""What a packaged network reads and gives: tensors, axes as bioimage.io writes them, test values.

Three kinds of networks: of volumes (one output a voxel), of pairs of sections (a field), and of
single examples (one answer for a whole input).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from retrace.alignment.pair import FIELD
from retrace.config.families import family_of
from retrace.elektronn.architecture import RECONSTRUCTION
from retrace.errors import DataError

TEST_OUTPUT = (2, 8, 8)
"""Voxels that the test tensors of volumes give at least."""
TEST_SIDE = 64
"""Pixels that a test section has at least."""
TEST_EXAMPLES = 2
SEED = 0
"""Of the test input."""
SHORTEST_BLUR = 2
"""Voxels that the test input is smoothed over, so that it looks less like noise."""

Axes = list[dict[str, Any]]


@dataclass(frozen=True)
class Scaling:
    """Grey values v, 0 to 255, become v / 255 * span + offset."""

    span: float
    offset: float

    def of(self, grey: torch.Tensor) -> torch.Tensor:
        """The scaled values."""
        return grey / 255 * self.span + self.offset

    def code(self) -> str:
        """The same behind a tensor, in Python."""
        span = "" if self.span == 1 else f" * {self.span:g}"
        return f" / 255{span} {'-' if self.offset < 0 else '+'} {abs(self.offset):.17g}"

    def step(self) -> dict[str, Any]:
        """The same as bioimage.io's preprocessing."""
        kwargs = {"gain": self.span / 255, "offset": self.offset}
        return {"id": "scale_linear", "kwargs": kwargs}


@dataclass(frozen=True, eq=False)
class Port:
    """A tensor that is read or given: its name, what it holds, its axes and its test values."""

    name: str
    description: str
    axes: Axes
    test: np.ndarray


@dataclass(frozen=True)
class Form:
    """All tensors of a package, and its words for them."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    reading: str
    """A paragraph of the README: shapes, values, sizes."""
    becomes: str
    """What is made of what, in a line."""
    tags: tuple[str, ...]
    scaling: Scaling | None = None


def form_of(
    module: Any,
    network: Mapping[str, Any],
    dataset: Mapping[str, Any],
    metadata: Mapping[str, Any],
) -> Form:
    """The form of a network in evaluation mode, with test values that it made itself.

    `metadata`: what is stored beside the weights.
    """
    family = family_of(network)
    if family.reads_stacks:
        return _sections(module, network, dataset)
    if family.reads_examples and not module.is_dense:
        return _examples(module, network, metadata)
    return _volumes(module, network, dataset)


def _run(module: Any, inputs: Sequence[np.ndarray], scaling: Scaling | None) -> dict[str, Any]:
    """What the module gives, by output."""
    read = [torch.from_numpy(values) for values in inputs]
    with torch.inference_mode():
        outputs = module(*(scaling.of(x) if scaling else x for x in read))
    return {name: y.float().numpy() for name, y in outputs.items()}


def _smooth_noise(shape: Sequence[int]) -> np.ndarray:
    """Noise (C, ...) smoothed along all axes but the first, stretched to [0, 1]."""
    values = np.random.default_rng(SEED).random(tuple(shape))
    for axis in range(1, values.ndim):
        for _ in range(min(SHORTEST_BLUR, values.shape[axis] - 1)):
            values = (values + np.roll(values, 1, axis)) / 2
    low, high = values.min(), values.max()
    return np.asarray((values - low) / (high - low))


def _grey(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as whole grey values, float32."""
    return np.asarray(np.round(values * 255).astype(np.float32))


def _channels(count: int, name: str) -> dict[str, Any]:
    return {"type": "channel", "channel_names": [f"{name}{index}" for index in range(count)]}


def _space(sizes: Sequence[Any], voxel_size_nm: Sequence[float] | None) -> Axes:
    """The last axes of z, y, x with these sizes, in nm where voxels have a size."""
    edges: Axes = [{} for _ in sizes]
    if voxel_size_nm is not None:
        edges = [{"unit": "nanometer", "scale": float(v)} for v in voxel_size_nm[-len(sizes) :]]
    names = "zyx"[-len(sizes) :]
    return [
        {"type": "space", "id": axis, **edge, "size": size}
        for axis, edge, size in zip(names, edges, sizes, strict=True)
    ]


# ---------------------------------------------------------------- volumes

VOLUMES = """\
Input (N, {channels}, Z, Y, X), {values}. Voxels are {voxel} nm (z, y, x).
Convolutions are valid: the output is {context} voxels (z, y, x) smaller than the input and lies in
its middle. The smallest input is {least}; every axis may grow in steps of {step}."""


def _volumes(module: Any, network: Mapping[str, Any], dataset: Mapping[str, Any]) -> Form:
    voxel, channels = dataset["voxel_size_nm"], network["input_channels"]
    scaling = Scaling(2, -1) if family_of(network).scales_raw and channels == 1 else None
    least, step = (
        [int(n) for n in shape] for shape in (module.valid_shape(TEST_OUTPUT), module.stride)
    )
    noise = _smooth_noise((channels, *least))[None]
    read = _grey(noise) if scaling else noise.astype(np.float32)
    sizes = [{"min": size, "step": by} for size, by in zip(least, step, strict=True)]
    values = _volume_values(network, scaling)
    axes = [{"type": "batch"}, _channels(channels, "raw"), *_space(sizes, voxel)]
    given = _run(module, [read], scaling)
    heads = [head["name"] for head in network["heads"]]
    return Form(
        inputs=(Port("raw", values, axes, read),),
        outputs=tuple(_map(h, module.context, voxel, given[h["name"]]) for h in network["heads"]),
        reading=VOLUMES.format(
            channels=channels,
            values=values,
            voxel=list(voxel),
            context=list(module.context),
            least=least,
            step=step,
        ),
        becomes=f"electron microscopy to {' and '.join(heads)}",
        tags=("electron-microscopy", "connectomics", "3d", "segmentation"),
        scaling=scaling,
    )


def _map(
    head: Mapping[str, Any], context: Sequence[int], voxel: Sequence[int], test: np.ndarray
) -> Port:
    """An output with a value for every voxel whose field of view is inside."""
    sizes = [
        {"tensor_id": "raw", "axis_id": axis, "offset": -int(lost)}
        for axis, lost in zip("zyx", context, strict=True)
    ]
    name, count = head["name"], head["channels"]
    axes = [{"type": "batch"}, _channels(count, name), *_space(sizes, voxel)]
    return Port(name, f"{name}, {count} channels", axes, test)


def _volume_values(network: Mapping[str, Any], scaling: Scaling | None) -> str:
    if scaling:
        return "float32: grey values of raw, 0 to 255, which are read as 2 v / 255 - 1"
    family = family_of(network)
    if family.scales_raw:
        return "float32: raw in [-1, 1] (where there is raw), then predicted descriptors in [0, 1]"
    if family.unit_images:
        return "float32, grey values of raw divided by 255"
    return "float32, on the scale that `preprocess` of the data set gave in training"


# ---------------------------------------------------------------- pairs of sections

SECTIONS = """\
Two inputs (N, 1, Y, X), `source` and `target`: float32 grey values of sections, 0 to 255, as they
were imaged; areas of 5 x 5 zeros or more count as not imaged. Contrast is evened out inside
({contrast}). Pixels are {pixel} nm (y, x); sides are multiples of {unit} pixels.
`field` (N, 2, Y, X), along y and x in pixels of the sections: the aligned source at r is the
source read at r + field(r), bilinearly, 0 outside. No masks are read: they are for training."""


def _sections(module: Any, network: Mapping[str, Any], dataset: Mapping[str, Any]) -> Form:
    unit = 2**module.coarsest
    side = -(-TEST_SIDE // unit) * unit
    pixel, contrast = dataset["voxel_size_nm"][1:], network["contrast"]
    target = _grey(_smooth_noise((1, side, side))[None])
    pair = {"source": np.roll(target, 1, -1), "target": target}
    sizes = {
        "source": [{"min": side, "step": unit}] * 2,
        "target": [{"tensor_id": "source", "axis_id": axis} for axis in "yx"],
    }
    told = "float32, grey values of a section, 0 to 255; 0 where nothing was imaged"
    given = _run(module, [*pair.values()], None)[FIELD]
    begins: Axes = [{"type": "batch"}]
    along = {"type": "channel", "channel_names": ["field_y", "field_x"]}
    return Form(
        inputs=tuple(
            Port(name, told, [*begins, _channels(1, name), *_space(sizes[name], pixel)], values)
            for name, values in pair.items()
        ),
        outputs=(
            Port(
                FIELD,
                "displacement y, x in pixels: source(r + field(r)) lies on target(r)",
                [*begins, along, *_space(sizes["target"], pixel)],
                given,
            ),
        ),
        reading=SECTIONS.format(
            contrast=", ".join(f"{key} {value}" for key, value in contrast.items()),
            pixel=list(pixel),
            unit=unit,
        ),
        becomes="two sections to the displacements that align them",
        tags=("electron-microscopy", "connectomics", "2d", "registration"),
    )


# ---------------------------------------------------------------- single examples

EXAMPLES = """\
Input {shape}: float32 grey values, 0 to 255, which are read as v / 255 - {mean:.6g}, the mean of
the training images{cut}. One answer for the whole input, no size but this."""


def _examples(module: Any, network: Mapping[str, Any], metadata: Mapping[str, Any]) -> Form:
    if "input_mean" not in metadata:
        raise DataError(
            f"the weights of network {network['name']!r} come without the mean of their training "
            "images (`input_mean`), which every input loses; train it here"
        )
    shape, (head,) = network["input_shape"], network["heads"]
    images = len(shape) > 1
    whole = (network["input_channels"], *shape) if images else tuple(shape)
    read = _grey(np.stack([_smooth_noise((1, *whole))[0]] * TEST_EXAMPLES))
    read[1:] = 255 - read[1:]
    scaling = Scaling(1, -float(metadata["input_mean"]))
    told = "float32: grey values, 0 to 255"
    axes = [_channels(whole[0], "raw"), *_space(shape, None)] if images else [_index(shape[0])]
    (given,) = _run(module, [read], scaling).values()
    name, count = head["name"], head["channels"]
    answer = _index(count) if name == RECONSTRUCTION else _channels(count, "class")
    return Form(
        inputs=(Port("raw", told, [{"type": "batch"}, *axes], read),),
        outputs=(Port(name, f"{name}, {count} values", [{"type": "batch"}, answer], given),),
        reading=EXAMPLES.format(
            shape=f"(N, {', '.join(map(str, whole))})",
            mean=metadata["input_mean"],
            cut=" (images of the data set lose a pixel on every side)"
            if network["shift_augment"]
            else "",
        ),
        becomes=f"{'images' if images else 'vectors'} to {name}",
        tags=("2d", "classification") if name != RECONSTRUCTION else ("2d", "denoising"),
        scaling=scaling,
    )


def _index(size: int) -> dict[str, Any]:
    """An axis of values without an order in space."""
    return {"type": "index", "size": int(size)}
