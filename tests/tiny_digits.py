"""A few generated digits-like images as IDX files, and tiny networks for them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from retrace.config import datasets, networks
from retrace.config.datasets import AnyDataset
from retrace.config.elektronn_network import ElektronnNetworkFile, resolve_elektronn
from retrace.config.examples_model import ExamplesDataset
from retrace.config.schema import check

CLASSES = 3
SIDE = 12
NETWORK: dict[str, Any] = {
    "name": "tiny",
    "family": "elektronn",
    "mode": "img-scalar",
    "n_dim": 2,
    "desired_input": 10,
    "filters": [3],
    "pool": [2],
    "nof_filters": [4],
    "MLP_layers": [12],
    "batch_size": 8,
    "shift_augment": True,
    "warp_on": True,
    "SGD_params": {"LR": 0.05, "momentum": 0.9},
    "LR_decay": 0.99,
    "history_freq": 4,
    "monitor_batch_size": 16,
    "n_steps": 12,
    "checkpoint_every": 5,
    "snapshot_every": 6,
}


def images(count: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, 12, 12) and uint8 (N,): a bar at one of three angles, and noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    values = rng.integers(0, 60, (count, SIDE, SIDE))
    for image, label in zip(values, labels, strict=True):
        place = int(rng.integers(4, 8))
        if label == 0:
            image[place, 2:10] += 180
        elif label == 1:
            image[2:10, place] += 180
        else:
            image[np.arange(2, 10), np.arange(2, 10)] += 180
    return values.astype(np.uint8), labels.astype(np.uint8)


def idx(values: np.ndarray) -> bytes:
    """uint8 values as an IDX file."""
    sizes = b"".join(int(n).to_bytes(4, "big") for n in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


def write_idx(folder: Path, name: str, count: int, seed: int) -> dict[str, Any]:
    """NAME-images.gz and NAME-labels.gz; their entry in a dataset."""
    paths = {}
    for part, values in zip(("values", "labels"), images(count, seed), strict=True):
        path = folder / f"{name}-{part}.gz"
        path.write_bytes(gzip.compress(idx(values), mtime=0))
        paths[part] = {"path": str(path)}
    return paths


def dataset(folder: Path, **changes: Any) -> ExamplesDataset:
    """90 images to train on, 20 of them held out, and 30 to test."""
    examples = {
        "classes": CLASSES,
        "train": write_idx(folder, "train", 90, 0),
        "test": write_idx(folder, "test", 30, 1),
        "held_out": 20,
        **changes,
    }
    content = {"name": "bars", "examples": {k: v for k, v in examples.items() if v is not None}}
    path = folder / "bars.yaml"
    path.write_text(json.dumps(content))
    return datasets.load_dataset(path)


def network(data: AnyDataset, **changes: Any) -> Any:
    """The tiny network on a dataset, resolved."""
    file = check(ElektronnNetworkFile, {**NETWORK, **changes}, "tiny")
    networks.check_kind(data, file)
    return resolve_elektronn(file, networks.traits_of(data))
