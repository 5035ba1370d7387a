"""A tiny network with known weights and a small volume, for tests of prediction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from built_networks import built
from retrace.checkpoints.safetensors import save_model
from retrace.config.lsd_network import LsdNetworkSettings
from retrace.config.networks import network_by_name
from retrace.networks import UNet
from retrace.settings_model import as_json
from retrace.storage.zarr_writer import create_volume

NETWORK: LsdNetworkSettings = network_by_name("mtlsd_small", (20, 9, 9)).with_(
    name="tiny",
    fmaps=2,
    fmap_factor=2,
    fmaps_out=3,
    downsample=[[1, 2, 2], [2, 2, 2]],
    heads=[{"name": "lsds", "channels": 10}, {"name": "affs", "channels": 3}],
    predict_padding="valid",
)
"""Stride (2, 4, 4), context (24, 40, 40)."""

VOXEL_SIZE_NM = (20, 9, 9)
OFFSET_NM = (200, 90, -18)


def tiny_network() -> UNet:
    """The network of NETWORK with weights large enough to give varied predictions."""
    network = built(NETWORK, seed=3)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.startswith("heads") and name.endswith("weight"):
                weight.mul_(30)
    return network.eval()


def write_raw(path: Path, shape: tuple[int, int, int], values: np.ndarray | None = None) -> Path:
    """A raw volume of seeded noise (or `values`) at OFFSET_NM."""
    data = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    data = data if values is None else values
    array = create_volume(
        path,
        "volumes/raw",
        shape=shape,
        chunks=(16, 32, 32),
        dtype=data.dtype,
        voxel_size_nm=VOXEL_SIZE_NM,
        offset_nm=OFFSET_NM,
    )
    array[...] = data
    return path


@dataclass(frozen=True)
class Case:
    """Files of one prediction in `folder`."""

    folder: Path
    raw: Path
    model: Path

    @property
    def output(self) -> Path:
        return self.folder / "prediction.zarr"

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Settings of predict.py; `network` changes single keys of the network."""
        network = NETWORK.with_(**changes.pop("network", {})).plain()
        raw = {"path": str(self.raw), "array": "volumes/raw"}
        base = {
            "volume": {"raw": raw, "roi_nm": None},
            "network": network,
            "tile": [8, 16, 16],
            "dtype": "uint8",
            "heads": ["affs", "lsds"],
            "device": "cpu",
            "precision": "fp32",
            "threads": 1,
        }
        return {**base, **changes}

    def arguments(self, **changes: Any) -> list[str]:
        """The command line of predict.py."""
        places = {"--model": self.model, "--work": self.folder / "work", "--output": self.output}
        flat = [str(part) for pair in places.items() for part in pair]
        return ["--settings", as_json(self.settings(**changes)), *flat]


def make_case(folder: Path, shape: tuple[int, int, int] = (40, 60, 58)) -> Case:
    """Raw and trained model in `folder`."""
    model = save_model(folder / "model.safetensors", tiny_network(), {"network": NETWORK.plain()})
    return Case(folder, write_raw(folder / "raw.zarr", shape), model)


def store_bytes(store: Path) -> dict[str, bytes]:
    """Every file of a store, by its path inside."""
    files = (path for path in sorted(store.rglob("*")) if path.is_file())
    return {str(path.relative_to(store)): path.read_bytes() for path in files}
