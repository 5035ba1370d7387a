"""Jobs that show data and results in neuroglancer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.dataset_model import Dataset
from retrace.config.networks import BOUNDARY, head_names
from retrace.config.yaml_files import Settings
from retrace.planning.paths import mask_store, results

HEAD_LAYERS = {"affs": "affinities", "lsds": "lsds", BOUNDARY: "boundary", "classes": "boundary"}
"""How the viewer calls a network's outputs."""


def data_layers(dataset: Dataset, volume: str) -> list[Settings]:
    """Viewer layers of a volume before any training: raw, and labels and mask where it has them."""
    source = dataset["volumes"][volume]
    layers = [{"kind": "raw", **source["raw"]}]
    if "labels" in source:
        mask = {"kind": "mask", "path": mask_store(dataset, volume), "array": "labels_mask"}
        layers += [{"kind": "labels", **source["labels"]}, mask]
    return layers


def result_layers(dataset: Dataset, network: Mapping[str, Any], volume: str) -> list[Settings]:
    """Viewer layers of what a network made of a volume."""
    folder = results(dataset["name"], network["name"], volume)
    heads = head_names(network)
    layers = [
        {
            "kind": HEAD_LAYERS[head.split("_")[0]],
            "path": f"{folder}/prediction.zarr",
            "array": head,
        }
        for head in heads
    ]
    if "affs" in heads and dataset["validation"]:
        stores = {"fragments": "fragments", "segments": "segmentation"}
        layers += [
            {"kind": kind, "path": f"{folder}/{store}.zarr", "array": kind}
            for kind, store in stores.items()
        ]
    return layers


def view_settings(config: Mapping[str, Any], layers: list[Settings]) -> Settings:
    """What view.py reads."""
    return {**config["view"], "layers": layers}
