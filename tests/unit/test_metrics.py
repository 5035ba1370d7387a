"""Metrics: each is declared once, in its own module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrace.evaluation import metrics
from retrace.evaluation.comparison import HEADINGS
from retrace.evaluation.contingency import count_block
from retrace.evaluation.metric import Metric, compute, markdown_table
from retrace.evaluation.plots import scores_table
from retrace.evaluation.scores import score, weighted_mean

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md"
KINDS = ("SEGMENT_METRICS", "SKELETON_METRICS", "BOUNDARY_METRICS", "CLASS_METRICS")


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_of_metrics_shows_what_their_modules_declare(kind: str) -> None:
    expected = markdown_table(getattr(metrics, kind))
    assert expected in PAGE.read_text(), f"paste this table into {PAGE}:\n{expected}"


def test_names_are_unique_and_every_metric_can_be_computed() -> None:
    declared: list[Metric[Any]] = [metric for kind in KINDS for metric in getattr(metrics, kind)]
    assert len({metric.name for metric in declared}) == len(declared)
    assert all((metric.value is None) != (metric.derive is None) for metric in declared)


def test_tables_and_comparisons_show_the_metrics_that_ask_for_it() -> None:
    shown = [metric for metric in metrics.SEGMENT_METRICS if metric.in_tables]
    scores = score(count_block(np.array([1, 1, 2, 2]), np.array([1, 1, 1, 2])))
    head = scores_table({"a": scores.as_dict()}).splitlines()[0]
    assert all(metric.heading in head for metric in shown)
    assert all(HEADINGS[metric.name] == metric.heading for metric in shown)


def test_derived_metrics_follow_from_the_means_of_the_others() -> None:
    both = [
        score(count_block(np.array(segments), np.array([1, 1, 2, 2])))
        for segments in ([1, 1, 1, 1], [1, 2, 3, 4])
    ]
    mean = weighted_mean(both)

    recall, precision = (1 + 0.5) / 2, (0.5 + 1) / 2
    expected = 1 - 2 * precision * recall / (precision + recall)
    assert mean["adapted_rand_error"] == pytest.approx(expected)
    assert mean["voi_sum"] == pytest.approx((1 + 1) / 2)


def test_the_best_value_is_the_first_among_equals() -> None:
    lower: Metric[None] = Metric("a", "a", "", better="lower", value=lambda _: 1.0)
    higher: Metric[None] = Metric("b", "b", "", better="higher", derive=lambda v: 2 * v["a"])
    assert (lower.best([2, 1, 1]), higher.best([2, 1, 2])) == (1, 0)
    assert compute([higher, lower], None) == {"b": 2.0, "a": 1.0}
