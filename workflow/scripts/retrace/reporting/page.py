"""The report as one HTML page that needs no other file and no server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from retrace import __version__
from retrace.evaluation.comparison import HEADINGS, footnote
from retrace.files import read_parsed
from retrace.planning.report_settings import ReportSettings
from retrace.progress import progress
from retrace.reporting.drawings import embedded, graph
from retrace.reporting.experiments import ReportedExperiment, read_experiment
from retrace.reporting.machine import machine_facts
from retrace.reporting.manifests import read_store_records, step_costs, step_edges


def report_page(settings: ReportSettings, template: str) -> str:
    """The page of finished experiments, with existing comparisons and reproductions.

    `template`: Jinja. DataError if results are missing or damaged.
    """
    experiments = settings.experiments
    reported = [
        read_experiment(experiment)
        for experiment in progress(experiments, len(experiments), "report", "experiments")
    ]
    folders = [Path(experiment.folder) for experiment in experiments]
    datasets = sorted({folder.parent for folder in folders})
    records = read_store_records([*folders, *(dataset / "masks" for dataset in datasets)])
    comparisons = [read_comparison(dataset) for dataset in datasets]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["number"] = table_cell
    return environment.from_string(template).render(
        version=__version__,
        experiments=reported,
        scores=score_tables(reported),
        comparisons=[comparison for comparison in comparisons if comparison],
        graph=graph(step_edges(records)),
        costs=step_costs(records, [experiment.history for experiment in reported]),
        machine=machine_facts(),
        images=sorted({record.image for record in records if record.image}),
        configuration=json.dumps(settings.config.plain(), indent=1, sort_keys=True),
    )


def table_cell(value: Any) -> str:
    """A value as a table shows it: three decimals, separators between thousands."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def score_tables(experiments: Sequence[ReportedExperiment]) -> list[dict[str, Any]]:
    """Tables of scores: a row per experiment and entry, rows with equal metrics in one table."""
    tables: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for experiment in experiments:
        for entry, content in experiment.entries.items():
            scores = _numbers(content)
            row = {"experiment": experiment.name, "entry": entry, "scores": scores}
            tables.setdefault(tuple(scores), []).append(row)
    return [{"metrics": metrics, "rows": rows} for metrics, rows in tables.items()]


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an entry, without those nested below it."""
    return {
        key: value
        for key, value in entry.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def read_comparison(folder: Path) -> dict[str, Any] | None:
    """The comparison of a dataset's networks as a table; None if there is none."""
    path = folder / "comparison.json"
    if not path.is_file():
        return None
    return read_parsed(path, partial(_comparison, path))


def _comparison(path: Path, content: Any) -> dict[str, Any]:
    """The content of comparison.json as a table."""
    keys = [key for key in HEADINGS if any(row.get(key) is not None for row in content["rows"])]
    published = content.get("published")
    return {
        **content,
        "footnote": footnote(published) if published else None,
        "headings": [HEADINGS[key] for key in keys],
        "rows": [[row.get(key) for key in keys] for row in content["rows"]],
        "picture": embedded(path.with_suffix(".png")),
    }
