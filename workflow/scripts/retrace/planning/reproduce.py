"""Jobs that compare with published figures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from retrace.config.dataset_model import Dataset
from retrace.config.paper import datasets, networks, published_file
from retrace.config.yaml_files import Settings
from retrace.job import Files, Job
from retrace.planning.evaluate import evaluation
from retrace.planning.experiment import Planner
from retrace.planning.paths import results
from retrace.planning.targets import TargetFiles, other_targets


def table_settings(dataset: Dataset, reproduce: Mapping[str, Any]) -> Settings:
    """What `reproduce.py table` reads."""
    return {
        "dataset": dataset["weights_of"],
        "regions": [entry["volume"] for entry in dataset["test"]],
        "networks": networks(dataset, reproduce["networks"]),
        "threshold": dataset["paper"]["threshold"],
        "tolerance": dataset["paper"]["tolerance"],
    }


def reproduce_job(planner: Planner, dataset: str) -> Job:
    """Compares the scores of all the paper's networks with the published ones."""
    data = planner.dataset(dataset)
    names = networks(data, planner.config["reproduce"]["networks"])
    evaluations = {name: evaluation(planner, dataset, name)[0] for name in names}
    inputs: dict[str, Files] = {
        "evaluations": evaluations,
        "published": os.path.relpath(published_file(data)),
    }
    return Job(table_settings(data, planner.config["reproduce"]), inputs)


@other_targets
def reproduction_targets() -> Iterator[tuple[str, TargetFiles]]:
    """reproduce_DATASET: the verdict on every published number."""
    for name, paper_dataset in datasets().items():
        yield f"reproduce_{name}", partial(_verdict, dataset=paper_dataset)


def _verdict(planner: Planner, dataset: str) -> list[str]:
    networks(planner.dataset(dataset), planner.config["reproduce"]["networks"])
    return [results(dataset, "reproduced.txt")]
