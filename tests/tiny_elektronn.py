"""A small network of the family elektronn, cubes in ELEKTRONN's layout, weights by a formula."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from built_networks import built
from retrace.checkpoints.elektronn import ParameterFile
from retrace.config import datasets, networks
from retrace.config.dataset_model import Dataset
from retrace.config.elektronn_network import ElektronnNetworkSettings
from retrace.config.network_settings import DatasetTraits
from retrace.networks.elektronn import ElektronnNetwork
from retrace.planning.train_settings import TrainingDataset, read_train_settings
from retrace.training.cube_batches import CubeBatches, open_cube_batches
from tiny_training import training
from volume_datasets import load_volumes

VOXEL_SIZE_NM = [20, 10, 10]
NETWORK: dict[str, Any] = {
    "name": "tiny",
    "family": "elektronn",
    "mode": "img-img",
    "n_dim": 3,
    "desired_input": [3, 19, 19],
    "filters": [[1, 4, 4], [3, 3, 3]],
    "pool": [[1, 2, 2], [1, 1, 1]],
    "nof_filters": [4, 6],
    "n_lab": 2,
    "SGD_params": {"LR": 0.02, "momentum": 0.9},
    "history_freq": 4,
    "monitor_batch_size": 2,
    "n_steps": 8,
    "checkpoint_every": 4,
    "snapshot_every": 4,
}


def network(*, are_classes: bool = True, **changes: Any) -> Any:
    """The tiny network, checked and resolved."""
    traits = DatasetTraits(isotropic=False, labels_are_classes=lambda: are_classes)
    return networks.resolved({**NETWORK, **changes}, traits, "tiny")


def patterned(module: ElektronnNetwork, stored: list[tuple[int, ...]]) -> ParameterFile:
    """Weights that follow a formula, in ELEKTRONN's layout: `stored` shapes of each layer's."""
    layers = []
    for k, shape in enumerate(stored):
        n = np.arange(np.prod(shape), dtype=np.float64)
        weight = (0.5 * np.sin(0.7 * n + k)).reshape(shape).astype(np.float32)
        bias = 0.1 * np.cos(np.arange(module.parts[k].bias.numel(), dtype=np.float64) + k)
        layers.append((weight, bias.astype(np.float32)))
    return ParameterFile(Path("pattern"), tuple(layers), ())


def cube(seed: int, labelled: tuple[int, int, int] = (24, 22, 8), margin: int = 10) -> Any:
    """Raw (x, y, z) uint8, dark on walls, and labels in its middle, 1 on walls, uint16."""
    rng = np.random.default_rng(seed)
    shape = [labelled[0] + 2 * margin, labelled[1] + 2 * margin, labelled[2] + 4]
    x, y, _ = np.meshgrid(*map(np.arange, shape), indexing="ij")
    shift = rng.integers(0, 8, 2)
    walls = ((x + shift[0]) % 8 < 2) | ((y + shift[1]) % 8 < 2)
    raw = np.where(walls, 60, 190) + rng.normal(0, 15, shape)
    inside = tuple(slice((s - n) // 2, (s + n) // 2) for s, n in zip(shape, labelled, strict=True))
    return raw.clip(0, 255).astype(np.uint8), walls[inside].astype(np.uint16)


def write_cubes(folder: Path, count: int = 3, **shape: Any) -> None:
    """raw_I.h5 (`raw`) and barrier_I.h5 (`lab`), axes x, y, z; `shape` as of `cube`."""
    for index in range(count):
        raw, labels = cube(index, **shape)
        with h5py.File(folder / f"raw_{index}.h5", "w") as file:
            file["raw"] = raw
        with h5py.File(folder / f"barrier_{index}.h5", "w") as file:
            file["lab"] = labels


def dataset(folder: Path, **changes: Any) -> Dataset:
    """Trained on cube 0, measured on cube 1, scored on cube 2."""
    volumes = {
        f"cube_{index}": {
            "raw": {"path": str(folder / f"raw_{index}.h5"), "array": "raw", "axes": "xyz"},
            "labels": {
                "path": str(folder / f"barrier_{index}.h5"),
                "array": "lab",
                "axes": "xyz",
                "objects": "classes",
            },
            "auto_crop": "even",
        }
        for index in range(3)
    }
    content = {
        "name": "cubes",
        "voxel_size_nm": VOXEL_SIZE_NM,
        "volumes": volumes,
        "train": ["cube_0"],
        "validation": ["cube_1"],
        "test": ["cube_2"],
        **changes,
    }
    file = folder / "cubes.yaml"
    file.write_text(json.dumps(content))
    return load_volumes(file)


def batches(folder: Path, data: Dataset | None = None, **changes: Any) -> CubeBatches:
    """The batches of the tiny network on the cubes in `folder`."""
    data = data or dataset(folder)
    net = network(are_classes=datasets.has_classes(data), **changes)
    settings = read_train_settings(training(data, net, 8))
    assert isinstance(settings.dataset, TrainingDataset)
    assert isinstance(settings.network, ElektronnNetworkSettings)
    module = built(net)
    return open_cube_batches(
        settings.network, settings.dataset, settings.seed, module, {}, torch.device("cpu")
    )


def mark(folder: Path, **shape: Any) -> None:
    """An image of cube 0 whose values encode positions, and labels that are their last bit."""
    raw, labels = cube(0, **shape)
    x, y, z = np.meshgrid(*map(np.arange, raw.shape), indexing="ij")
    place = (3 * x + 7 * y + 5 * z) % 251
    lead = [(a - b) // 2 for a, b in zip(raw.shape, labels.shape, strict=True)]
    inside = tuple(slice(n, n + m) for n, m in zip(lead, labels.shape, strict=True))
    with h5py.File(folder / "raw_0.h5", "r+") as file:
        file["raw"][...] = place.astype(np.uint8)
    with h5py.File(folder / "barrier_0.h5", "r+") as file:
        file["lab"][...] = (place[inside] % 2).astype(np.uint16)
