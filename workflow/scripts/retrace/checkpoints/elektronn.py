"""ELEKTRONN's parameter files (.param), read without executing their pickles, and written.

A file is a sequence of pickles: the shapes of each layer's first parameter, two float32 arrays per
layer, the shapes of the poolings. Convolution layers store filters (O, z, I, x, y) or (O, I, x, y),
then biases; perceptron layers biases, then weights (I, O).
Source: ELEKTRONN 1.0, elektronn/net/convnet.py (saveParameters, loadParameters).
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrace.errors import DataError
from retrace.files import atomic_write
from retrace.formats.safe_pickle import read_pickles
from retrace.networks.elektronn import ElektronnConvolution, ElektronnNetwork, Perceptron
from retrace.reading import reading_content

SUFFIX = ".param"
PROTOCOL = 2
"""The newest pickle protocol that Python 2 reads."""


@dataclass(frozen=True)
class ParameterFile:
    """(weights, biases) of each layer in the file's layout, and the shapes of its poolings."""

    path: Path
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    pools: tuple[Any, ...]


def read_param(path: Path) -> ParameterFile:
    """The parameter file at `path`; DataError if it is absent, damaged, or another kind of file."""
    values = read_pickles(path)
    with reading_content(path, "get the file again"):
        return _parameter_file(path, values)


def _parameter_file(path: Path, values: list[Any]) -> ParameterFile:
    """The values of a parameter file."""
    if len(values) < 2 or not isinstance(values[0], list) or not isinstance(values[-1], list):
        raise DataError(
            f"{path} is no parameter file of ELEKTRONN: it needs a list of shapes, two arrays per "
            f"layer and a list of poolings, and holds {len(values)} values"
        )
    arrays = values[1:-1]
    shapes = [tuple(shape) for shape in values[0]]
    bad = [a for a in arrays if not isinstance(a, np.ndarray) or a.dtype.kind != "f"]
    if len(arrays) != 2 * len(shapes) or bad:
        raise DataError(
            f"{path} is truncated or no parameter file: it announces {len(shapes)} layers and "
            f"holds {len(arrays)} arrays. Only layers with two parameters can be read; recurrent "
            "ones have four"
        )
    pairs = list(zip(arrays[::2], arrays[1::2], strict=True))
    for number, (shape, (first, _)) in enumerate(zip(shapes, pairs, strict=True)):
        if first.shape != shape:
            raise DataError(
                f"{path} is damaged: layer {number} is {list(first.shape)}, announced {list(shape)}"
            )
    ordered = tuple((b, a) if a.ndim == 1 else (a, b) for a, b in pairs)
    return ParameterFile(path, ordered, tuple(values[-1]))


def _from_file(weight: np.ndarray, part: ElektronnConvolution | Perceptron, cubes: bool) -> Tensor:
    """A stored weight in the layout of `part`: for correlation instead of convolution, z, y, x.

    `cubes`: filters were trained on volumes with axes x, y, z, so y and x are exchanged; filters of
    images were trained on rows and columns.
    """
    if isinstance(part, Perceptron):
        return torch.from_numpy(weight.T.copy()) if weight.ndim == 2 else torch.from_numpy(weight)
    if weight.ndim == 5:
        weight = weight.transpose(0, 2, 1, 3, 4)
    if cubes:
        weight = weight.swapaxes(-1, -2)
    weight = np.flip(weight, tuple(range(2, weight.ndim))).copy()
    filters = torch.from_numpy(weight)
    return filters.unsqueeze(2) if filters.ndim == 4 and part.weight.ndim == 5 else filters


def _for_file(part: ElektronnConvolution | Perceptron, cubes: bool, n_dim: int) -> np.ndarray:
    """The inverse of `_from_file`."""
    weight = part.weight.detach().cpu().float().numpy()
    if isinstance(part, Perceptron):
        return np.ascontiguousarray(weight.T)
    if weight.ndim == 5 and n_dim == 2:
        weight = weight[:, :, 0]
    weight = np.flip(weight, tuple(range(2, weight.ndim)))
    if cubes:
        weight = weight.swapaxes(-1, -2)
    if weight.ndim == 5:
        weight = weight.transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(weight)


