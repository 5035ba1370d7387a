"""Datasets that must have volumes, for tests."""

from __future__ import annotations

from pathlib import Path

from retrace.config.dataset_model import Dataset
from retrace.config.datasets import load_dataset
from retrace.config.examples_model import ExamplesDataset
from retrace.errors import ConfigError


def load_volumes(name: str | Path, chosen: object = None) -> Dataset:
    """`load_dataset`; ConfigError where the dataset has single examples."""
    dataset = load_dataset(name, chosen)
    if isinstance(dataset, ExamplesDataset):
        raise ConfigError(f"dataset {dataset.name!r} has single examples and no volumes")
    return dataset
