"""Jobs that segment a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.dataset_model import Dataset
from retrace.config.networks import head_names, interior_map
from retrace.config.yaml_files import Settings
from retrace.planning.train import without


def tissue_mask_source(volume: Mapping[str, Any]) -> Settings:
    return {"tissue_mask": volume["tissue_mask"]} if "tissue_mask" in volume else {}


def segment_settings(
    config: Mapping[str, Any],
    dataset: Dataset,
    network: Mapping[str, Any],
    volume: str,
) -> Settings:
    """What `segment.py fragments` and `edges` read for one volume."""
    segment = without(config["segment"], "thresholds")
    if segment["fragments_in_xy"] == "auto":
        segment["fragments_in_xy"] = not dataset["isotropic"]
    segment |= dataset.get("paper", {}).get("segment", {})
    if "affs" in head_names(network):
        segment["neighborhood"] = network["neighborhood"]
    else:
        segment["boundary"] = interior_map(network)
    return {
        **segment,
        **tissue_mask_source(dataset["volumes"][volume]),
    }