@torch.no_grad()
def load_parameters(
    file: ParameterFile, module: ElektronnNetwork, count: int | None = None
) -> list[str]:
    """Fills the first `count` layers (by default all of the file); returns one line per layer.

    DataError if a shape differs or the file or the network has fewer layers; then nothing is
    changed.
    """
    parts = module.parts
    if not module.is_dense and any(len(layer.filter) == 3 for layer in module.architecture.layers):
        raise DataError(
            f"{file.path}: perceptrons behind 3-D convolutions cannot be read, because ELEKTRONN "
            "orders their inputs differently; train this network here"
        )
    count = len(file.layers) if count is None else count
    if count > min(len(parts), len(file.layers)):
        raise DataError(
            f"{file.path} has {len(file.layers)} layers, the network {len(parts)}; {count} cannot "
            "be loaded. Name a file of the same network, or fewer layers"
        )
    loaded = []
    for number, part in enumerate(parts[:count]):
        weight, bias = file.layers[number]
        filters = _from_file(weight, part, module.is_dense)
        if filters.shape != part.weight.shape or bias.shape != part.bias.shape:
            raise DataError(
                f"{file.path} is of another network: layer {number} is {list(weight.shape)}, with "
                f"{bias.size} biases; here weights are {list(part.weight.shape)}, as ELEKTRONN "
                f"stores them {_stored_shape(part, module)}, with {part.bias.numel()} biases"
            )
        loaded.append((part, filters, torch.from_numpy(bias.copy())))
    for part, filters, biases in loaded:
        part.weight.copy_(filters)
        part.bias.copy_(biases)
    return [
        f"layer {number}: {list(part.weight.shape)} from {file.path.name}"
        for number, (part, _, _) in enumerate(loaded)
    ]


def load_param(file: ParameterFile, module: ElektronnNetwork) -> None:
    """Fills every layer of `module`; DataError unless the file has exactly these layers."""
    if len(file.layers) != len(module.parts):
        raise DataError(
            f"{file.path} is of another network: it has {len(file.layers)} layers, this network "
            f"{len(module.parts)}. To start a training from its first layers, name it as `init`"
        )
    load_parameters(file, module)


def _stored_shape(part: ElektronnConvolution | Perceptron, module: ElektronnNetwork) -> list[int]:
    """The shape that a weight has in a file."""
    return list(_for_file(part, module.is_dense, _stored_axes(module)).shape)


def _stored_axes(module: ElektronnNetwork) -> int:
    """Spatial axes of filters in a file: 2 if no filter and no pooling spans sections, else 3."""
    layers = module.architecture.convolutions
    sections = [
        size[0] for layer in layers for size in (layer.filter, layer.pool) if len(size) == 3
    ]
    return 3 if any(n > 1 for n in sections) else 2


def write_param(path: Path, module: ElektronnNetwork, count: int | None = None) -> Path:
    """Writes the first `count` layers (by default all) in ELEKTRONN's format, atomically.

    ELEKTRONN on Python 2 reads the file. A tied decoder has no weights of its own and is left out.
    """
    parts = module.parts[:count]
    axes = _stored_axes(module)
    arrays: list[np.ndarray] = []
    for part in parts:
        weight = _for_file(part, module.is_dense, axes)
        bias = part.bias.detach().cpu().float().numpy()
        arrays += [bias, weight] if isinstance(part, Perceptron) else [weight, bias]
    pools = [tuple(part.layer.pool) for part in parts if isinstance(part, ElektronnConvolution)]
    shapes = [array.shape for array in arrays[::2]]
    values = [shapes, *arrays, [_stored_pooling(pool) for pool in pools]]
    return atomic_write(path, b"".join(_pickled(value) for value in values))


def _stored_pooling(pool: Sequence[int]) -> tuple[int, ...]:
    """A pooling in ELEKTRONN's internal order, z, x, y."""
    return (*pool[:-2], pool[-1], pool[-2])


def _pickled(value: Any) -> bytes:
    """A pickle that names numpy's modules as numpy 1 does."""
    return pickle.dumps(value, PROTOCOL).replace(b"numpy._core", b"numpy.core")
