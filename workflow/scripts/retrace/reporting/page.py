"""The report as one HTML page that needs no other file and no server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace.planning.report_settings import ReportSettings
from retrace.progress import progress
from retrace.reporting.alignments import ReportedAlignment, read_alignment
from retrace.reporting.comparisons import read_comparison
from retrace.reporting.drawings import graph
from retrace.reporting.experiments import ReportedExperiment, read_experiment
from retrace.reporting.machine import machine_facts
from retrace.reporting.manifests import (
    StepCost,
    StoreRecord,
    read_lineage,
    read_store_records,
    step_costs,
    step_edges,
    step_notes,
)
from retrace.reporting.rendering import render
from retrace.reporting.scores import experiment_tables, missing_references, volume_tables
from retrace.reporting.tables import Row, Table, table


def report_page(settings: ReportSettings, template: str) -> str:
    """The page of finished experiments, with existing comparisons and reproductions.

    `template`: Jinja. DataError if results are missing or damaged.
    """
    experiments = settings.experiments
    reported = [
        read_experiment(experiment)
        for experiment in progress(experiments, len(experiments), "report", "experiments")
    ]
    aligned = [read_alignment(alignment) for alignment in settings.alignments]
    folders = [Path(one.folder) for one in experiments]
    folders += [Path(one.folder) for one in settings.alignments]
    datasets = sorted({folder.parent for folder in folders})
    read = [*folders, *(dataset / "masks" for dataset in datasets)]
    records = read_store_records(read)
    comparisons = [read_comparison(dataset / "comparison.json") for dataset in datasets]
    costs = step_costs(records, _costs_of([*reported, *aligned]))
    return render(
        template,
        title=f"{len(folders)} experiment{'s' if len(folders) != 1 else ''}",
        experiments=reported,
        alignments=aligned,
        experiment_tables=experiment_tables(reported),
        volume_tables=volume_tables(reported),
        missing=missing_references(reported),
        comparisons=[comparison for comparison in comparisons if comparison],
        graph=_lineage(read, [dataset / "comparison.record.json" for dataset in datasets]),
        costs=_cost_table(costs),
        total=_total(costs),
        machine={**machine_facts(), **_of_jobs(records)},
        configuration=json.dumps(settings.config.plain(), indent=1, sort_keys=True),
    )


def _costs_of(
    experiments: Sequence[ReportedExperiment | ReportedAlignment],
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Training and evaluation, which have no manifest."""
    for experiment in experiments:
        yield experiment.name, "train", experiment.history
        yield experiment.name, "evaluation", experiment.origin


def _cost_table(costs: Sequence[StepCost]) -> Table:
    rows = [
        Row(
            {
                "experiment": cost.experiment,
                "step": cost.step,
                "jobs": cost.jobs,
                "seconds": round(cost.seconds, 1),
                "GPU seconds": round(cost.gpu_seconds, 1),
                "peak memory, MB": cost.peak_memory_mb,
            }
        )
        for cost in costs
    ]
    return table(rows[0].values if rows else (), rows)


def _total(costs: Sequence[StepCost]) -> str:
    seconds, gpu = (sum(getattr(cost, key) for cost in costs) for key in ("seconds", "gpu_seconds"))
    return f"{seconds / 3600:,.2f} h, {gpu / 3600:,.2f} h of them with a GPU"


def _lineage(folders: Sequence[Path], files: Sequence[Path]) -> str:
    results = read_lineage(folders, files)
    return graph(step_edges(results), step_notes(results))


def _of_jobs(records: Sequence[StoreRecord]) -> dict[str, str]:
    """Images and GPUs of the jobs, which may have run on other machines than this one."""
    images = sorted({record.image for record in records if record.image})
    gpus = sorted({record.gpu for record in records if record.gpu})
    return {
        "images of the jobs": ", ".join(images) or "none: the host's environment",
        "GPUs of the jobs": ", ".join(gpus) or "none",
    }
