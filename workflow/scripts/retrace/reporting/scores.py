"""Tables of scores: a row for each experiment and each volume, and rows to compare them with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retrace.evaluation.comparison import mean_scores, training_seconds
from retrace.evaluation.coverage import total_coverage
from retrace.reporting.figures import REFERENCES
from retrace.reporting.tables import METRICS, Row, Table, table

if TYPE_CHECKING:
    from retrace.reporting.experiments import ReportedExperiment

OF_EXPERIMENTS = ("experiment", "test volumes")
AFTER_SCORES = ("coverage", "threshold", "iterations", "training_s", "finished")
DATE = len("2000-01-01")
"""Length of a date without its time."""
OF_VOLUMES = ("experiment", "volume", "result")
SHOWN = tuple(name for name, metric in METRICS.items() if metric.in_tables)
"""Metrics of the table of experiments."""


def experiment_tables(experiments: Sequence[ReportedExperiment]) -> list[Table]:
    """A row for each experiment, means over its test volumes; one table for each set of metrics."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for experiment in experiments:
        own = _experiment_row(experiment)
        rows = groups.setdefault(_metrics_of(own.values), [])
        rows += [own, *_new(_reference_rows(experiment), rows)]
    return [table((*OF_EXPERIMENTS, *names, *AFTER_SCORES), rows) for names, rows in groups.items()]


def _metrics_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in SHOWN if values.get(name) is not None)


def _experiment_row(experiment: ReportedExperiment) -> Row:
    entries, history = experiment.entries, experiment.history
    values = {
        "experiment": experiment.name,
        "test volumes": ", ".join(entries),
        **mean_scores(entries, SHOWN),
        **_other_numbers(entries),
        "coverage": total_coverage(entries.values()).get("coverage"),
        "threshold": experiment.threshold,
        "iterations": history["iterations"],
        "training_s": training_seconds(history) if "iterations_per_second" in history else None,
        "finished": experiment.finished[:DATE],
    }
    return Row(values, link=experiment.name)


def _other_numbers(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Means of scores that no metric declares, as of single examples; none if a metric exists."""
    if any(key in METRICS for entry in entries.values() for key in entry):
        return {}
    names = dict.fromkeys(key for entry in entries.values() for key in _numbers(entry))
    return mean_scores(entries, list(names))


def _reference_rows(experiment: ReportedExperiment) -> Iterator[Row]:
    """Means of each reference over the test volumes, without those that a volume lacks."""
    for key in ("untrained_watershed", "best_possible", "one_segment"):
        words, _ = REFERENCES[key]
        entries = {name: entry.get(key) or {} for name, entry in experiment.entries.items()}
        scores = mean_scores(entries, SHOWN)
        if scores:
            # The watershed and the single segment are the same for all networks of a dataset.
            owner = experiment.name if key == "best_possible" else experiment.dataset
            values = {"experiment": f"{owner}: {words}", "test volumes": ", ".join(entries)}
            yield Row({**values, **scores}, reference=True)


def _new(rows: Iterable[Row], known: Sequence[Row]) -> list[Row]:
    """The rows that are not known yet: networks of one dataset have some references in common."""
    return [row for row in rows if all(row.values != other.values for other in known)]


def volume_tables(experiments: Sequence[ReportedExperiment]) -> list[Table]:
    """A row for each experiment, volume and result, with all its numbers.

    Results are that of the network, of skeletons, and the references. Rows with the same numbers
    are in one table.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for experiment in experiments:
        for volume, entry in experiment.entries.items():
            for result, scores in _results(entry):
                shown = {"experiment": experiment.name, "volume": volume}
                values = {**shown, "result": result or "the network's", **scores}
                row = Row(values, reference=bool(result), link=experiment.name)
                groups.setdefault(_group(scores), []).append(row)
    return [
        table((*OF_VOLUMES, *(key for row in rows for key in row.values)), rows)
        for rows in groups.values()
    ]


def _group(scores: Mapping[str, Any]) -> tuple[str, ...]:
    """The metrics of a result; results without any, by their numbers."""
    return tuple(key for key in scores if key in METRICS) or tuple(scores)


def _results(entry: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The network's own numbers, under an empty name, and those nested in the entry by name."""
    yield "", _numbers(entry)
    for key, value in entry.items():
        # The parameters of the untrained watershed are no scores.
        scored = isinstance(value, Mapping) and key != "parameters"
        numbers = _numbers(value) if scored else {}
        if numbers:
            yield REFERENCES.get(key, (key.replace("_", " "), ""))[0], numbers
            yield from ((f"{key}: {name}", inner) for name, inner in _results(value) if name)


def _numbers(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of an entry, without those nested below it."""
    return {
        key: value
        for key, value in entry.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def missing_references(experiments: Sequence[ReportedExperiment]) -> list[str]:
    """Sentences on references that were not computed, with the reason."""
    lacking: dict[str, dict[str, None]] = {}
    for experiment in experiments:
        for entry in experiment.entries.values():
            untrained = entry.get("untrained_watershed", {})
            if "best_possible" in entry and "voi_sum" not in untrained:
                reason = untrained.get("note", "switched off by `evaluate: {untrained: false}`")
                lacking.setdefault(reason, {})[experiment.name] = None
    return [
        f"No untrained watershed of {', '.join(names)}: {reason}."
        for reason, names in lacking.items()
    ]
