"""Jobs that compare with published figures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial

from retrace.config.dataset_model import Dataset
from retrace.config.paper import datasets, networks, paper_of, published_file
from retrace.job import Files, Job
from retrace.planning.evaluate import evaluation
from retrace.planning.experiment import Planner
from retrace.planning.paths import results
from retrace.planning.score_settings import ReproductionSettings
from retrace.planning.targets import TargetFiles, other_targets


def table_settings(dataset: Dataset, chosen: Sequence[str] | None) -> ReproductionSettings:
    """What `reproduce.py table` reads; `chosen`: the networks to score, None for all."""
    dataset, paper, parent = paper_of(dataset)
    return ReproductionSettings(
        dataset=parent,
        regions=tuple(entry.volume for entry in dataset.test),
        networks=tuple(networks(dataset, chosen)),
        threshold=paper.threshold,
        tolerance=paper.tolerance,
    )


def reproduce_job(planner: Planner, dataset: str) -> Job:
    """Compares the scores of all the paper's networks with the published ones."""
    data = planner.dataset(dataset)
    chosen = planner.config.reproduce.networks
    names = networks(data, chosen)
    evaluations = {name: evaluation(planner, dataset, name)[0] for name in names}
    inputs: dict[str, Files] = {
        "evaluations": evaluations,
        "published": os.path.relpath(published_file(data)),
    }
    return Job(table_settings(data, chosen), inputs)


def judge_job(planner: Planner, dataset: str) -> Job:
    """Compares the numbers of a table with their tolerances."""
    return Job({}, {"table": results(dataset, "reproduction.json")})


@other_targets
def reproduction_targets() -> Iterator[tuple[str, TargetFiles]]:
    """reproduce_DATASET: the verdict on every published number."""
    for name, paper_dataset in datasets().items():
        yield f"reproduce_{name}", partial(_verdict, dataset=paper_dataset)


def _verdict(planner: Planner, dataset: str) -> list[str]:
    networks(planner.dataset(dataset), planner.config.reproduce.networks)
    return [results(dataset, "reproduced.txt")]
