"""Jobs that compare networks on one dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.dataset_model import Dataset
from retrace.config.datasets import is_planar
from retrace.config.yaml_files import Settings
from retrace.planning.evaluate import scored_dataset


def compare_settings(
    dataset: Dataset,
    families: Mapping[str, str],
    refused: Mapping[str, str],
    published: Mapping[str, Any] | None,
) -> Settings:
    """What `compare.py` reads; `published`: which figures of others are shown, None for none."""
    content = scored_dataset(dataset, ["test"], ["labels"])
    others: Settings = {}
    for volume in content["volumes"]:
        for name, source in dataset["volumes"][volume].get("segmentations", {}).items():
            others.setdefault(name, {})[volume] = source
    return {
        "dataset": content,
        "planar": is_planar(dataset),
        "families": dict(families),
        "refused": dict(refused),
        "segmentations": others,
        "published": published,
    }
