"""A ZNN training that takes seconds: two filters on a stack of six small sections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from scipy.spatial import cKDTree

from retrace.config import networks
from retrace.config.dataset_model import Dataset
from retrace.config.datasets import AnyDataset
from volume_datasets import load_volumes

SHAPE = (6, 40, 44)
VOXEL_SIZE_NM = [40, 10, 10]

PARAMETERS = {
    "eta": 0.05,
    "anneal_factor": 0.9,
    "num_iter_per_annealing": 5,
    "momentum": 0.5,
    "train_outsz": [1, 12, 12],
    "is_data_aug": True,
    "is_bd_mirror": True,
    "rebalance_mode": "global",
    "num_iter_per_show": 2,
    "num_iter_per_test": 4,
    "test_num": 2,
    "num_iter_per_save": 4,
    "max_iter": 12,
}
LAYERS = [
    {"conv": "conv1", "size": [1, 4, 4], "to": "n1", "maps": 4},
    {"max_filter": "pool1", "size": [1, 2, 2], "to": "n2"},
    {"conv": "conv2", "size": [1, 3, 3], "to": "output", "maps": 2, "function": "linear"},
]

TWO_OUTPUTS = [
    *LAYERS,
    {
        "conv": "conv3",
        "from": "n2",
        "size": [1, 3, 3],
        "to": "second",
        "maps": 2,
        "function": "linear",
    },
]
"""The same with a second output node, `second`, that reads what the first one reads."""


def cells(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Raw uint8, dark on membranes, and labels uint32 with 0 on membranes; objects are columns."""
    rng = np.random.default_rng(seed)
    points = np.stack(np.meshgrid(*map(np.arange, shape[1:]), indexing="ij"), -1).reshape(-1, 2)
    distance, index = cKDTree(rng.uniform(0, shape[1:], size=(8, 2))).query(points, k=2)
    gap = (distance[:, 1] - distance[:, 0]).reshape(shape[1:])
    labels = np.where(gap < 2, 0, index[:, 0].reshape(shape[1:]) + 1).astype(np.uint32)
    labels = np.repeat(labels[None], shape[0], axis=0)
    raw = np.where(labels == 0, 60, 180) + rng.normal(0, 15, shape)
    return raw.clip(0, 255).astype(np.uint8), labels


def write_stack(folder: Path) -> None:
    """raw.h5 and labels.h5 (`main`), raw.tif and labels.tif of `cells` in `folder`."""
    raw, labels = cells()
    for name, data in (("raw", raw), ("labels", labels)):
        tifffile.imwrite(folder / f"{name}.tif", data)
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["main"] = data


def dataset(folder: Path, **changes: Any) -> Dataset:
    """Trained on sections 0-3, validation 4, test 5."""

    def sections(first: int, count: int) -> list[dict[str, Any]]:
        box = {"offset": [40 * first, 0, 0], "shape": [40 * count, 400, 440]}
        return [{"volume": "stack", "roi_nm": box}]

    content = {
        "name": "cells",
        "voxel_size_nm": VOXEL_SIZE_NM,
        "boundaries_drawn": True,
        "volumes": {
            "stack": {
                "raw": {"path": str(folder / "raw.tif")},
                "labels": {"path": str(folder / "labels.tif")},
            }
        },
        "train": sections(0, 4),
        "validation": sections(4, 1),
        "test": sections(5, 1),
        **changes,
    }
    return load(folder, content)


def load(folder: Path, content: dict[str, Any]) -> Dataset:
    """A dataset of that content, through its file."""
    file = folder / f"{content['name']}.yaml"
    file.write_text(json.dumps(content))
    return load_volumes(file)


def network(data: AnyDataset, **changes: Any) -> Any:
    """The tiny network on a dataset; `parameters` change single ones."""
    parameters = PARAMETERS | changes.pop("parameters", {})
    content = {"name": "tiny", "family": "znn", "init": "xavier", "layers": LAYERS, **changes}
    content["parameters"] = parameters
    return networks.resolved(content, networks.traits_of(data), "tiny")
