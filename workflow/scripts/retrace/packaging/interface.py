"""Inputs and outputs of a packaged network: axes as bioimage.io describes them, and test values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

SEED = 0
"""Seed of the test input."""
BLUR_STEPS = 2
"""How often the test input is smoothed along each axis, so that it looks less like noise."""

TensorAxes = list[dict[str, Any]]


@dataclass(frozen=True)
class Scaling:
    """Grey values v, 0 to 255, become v / 255 * span + offset."""

    span: float
    offset: float

    def of(self, grey: torch.Tensor) -> torch.Tensor:
        """The scaled values."""
        return grey / 255 * self.span + self.offset

    def code(self) -> str:
        """Python code that scales the tensor in front of it."""
        span = "" if self.span == 1 else f" * {self.span:g}"
        return f" / 255{span} {'-' if self.offset < 0 else '+'} {abs(self.offset):.17g}"

    def step(self) -> dict[str, Any]:
        """The scaling as a preprocessing step of bioimage.io."""
        kwargs = {"gain": self.span / 255, "offset": self.offset}
        return {"id": "scale_linear", "kwargs": kwargs}


@dataclass(frozen=True, eq=False)
class PackageTensor:
    """An input or output: its name, meaning, axes, and test values with a batch axis."""

    name: str
    description: str
    axes: TensorAxes
    test: np.ndarray


@dataclass(frozen=True)
class PackageInterface:
    """All inputs and outputs of a package, and their description."""

    inputs: tuple[PackageTensor, ...]
    outputs: tuple[PackageTensor, ...]
    reading: str
    """A paragraph of the README: shapes, values, sizes."""
    summary: str
    """The input and the output in one line."""
    tags: tuple[str, ...]
    scaling: Scaling | None = None
    """Applied to each input before the network."""

    def file(self, tensor: PackageTensor) -> str:
        """Name of the file with a tensor's test values."""
        if tensor in self.outputs:
            return f"test_output_{tensor.name}.npy"
        return "test_input.npy" if len(self.inputs) == 1 else f"test_input_{tensor.name}.npy"


def run_network(
    module: Any, inputs: Sequence[np.ndarray], scaling: Scaling | None
) -> dict[str, np.ndarray]:
    """Outputs of a network in evaluation mode by name, float32."""
    tensors = [torch.from_numpy(values) for values in inputs]
    with torch.inference_mode():
        outputs = module(*(scaling.of(x) if scaling else x for x in tensors))
    return {name: y.float().numpy() for name, y in outputs.items()}


def smooth_noise(shape: Sequence[int]) -> np.ndarray:
    """Noise (C, ...) in [0, 1], smoothed along all axes but the first."""
    values = np.random.default_rng(SEED).random(tuple(shape))
    for axis in range(1, values.ndim):
        for _ in range(min(BLUR_STEPS, values.shape[axis] - 1)):
            values = (values + np.roll(values, 1, axis)) / 2
    low, high = values.min(), values.max()
    return np.asarray((values - low) / (high - low))


def grey_values(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as whole grey values, 0 to 255, float32."""
    return np.asarray(np.round(values * 255).astype(np.float32))


def batch_axis() -> dict[str, Any]:
    """The batch axis."""
    return {"type": "batch"}


def channel_axis(count: int, name: str) -> dict[str, Any]:
    """A channel axis with channels name0, name1 ..."""
    return {"type": "channel", "channel_names": [f"{name}{index}" for index in range(count)]}


def index_axis(size: int) -> dict[str, Any]:
    """An axis of values without an order in space."""
    return {"type": "index", "size": int(size)}


def space_axes(sizes: Sequence[Any], voxel_size_nm: Sequence[float] | None) -> TensorAxes:
    """The last axes of z, y, x with these sizes; scaled in nm if the voxel size is known."""
    edges: TensorAxes = [{} for _ in sizes]
    if voxel_size_nm is not None:
        edges = [{"unit": "nanometer", "scale": float(v)} for v in voxel_size_nm[-len(sizes) :]]
    names = "zyx"[-len(sizes) :]
    return [
        {"type": "space", "id": axis, **edge, "size": size}
        for axis, edge, size in zip(names, edges, sizes, strict=True)
    ]
