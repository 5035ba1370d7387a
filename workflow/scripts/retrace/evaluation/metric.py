"""The declaration of a metric: its name, unit, exact meaning, and function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Subject = TypeVar("Subject")
"""What a metric is computed from, for example a contingency table."""


@dataclass(frozen=True)
class Metric(Generic[Subject]):
    """One number, with its description in tables, plots, reports and documentation.

    Either `value` computes it from its subject, or `derive` from other metrics by name. Derived
    metrics of several volumes are derived from the means of the others, not averaged themselves.
    """

    name: str
    """Key in JSON."""
    heading: str
    """Name in tables and plots."""
    definition: str
    """Formula, in the symbols of docs/reference/metrics.md."""
    better: Literal["lower", "higher"]
    unit: str = ""
    """For example bits or nm; empty for fractions, ratios and counts."""
    value: Callable[[Subject], float] | None = None
    derive: Callable[[Mapping[str, float]], float] | None = None
    convention: str = ""
    """Part of the sentence in each evaluation that explains its numbers. Metrics that are
    defined together share one."""
    in_tables: bool = False
    """Whether tables on the terminal and comparisons show it."""

    def best(self, values: Sequence[float]) -> int:
        """The index of the best of several values, the first one among equals."""
        choose = min if self.better == "lower" else max
        return values.index(choose(values))


def compute(metrics: Iterable[Metric[Subject]], subject: Subject) -> dict[str, float]:
    """The values of the metrics by name, in their order."""
    metrics = list(metrics)
    values = {m.name: m.value(subject) for m in metrics if m.value is not None}
    return with_derived(metrics, values)


def with_derived(
    metrics: Iterable[Metric[Subject]], values: Mapping[str, float]
) -> dict[str, float]:
    """`values` together with the metrics that are derived from them, in the order of `metrics`."""
    complete = dict(values)
    for metric in metrics:
        if metric.derive is not None:
            complete[metric.name] = metric.derive(complete)
    return {metric.name: complete[metric.name] for metric in metrics}


def conventions(metrics: Iterable[Metric[Subject]], separator: str) -> str:
    """The conventions of the metrics as one text, each once."""
    return separator.join(dict.fromkeys(m.convention for m in metrics if m.convention))


def markdown_table(metrics: Iterable[Metric[Subject]]) -> str:
    """The metrics as a table of docs/reference/metrics.md."""
    lines = ["| name | definition | unit | better |", "|---|---|---|---|"]
    lines += [f"| `{m.name}` | {m.definition} | {m.unit} | {m.better} |" for m in metrics]
    return "\n".join(lines)
