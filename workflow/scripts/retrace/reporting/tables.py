"""Tables of a page: their columns, and the text and the order of each cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrace.evaluation.comparison import HEADINGS
from retrace.evaluation.metric import Metric
from retrace.evaluation.metrics import (
    BOUNDARY_METRICS,
    CLASS_METRICS,
    SEGMENT_METRICS,
    SKELETON_METRICS,
)

LAST = 1e300
"""Order of cells without a number: after all others where the smallest comes first."""
METRICS: dict[str, Metric[Any]] = {
    metric.name: metric
    for metrics in (SKELETON_METRICS, SEGMENT_METRICS, BOUNDARY_METRICS, CLASS_METRICS)
    for metric in metrics
}
"""All metrics by name; those of segments before others of the same name."""


@dataclass(frozen=True)
class Column:
    """A column: the key of its cells, its heading, and, of metrics, what the mouse shows."""

    key: str
    heading: str
    about: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Row:
    """A row: values by the key of their column; `link`: the part of the page that it is about.

    `reference`: whether it is no result of a network, only something to compare with.
    """

    values: Mapping[str, Any]
    reference: bool = False
    link: str = ""


@dataclass(frozen=True)
class Table:
    """A table that the reader can sort."""

    columns: Sequence[Column]
    rows: Sequence[Row]


def table(keys: Iterable[str], rows: Sequence[Row]) -> Table:
    """A table of the columns that at least one row has, in the order of `keys`."""
    values = {key: [row.values.get(key) for row in rows] for key in dict.fromkeys(keys)}
    columns = [
        _column(key, column)
        for key, column in values.items()
        if any(value is not None for value in column)
    ]
    return Table(columns, rows)


def _column(key: str, values: Iterable[Any]) -> Column:
    numeric = all(isinstance(value, (int, float)) for value in values if value is not None)
    metric = METRICS.get(key)
    heading = metric.heading if metric else HEADINGS.get(key, key.replace("_", " "))
    if metric is None:
        return Column(key, heading, numeric=numeric)
    unit = f", {metric.unit}" if metric.unit else ""
    about = f"{metric.definition}{unit}; {metric.better} is better"
    return Column(key, heading, about, numeric)


def cell_text(value: Any, column: Column) -> str:
    """A value as a table shows it: scores with three decimals, separators between thousands."""
    if value is None:
        return ""
    if isinstance(value, float) and column.about and abs(value) < 1000:
        return f"{value:.3f}"
    if isinstance(value, float):
        return (
            f"{value:,.{0 if abs(value) >= 1000 else 1}f}" if abs(value) >= 10 else f"{value:.3g}"
        )
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def cell_order(value: Any, column: Column) -> float | str:
    """What sorts a cell among those of its column."""
    if column.numeric:
        return LAST if value is None else float(value)
    return cell_text(value, column)
