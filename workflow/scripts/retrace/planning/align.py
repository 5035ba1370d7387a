"""What align.py is told by the workflow; see retrace.settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.alignment import sections_of, source
from retrace.config.dataset_model import Dataset
from retrace.config.yaml_files import Settings
from retrace.errors import ConfigError


def train_settings(
    config: Mapping[str, Any], dataset: Dataset, network: Mapping[str, Any]
) -> Settings:
    """What `align.py train` reads."""
    return {
        "dataset": dataset["name"],
        "voxel_size_nm": dataset["voxel_size_nm"],
        "network": network,
        "epochs": config["epochs"],
        "iterations": _iterations(config, network["name"]),
        "run": config["run"],
        "seed": config["seed"],
        "device": config["device"],
    }


def _iterations(config: Mapping[str, Any], network: str) -> int | None:
    """`iterations` of the configuration, for one network."""
    asked = config["iterations"]
    found: int | None = asked.get(network) if isinstance(asked, Mapping) else asked
    return found


def mip_of(dataset: Dataset, network: Mapping[str, Any]) -> int | None:
    """The mip that a stack is aligned at; as the training stacks where the network says nothing."""
    asked = network["align"]["mip"]
    if asked is not None:
        return int(asked)
    found = {stack["mip"] for stack in sections_of(dataset)["stacks"].values()}
    if len(found) > 1:
        raise ConfigError(
            f"dataset {dataset['name']!r} has stacks of several mips {sorted(map(str, found))}; "
            f"say in network {network['name']!r} which one to align at: `align: {{mip: ...}}`"
        )
    return found.pop()


def aligned_voxel_nm(dataset: Dataset, network: Mapping[str, Any]) -> list[int]:
    """Voxels of what a network aligns: the dataset's, y and x doubled by each mip beyond raw's."""
    z, y, x = dataset["voxel_size_nm"]
    raw = dataset["volumes"][sections_of(dataset)["volume"]]["raw"].get("mip") or 0
    mip = mip_of(dataset, network)
    factor = 1 if mip is None else 2 ** (mip - raw)
    return [z, y * factor, x * factor]


def align_settings(
    config: Mapping[str, Any], dataset: Dataset, network: Mapping[str, Any]
) -> Settings:
    """What `align.py stack` reads; ConfigError where it is to be rendered coarser than aligned."""
    mip, render = mip_of(dataset, network), network["align"]["render_mip"]
    whole = source(dataset, mip)
    if render is not None and render > whole["mip"]:
        raise ConfigError(
            f"network {network['name']!r}: `render_mip: {render}` is coarser than the mip "
            f"{whole['mip']} that sections are aligned at; it may be as fine, or finer"
        )
    fine = None if render in (None, whole["mip"]) else source(dataset, render)
    return {
        "dataset": dataset["name"],
        "network": network,
        "sections": whole,
        "fine": fine,
        "gzip": config["export"]["gzip"],
        "device": config["device"],
    }


def score_settings(
    config: Mapping[str, Any], dataset: Dataset, network: Mapping[str, Any]
) -> Settings:
    """What `align.py evaluate` reads: the sections, and the share of them that was held out."""
    stacks = sections_of(dataset)["stacks"].values()
    return {
        "dataset": dataset["name"],
        "network": network["name"],
        "sections": source(dataset, mip_of(dataset, network)),
        "test_fraction": min(stack["test_fraction"] for stack in stacks),
        "device": config["device"],
    }


def layers(
    config: Mapping[str, Any], dataset: Dataset, network: Mapping[str, Any]
) -> list[Settings]:
    """Viewer layers: the sections before and after."""
    store = f"results/{dataset['name']}/{network['name']}/aligned.zarr"
    settings = align_settings(config, dataset, network)
    before = {**settings["sections"], "kind": "raw", "name": "before"}
    array = "aligned" if settings["fine"] is None else "rendered"
    return [before, {"path": store, "array": array, "kind": "raw", "name": "aligned"}]
