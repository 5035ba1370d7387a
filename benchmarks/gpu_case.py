"""What `gpu.py` trains and predicts: generated tissue, the networks, and settings of their jobs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.checkpoints.safetensors import save_model
from retrace.config.datasets import load_dataset
from retrace.config.networks import head_names, network_by_name, network_for
from retrace.geometry import Triple, triple
from retrace.networks import UNet, build_network  # noqa: E402
from retrace.storage.zarr_writer import create_volume
from retrace.synthetic.neurites import generate_neurites

NETWORKS = ("baseline", "long_range", "malis", "mtlsd", "lsd", "aclsd", "acrlsd")
SMALL = {"fmaps": 2, "fmap_factor": 2, "fmaps_out": 3, "downsample": [[1, 2, 2]]}
"""What makes a full network small enough to try the programs on a CPU."""
SMALL_OUTPUT = (12, 12, 12)
HEAD_FACTOR = 30
"""Random weights give outputs that are all near 0.5, which would hide wrong ones."""
OTHER_DATASETS = {"n4": "vnc_nc", "neuro3d_doc": "neuro3d", "neuro3d_file": "neuro3d"}
"""The datasets whose recipes networks of other families are taken for."""
TISSUE = (64, 192, 192)
"""Voxels of tissue that are generated; larger volumes are mirrored copies of it."""
SMALL_TISSUE = (32, 48, 48)
RAW_CHUNKS = (64, 64, 64)


@dataclass(frozen=True)
class Case:
    """Networks of a dataset's recipe on generated tissue, in files of `folder`."""

    folder: Path
    dataset_name: str
    device: torch.device
    small: bool
    volume: Triple
    """Raw that is predicted, voxels (z, y, x)."""

    @cached_property
    def dataset(self) -> Any:
        """The dataset whose recipe and voxel size are taken."""
        return load_dataset(self.dataset_name)

    def network(self, name: str) -> Any:
        """The settings of a network for the dataset; MALIS with its own loss from the start."""
        network = network_for(name, self.dataset)
        changes: dict[str, Any] = {"snapshot_every": 10**9, "checkpoint_every": 10**9}
        if network.loss.kind != "mse":
            changes["loss"] = {"kind": network.loss.kind, "start_iteration": 0}
        if self.small:
            small = network.with_(**SMALL)
            shape = list(build_network(small, device="meta").valid_shape(SMALL_OUTPUT))
            changes |= SMALL | {"input_shape": shape, "inference_shape": shape}
        return network.with_(**changes)

    def in_small(self) -> Case:
        """The same with small networks."""
        if self.small:
            return self
        folder = self.folder / "small"
        folder.mkdir(exist_ok=True)
        return Case(folder, self.dataset_name, self.device, True, self.volume)

    def context(self, name: str) -> Any:
        """The network whose descriptors a network reads; None for most."""
        other = self.network(name).autocontext
        return self.network(other) if other else None

    def module(self, name: str) -> UNet:
        """The network with weights of a seed, on the CPU; its outputs vary within [0, 1]."""
        module: UNet = build_network(self.network(name))
        with torch.no_grad():
            for name_of, weight in module.heads.named_parameters():
                if name_of.endswith("weight"):
                    weight.mul_(HEAD_FACTOR)
        return module

    def model(self, name: str) -> Path:
        """The file of these weights."""
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            save_model(path, self.module(name), {"network": self.network(name).plain()})
        return path

    def raw_shape(self, name: str) -> Triple:
        """Raw of one training step, voxels, with the context of the network below."""
        shape = triple(self.network(name).input_shape)
        below = self.context(name)
        return shape if below is None else build_network(below, device="meta").valid_shape(shape)

    def flop_of_step(self, name: str) -> float:
        """FLOP of a training step: three times the forward pass, and the network below once."""
        network, below = self.network(name), self.context(name)
        flop = 3 * build_network(network, device="meta").flop(network.input_shape)
        if below is not None:
            flop += build_network(below, device="meta").flop(self.raw_shape(name))
        return float(flop)

    def training_settings(self, name: str, **changes: Any) -> dict[str, Any]:
        """Settings of train.py."""
        store = self.tissue(name)
        sources = {part: {"path": str(store), "array": part} for part in ("raw", "labels")}
        below = self.context(name)
        return {
            "dataset": {
                "name": self.dataset.name,
                "voxel_size_nm": self.dataset.voxel_size_nm,
                "background_ids": [],
                "volumes": {"generated": sources},
                "train": [{"volume": "generated", "roi_nm": None, "probability": 1.0}],
            },
            "network": self.network(name).plain(),
            "autocontext": below.plain() if below else None,
            "iterations": 1,
            "seed": 0,
            "device": self.device.type,
            "checkpoint_seconds": 1e9,
            **changes,
        }

    def prediction_settings(
        self, name: str, raw: Path, descriptors: Path | None, **changes: Any
    ) -> dict[str, Any]:
        """Settings of predict.py."""
        network = self.network(name)
        source = {"path": str(descriptors), "array": "lsds"} if descriptors else None
        return {
            "volume": {"raw": {"path": str(raw), "array": "raw"}},
            "network": network.plain(),
            "descriptors": source,
            "heads": head_names(network),
            "device": self.device.type,
            **changes,
        }

    def tissue(self, name: str) -> Path:
        """A store with raw and labels, a quarter larger than the raw of a training step."""
        shape = triple([size + size // 4 for size in self.raw_shape(name)])
        path = self.folder / f"tissue_{'_'.join(map(str, shape))}.zarr"
        if not path.exists():
            for array, values in zip(("raw", "labels"), self._generated, strict=True):
                self._write(path, array, _mirrored(values, shape))
        return path

    def raw(self, shape: Sequence[int] | None = None) -> Path:
        """A store with raw to predict, by default of `volume` voxels."""
        size = triple(shape or self.volume)
        path = self.folder / f"raw_{'_'.join(map(str, size))}.zarr"
        if not path.exists():
            self._write(path, "raw", _mirrored(self._generated[0], size))
        return path

    @property
    def _generated(self) -> tuple[np.ndarray, np.ndarray]:
        """Raw and labels, generated once for all processes."""
        files = [self.folder / f"{name}.npy" for name in ("raw", "labels")]
        if not files[1].exists():
            shape = SMALL_TISSUE if self.small else TISSUE
            made = generate_neurites(shape, self.dataset.voxel_size_nm, seed=0)
            for file, values in zip(files, made, strict=True):
                np.save(file, values)
        raw, labels = (np.load(file) for file in files)
        return raw, labels

    def _write(self, store: Path, name: str, values: np.ndarray) -> None:
        array = create_volume(
            store,
            name,
            shape=values.shape,
            chunks=RAW_CHUNKS,
            dtype=values.dtype,
            voxel_size_nm=self.dataset.voxel_size_nm,
            offset_nm=(0, 0, 0),
        )
        array[...] = values


def _mirrored(values: np.ndarray, shape: Triple) -> np.ndarray:
    """`values` (z, y, x) mirrored to `shape`, or their first part."""
    more = [(0, max(0, new - old)) for new, old in zip(shape, values.shape, strict=True)]
    return np.pad(values, more, mode="symmetric")[tuple(map(slice, shape))]


def other_network(name: str) -> tuple[Any, Any]:
    """A network of another family, and its settings."""
    dataset = OTHER_DATASETS.get(name)
    settings = network_for(name, load_dataset(dataset)) if dataset else network_by_name(name)
    return build_network(settings), settings
