"""Jobs that make and sample sections for alignment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.alignment import sections_of, source, stack_set
from retrace.config.dataset_model import Dataset
from retrace.config.yaml_files import Settings
from retrace.errors import ConfigError


def make_settings(dataset: Dataset) -> Settings:
    """What `stacks.py make` reads; ConfigError where the dataset's sections are not made."""
    alignment = sections_of(dataset)
    if not alignment["made"]:
        raise ConfigError(f"the sections of dataset {dataset['name']!r} are its own, not made")
    raw = dataset["volumes"][alignment["volume"]]["raw"]
    return {
        "made": alignment["made"],
        "seed": alignment["seed"],
        "voxel_size_nm": dataset["voxel_size_nm"],
        "raw": None if alignment["made"]["phantom_shape"] else raw,
    }


def gen_settings(dataset: Dataset, name: str, split: str) -> Settings:
    """What `stacks.py gen_stack` reads."""
    alignment, stacks = sections_of(dataset), stack_set(dataset, name)
    return {
        "name": f"{dataset['name']}_{name}",
        "split": split,
        "seed": alignment["seed"],
        "source": source(dataset, stacks["mip"]),
        "mask": alignment["mask"],
        "near_px": alignment["defects"]["near_px"],
        "stacks": stacks,
    }


def defect_settings(config: Mapping[str, Any], dataset: Dataset) -> Settings:
    """What `defects.py train` reads."""
    alignment = sections_of(dataset)
    return {
        "defects": alignment["defects"],
        "seed": config["seed"],
        "device": config["device"],
    }


def detector_settings(config: Mapping[str, Any], dataset: Dataset) -> Settings:
    """What `defects.py mask` reads; masks of a layer are joined with what is found."""
    alignment = sections_of(dataset)
    keys = ("threshold", "smallest_px", "near_px")
    return {
        **{key: alignment["defects"][key] for key in keys},
        "keep_given": alignment["mask"] is not None,
        "device": config["device"],
    }
