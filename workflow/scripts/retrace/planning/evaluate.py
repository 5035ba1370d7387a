"""Jobs that score a segmentation, a boundary map or classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrace.config.dataset_model import Dataset
from retrace.config.networks import interior_map
from retrace.config.splits import scorable
from retrace.config.yaml_files import Settings
from retrace.planning.paths import volumes_of
from retrace.planning.train import without


def scored_dataset(dataset: Dataset, splits: Sequence[str], parts: Sequence[str]) -> Settings:
    entries = {split: scorable(dataset, split) for split in splits}
    used = volumes_of(entry for split in splits for entry in entries[split])
    found = {v: dataset["volumes"][v] for v in used}
    volumes = {v: {p: found[v][p] for p in parts if p in found[v]} for v in used}
    return {
        "name": dataset["name"],
        "voxel_size_nm": dataset["voxel_size_nm"],
        "background_ids": dataset["background_ids"],
        "volumes": volumes,
        **{split: [without(e, "probability") for e in entries[split]] for split in splits},
    }


def count_settings(dataset: Dataset, split: str) -> Settings:
    """What `evaluate.py count` reads: the entries of one split and their labels."""
    return {"dataset": scored_dataset(dataset, [split], ["labels"])}


def choose_settings(config: Mapping[str, Any], dataset: Dataset) -> Settings:
    """What `evaluate.py choose` reads: nothing of the test entries."""
    return {
        "dataset": scored_dataset(dataset, ["validation"], ["labels"]),
        "thresholds": config["segment"]["thresholds"],
    }


def score_settings(config: Mapping[str, Any], dataset: Dataset) -> Settings:
    """What `evaluate.py score` reads."""
    asked = config["evaluate"]["compute_mincut"]
    by_paper = dataset.get("paper", {}).get("compute_mincut")
    return {
        "dataset": scored_dataset(dataset, ["validation", "test"], ["raw", "labels"]),
        "thresholds": config["segment"]["thresholds"],
        **without(config["evaluate"], "boundary_thresholds"),
        "compute_mincut": bool(by_paper if asked is None else asked),
    }


def outputs_settings(
    config: Mapping[str, Any], network: Mapping[str, Any], volume: str
) -> Settings:
    """What `znn.py outputs` reads."""
    return {"prefix": config["output_prefix"], "volume": volume, "heads": network["heads"]}


def boundary_settings(
    config: Mapping[str, Any], dataset: Dataset, network: Mapping[str, Any]
) -> Settings:
    """What boundaries.py reads: the labelled entries of validation and test."""
    splits = ("validation", "test")
    content = scored_dataset(dataset, splits, ["labels"])
    for split in splits:
        labelled = [e for e in content[split] if "labels" in content["volumes"][e["volume"]]]
        content[split] = [without(e, "skeletons") for e in labelled]
    return {
        "dataset": content,
        "array": interior_map(network),
        "grow_boundary": network["grow_boundary"],
        "thresholds": config["evaluate"]["boundary_thresholds"],
    }


def class_settings(dataset: Dataset, network: Mapping[str, Any]) -> Settings:
    """What classes.py reads: the labelled entries of test."""
    content = scored_dataset(dataset, ("test",), ["raw", "labels"])
    labelled = [e for e in content["test"] if "labels" in content["volumes"][e["volume"]]]
    keys = ("grow_boundary", "labels_are_classes", "n_lab")
    return {
        "dataset": {**content, "test": [without(e, "skeletons") for e in labelled]},
        **{key: network[key] for key in keys},
    }


def nodes_settings(config: Mapping[str, Any], dataset: Dataset) -> Settings:
    """What `evaluate.py nodes` reads: the test entries and the thresholds."""
    return {
        "dataset": scored_dataset(dataset, ["test"], []),
        "thresholds": config["segment"]["thresholds"],
    }
