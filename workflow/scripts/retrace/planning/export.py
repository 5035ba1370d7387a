"""Jobs that export layers and packages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.dataset_model import Dataset
from retrace.config.yaml_files import Settings
from retrace.planning.paths import results

EXPORTED = {
    "segments": ("segmentation.zarr", "segments"),
    "fragments": ("fragments.zarr", "fragments"),
    "affinities": ("prediction.zarr", "affs"),
    "raw": ("prediction.zarr", "affs"),
}
"""Where a layer that is exported comes from, as (store, array); of raw, whose box it is cut to."""


def exported_store(dataset: str, network: str, volume: str, layer: str) -> str:
    """The store that an exported layer comes from or is cut to."""
    return results(dataset, network, volume, EXPORTED[layer][0])


def export_settings(
    config: Mapping[str, Any],
    dataset: Dataset,
    network: Mapping[str, Any],
    volume: str,
    layer: str,
    form: str,
) -> Settings:
    """What export.py reads for one layer; `form`: precomputed or ome_zarr."""
    store = exported_store(dataset["name"], network["name"], volume, layer)
    made = {"path": store, "array": EXPORTED[layer][1]}
    raw = layer == "raw"
    compression = {"gzip": config["export"]["gzip"]} if form == "precomputed" else {}
    return {
        "format": form,
        "source": dataset["volumes"][volume]["raw"] if raw else made,
        "within": made if raw else None,
        "labels": layer in ("segments", "fragments"),
        **compression,
    }


def package_settings(
    config: Mapping[str, Any], dataset: Dataset, network: Mapping[str, Any]
) -> Settings:
    """What package.py reads."""
    about = {key: dataset[key] for key in ("name", "voxel_size_nm") if key in dataset}
    return {"network": network, "dataset": about, **config["package"]}
