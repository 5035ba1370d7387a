"""ELEKTRONN's parameter files (.param): read without running what is in them, and written.

A file is pickles one after the other: the shapes of each layer's first parameter, two float32
arrays for each layer, the shapes of the poolings. Convolutions have filters first, (O, z, I, x, y)
or (O, I, x, y), then biases; perceptrons biases first, then weights (I, O).
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
from retrace.networks.elektronn import Convolution, ElektronnNetwork, Perceptron

SUFFIX = ".param"
PROTOCOL = 2
"""Of pickles that Python 2 reads."""


@dataclass(frozen=True)
class Parameters:
    """The layers of a file, as it has them: weights and biases; and shapes of the poolings."""

    path: Path
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    pools: tuple[Any, ...]


def read_param(path: Path) -> Parameters:
    """A parameter file; DataError where it is absent, damaged, or holds something else."""
    values = read_pickles(path)
    if len(values) < 2 or not isinstance(values[0], list) or not isinstance(values[-1], list):
        raise DataError(
            f"{path} is no parameter file of ELEKTRONN: a list of shapes, two arrays a layer and a "
            f"list of poolings are needed, it holds {len(values)} values"
        )
    arrays = values[1:-1]
    shapes = [tuple(shape) for shape in values[0]]
    bad = [a for a in arrays if not isinstance(a, np.ndarray) or a.dtype.kind != "f"]
    if len(arrays) != 2 * len(shapes) or bad:
        raise DataError(
            f"{path} is truncated or no parameter file: it announces {len(shapes)} layers and "
            f"holds {len(arrays)} arrays. Layers of two parameters are read; recurrent ones have "
            "four"
        )
    pairs = list(zip(arrays[::2], arrays[1::2], strict=True))
    for number, (shape, (first, _)) in enumerate(zip(shapes, pairs, strict=True)):
        if first.shape != shape:
            raise DataError(
                f"{path} is damaged: layer {number} is {list(first.shape)}, announced {list(shape)}"
            )
    ordered = tuple((b, a) if a.ndim == 1 else (a, b) for a, b in pairs)
    return Parameters(path, ordered, tuple(values[-1]))


def _ours(weight: np.ndarray, part: Convolution | Perceptron, cubes: bool) -> Tensor:
    """A file's weight as ours: correlated instead of convolved, axes z, y, x.

    Cubes were stored x, y, z, images by rows and columns; so filters of cubes are transposed.
    """
    if isinstance(part, Perceptron):
        return torch.from_numpy(weight.T.copy()) if weight.ndim == 2 else torch.from_numpy(weight)
    if weight.ndim == 5:
        weight = weight.transpose(0, 2, 1, 3, 4)
    if cubes:
        weight = weight.swapaxes(-1, -2)
    weight = np.flip(weight, tuple(range(2, weight.ndim))).copy()
    found = torch.from_numpy(weight)
    return found.unsqueeze(2) if found.ndim == 4 and part.weight.ndim == 5 else found


def _theirs(part: Convolution | Perceptron, cubes: bool, n_dim: int) -> np.ndarray:
    """The inverse of `_ours`."""
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
    file: Parameters, module: ElektronnNetwork, count: int | None = None
) -> list[str]:
    """Fills the first `count` layers (all that the file has) and says which, one line each.

    DataError where a shape differs or the file has more layers than the network; then nothing is
    changed.
    """
    parts = module.parts
    if not module.is_dense and any(len(layer.filter) == 3 for layer in module.architecture.layers):
        raise DataError(
            f"{file.path}: perceptrons behind 3-D convolutions are not read, because ELEKTRONN "
            "orders their inputs otherwise; train this network here"
        )
    count = len(file.layers) if count is None else count
    if count > min(len(parts), len(file.layers)):
        raise DataError(
            f"{file.path} has {len(file.layers)} layers, the network {len(parts)}; {count} cannot "
            "be taken. Name a file of the same network, or fewer layers"
        )
    found = []
    for number, part in enumerate(parts[:count]):
        weight, bias = file.layers[number]
        filled = _ours(weight, part, module.is_dense)
        if filled.shape != part.weight.shape or bias.shape != part.bias.shape:
            raise DataError(
                f"{file.path} is of another network: layer {number} is {list(weight.shape)}, with "
                f"{bias.size} biases; here weights are {list(part.weight.shape)}, as ELEKTRONN "
                f"stores them {_expected(part, module)}, with {part.bias.numel()} biases"
            )
        found.append((part, filled, torch.from_numpy(bias.copy())))
    for part, filled, biases in found:
        part.weight.copy_(filled)
        part.bias.copy_(biases)
    return [
        f"layer {number}: {list(part.weight.shape)} from {file.path.name}"
        for number, (part, _, _) in enumerate(found)
    ]


def load_whole(file: Parameters, module: ElektronnNetwork) -> None:
    """Fills all layers; DataError where the file has fewer or others."""
    if len(file.layers) != len(module.parts):
        raise DataError(
            f"{file.path} is of another network: it has {len(file.layers)} layers, this network "
            f"{len(module.parts)}. To begin a training from its first layers, give it as `init`"
        )
    load_parameters(file, module)


def _expected(part: Convolution | Perceptron, module: ElektronnNetwork) -> list[int]:
    return list(_theirs(part, module.is_dense, _axes(module)).shape)


def _axes(module: ElektronnNetwork) -> int:
    """Axes that ELEKTRONN would have stored: 2 where no filter and no pooling has sections."""
    layers = module.architecture.convolutions
    sections = [
        size[0] for layer in layers for size in (layer.filter, layer.pool) if len(size) == 3
    ]
    return 3 if any(n > 1 for n in sections) else 2


def write_param(path: Path, module: ElektronnNetwork, count: int | None = None) -> Path:
    """Writes the first `count` layers (all of them) as ELEKTRONN does, aside, then renamed.

    Python 2 reads the file. Tied decoders have no weights of their own and are left out.
    """
    parts = module.parts[:count]
    axes = _axes(module)
    arrays: list[np.ndarray] = []
    for part in parts:
        weight = _theirs(part, module.is_dense, axes)
        bias = part.bias.detach().cpu().float().numpy()
        arrays += [bias, weight] if isinstance(part, Perceptron) else [weight, bias]
    pools = [tuple(part.layer.pool) for part in parts if isinstance(part, Convolution)]
    values = [[array.shape for array in arrays[::2]], *arrays, [_xyz(pool) for pool in pools]]
    return atomic_write(path, b"".join(_pickled(value) for value in values))


def _xyz(pool: Sequence[int]) -> tuple[int, ...]:
    """A pooling as ELEKTRONN has it inside: z, x, y."""
    return (*pool[:-2], pool[-1], pool[-2])


def _pickled(value: Any) -> bytes:
    """A pickle that names numpy's modules as old versions have them."""
    return pickle.dumps(value, PROTOCOL).replace(b"numpy._core", b"numpy.core")
