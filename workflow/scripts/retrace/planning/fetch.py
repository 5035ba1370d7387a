"""Jobs that fetch volumes, checkpoints and objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.dataset_model import Dataset
from retrace.config.yaml_files import Settings


def fetch_settings(config: Mapping[str, Any], dataset: Dataset, volume: str) -> Settings:
    """What fetch.py reads for one volume of a bucket."""
    bucket = dataset["bucket"]
    return {
        "bucket": config["bucket"],
        "prefix": f"{bucket['prefix']}/{volume}.zarr",
        "endpoint_url": config["endpoint_url"],
        "unsigned": config["unsigned"],
        "threads": config["fetch_threads"],
        "mirror": config["mirror"],
        "arrays": [bucket["raw"], bucket["labels"]],
    }


def fetch_checkpoint_settings(
    config: Mapping[str, Any], dataset: Dataset, network: str
) -> Settings:
    """What fetch.py reads for one published checkpoint."""
    prefix = f"{dataset['bucket']['checkpoints']}/{network}"
    return fetch_settings(config, dataset, network) | {"prefix": prefix, "arrays": []}


def fetch_object_settings(config: Mapping[str, Any], key: str, sha256: str | None) -> Settings:
    """What fetch_object.py reads for one object of the bucket."""
    return {
        "bucket": config["bucket"],
        "key": key,
        "sha256": sha256,
        "endpoint_url": config["endpoint_url"],
        "unsigned": config["unsigned"],
        "threads": config["fetch_threads"],
        "mirror": config["mirror"],
    }


def fetch_ground_truth_settings(
    config: Mapping[str, Any], dataset: Dataset, folder: str
) -> Settings:
    """What fetch.py reads for one `ground_truth` folder."""
    keys = ("bucket", "endpoint_url", "unsigned", "mirror")
    own = {key: config[key] for key in keys}
    return {**own, "threads": config["fetch_threads"], "prefix": dataset["ground_truth"][folder]}


def ground_truth(dataset: Dataset, path: str) -> str | None:
    """The fetched folder that a path lies in, None for a path elsewhere."""
    base = f"data/{dataset['name']}/ground_truth/"
    name = path.removeprefix(base).split("/")[0]
    known = path.startswith(base) and name in dataset.get("ground_truth", {})
    return base + name if known else None
