"""Jobs that compare with published figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.dataset_model import Dataset
from retrace.config.paper import networks
from retrace.config.yaml_files import Settings


def table_settings(dataset: Dataset, reproduce: Mapping[str, Any]) -> Settings:
    """What `reproduce.py table` reads."""
    return {
        "dataset": dataset["weights_of"],
        "regions": [entry["volume"] for entry in dataset["test"]],
        "networks": networks(dataset, reproduce["networks"]),
        "threshold": dataset["paper"]["threshold"],
        "tolerance": dataset["paper"]["tolerance"],
    }
