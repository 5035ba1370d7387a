"""A training that takes seconds: a network of a few hundred weights on a volume of 40 voxels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from retrace.planning import train
from retrace.storage.zarr_writer import create_volume
from run_config import run_config
from settings_changes import as_job

VOXEL_SIZE_NM = (10, 10, 10)
SHAPE = (40, 40, 40)

ELASTIC = {
    "control_spacing": [10, 10, 10],
    "jitter_sigma": [0, 1, 1],
    "rotation": [0, 1.5707963],
    "slip_probability": 0.1,
    "shift_probability": 0.1,
    "max_misalign": 2,
    "subsample": 4,
}
SIMPLE = {"mirror": [0, 1, 2], "transpose": [1, 2]}
INTENSITY = {"scale": [0.9, 1.1], "shift": [-0.1, 0.1], "per_section": True}


def blobs(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Raw uint8 that is dark where two objects meet, and labels uint64: nearest of random seeds."""
    rng = np.random.default_rng(seed)
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    seeds = rng.uniform(0, shape, size=(12, 3))
    distance, index = cKDTree(seeds).query(points, k=2)
    labels = (index[:, 0] + 1).reshape(shape).astype(np.uint64)
    gap = (distance[:, 1] - distance[:, 0]).reshape(shape)
    raw = np.where(gap < 3, 60, 180) + rng.normal(0, 10, shape)
    return raw.clip(0, 255).astype(np.uint8), labels


def write_array(store: Path, array: str, data: np.ndarray, offset_nm: Any = (0, 0, 0)) -> None:
    """One array of a zarr store with the tiny voxel size."""
    created = create_volume(
        store,
        array,
        shape=data.shape,
        chunks=data.shape,
        dtype=data.dtype,
        voxel_size_nm=VOXEL_SIZE_NM,
        offset_nm=offset_nm,
    )
    created[...] = data


def write_volume(store: Path, seed: int = 0) -> Path:
    """A zarr store with `raw` and `labels` of `blobs`."""
    raw, labels = blobs(seed)
    write_array(store, "raw", raw)
    write_array(store, "labels", labels)
    return store


def dataset(store: Path, **changes: Any) -> dict[str, Any]:
    """A dataset of one volume, `cube`, wholly used for training."""
    sources = {part: {"path": str(store), "array": part} for part in ("raw", "labels")}
    entry = {"volume": "cube", "roi_nm": None, "probability": 1.0, "exclude_nm": []}
    base: dict[str, Any] = {
        "name": "tiny",
        "voxel_size_nm": list(VOXEL_SIZE_NM),
        "background_ids": [],
        "volumes": {"cube": sources},
        "train": [entry],
    }
    return base | changes


def network(**changes: Any) -> dict[str, Any]:
    """An mtlsd of two levels: 24 voxels in, 8 out."""
    base: dict[str, Any] = {
        "name": "tiny_mtlsd",
        "family": "lsd",
        "input_channels": 1,
        "fmaps": 3,
        "fmap_factor": 2,
        "fmaps_out": 4,
        "downsample": [[2, 2, 2]],
        "heads": [{"name": "lsds", "channels": 10}, {"name": "affs", "channels": 3}],
        "neighborhood": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]],
        "input_shape": [24, 24, 24],
        "lsd": {"sigma_nm": 20, "downsample": 2},
        "loss": {"kind": "mse"},
        "augment": [{"elastic": ELASTIC}, {"simple": SIMPLE}, {"intensity": INTENSITY}],
        "label_padding_nm": [100, 120, 120],
        "min_masked": 0.5,
        "grow_boundary": {"steps": 1, "only_xy": False},
        "lsd_weight": "labels_mask",
        "balance_with_mask": True,
        "optimizer": {"lr": 5e-3, "betas": [0.95, 0.999], "eps": 1e-8, "average": 0.9},
        "inference_shape": [24, 24, 24],
        "predict_padding": "valid",
        "iterations": 100,
        "checkpoint_every": 4,
        "snapshot_every": 1000,
    }
    return base | changes


def settings(store: Path, iterations: int, **changes: Any) -> dict[str, Any]:
    """The settings of a whole training on the CPU with one thread."""
    base: dict[str, Any] = {
        "dataset": dataset(store),
        "network": network(),
        "iterations": iterations,
        "seed": 7,
        "device": "cpu",
        "precision": "fp32",
        "compile": False,
        "threads": 1,
    }
    return base | changes


def training(data: Any, net: Any, iterations: int, seed: int = 3) -> Any:
    """The settings of a training of any dataset and network on the CPU with one thread, as they
    travel: through JSON."""
    on_cpu = {"device": "cpu", "precision": "fp32", "compile": False}
    config = run_config(iterations=iterations, seed=seed, **on_cpu)
    settings = train.train_settings(config, data, net)
    return as_job(settings.with_(threads=1))


def arguments(folder: Path, chosen: dict[str, Any], *more: str) -> list[str]:
    """Command line of train.py that keeps everything inside `folder`."""
    paths = ["--work", folder / "work", "--output", folder / "model.safetensors"]
    history = ["--history", folder / "training.json"]
    return ["--settings", json.dumps(chosen), *map(str, paths + history), *more]
