"""Rules that choose a threshold: closed-form cases, and properties of objects' parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retrace.evaluation.contingency import count_block
from retrace.evaluation.scores import score, weighted_mean
from retrace.evaluation.threshold_rules import RULES, object_parts, pooled_parts

LABELS = arrays(np.int64, (4, 5, 6), elements=st.integers(0, 5))


@given(LABELS, LABELS)
def test_the_parts_of_the_objects_add_up_to_the_voi(
    segments: np.ndarray, truth: np.ndarray
) -> None:
    truth[0, 0, 0] = 1
    table = count_block(segments, truth)
    parts = object_parts(table)
    assert len(parts) == len(np.unique(truth[truth > 0]))
    assert parts.sum() == pytest.approx(score(table)["voi_sum"], abs=1e-12)


def test_parts_of_a_split_and_of_a_merge() -> None:
    """Object 1 is halved: 1 bit of each of its voxels; 2 and 3 are one segment: 1 bit of each."""
    truth = np.array([1, 1, 1, 1, 2, 2, 3, 3])
    segments = np.array([5, 5, 6, 6, 7, 7, 7, 7])
    assert object_parts(count_block(segments, truth)).tolist() == [0.5, 0.25, 0.25]


def test_volumes_are_weighted_by_their_voxels() -> None:
    truth = [np.array([1, 1, 2]), np.array([1, 1, 1, 2, 2, 2, 2])]
    segments = [np.array([1, 2, 2]), np.array([1, 1, 2, 2, 2, 1, 2])]
    tables = [count_block(s, t) for s, t in zip(segments, truth, strict=True)]
    parts = pooled_parts([object_parts(t)[None] for t in tables], [t.voxels for t in tables])
    assert parts.shape == (1, 4)
    mean = weighted_mean([score(t) for t in tables])
    assert parts.sum() == pytest.approx(mean["voi_sum"], abs=1e-12)


def one_lucky_merge() -> np.ndarray:
    """Twelve objects are split less and less until row 3. At row 4 eleven of them lose 0.001 bits
    each, and one gains 0.04, so that the sum is the least there."""
    parts = np.repeat(np.array([0.5, 0.3, 0.2, 0.1, 0.101, 0.4, 0.5])[:, None], 12, 1)
    parts[4, 11] = 0.06
    return parts


def test_the_rules_on_a_minimum_that_one_object_decides() -> None:
    chosen = {name: rule(one_lucky_merge()) for name, rule in RULES.items()}
    assert chosen["least_voi"] == 4
    assert chosen["one_standard_error"] == 3
    assert chosen["smoothed"] == 3


def test_one_standard_error_keeps_a_minimum_on_which_all_objects_agree() -> None:
    parts = np.array([0.5, 0.3, 0.1, 0.2])[:, None] * np.linspace(0.9, 1.1, 12)
    assert [rule(parts) for name, rule in RULES.items() if name != "smoothed"] == [2, 2, 2]


def test_bootstrap_median_of_objects_with_minima_of_their_own() -> None:
    """Five equal objects are best at row 1; one large object is best at row 4.

    With 2.6 times their weight it decides samples that draw it twice, a quarter of them; with 5.72
    times, all that draw it, two thirds.
    """
    rows = np.arange(6)[:, None]
    parts = np.hstack([np.repeat(abs(rows - 1.0), 5, 1), 2.6 * abs(rows - 4.0)])
    assert RULES["least_voi"](parts) == 1
    assert RULES["bootstrap_median"](parts) == 1
    parts[:, 5] *= 2.2
    assert RULES["least_voi"](parts) == 4
    assert RULES["bootstrap_median"](parts) == 4


@given(
    arrays(np.float64, (7, 5), elements=st.floats(0, 2)),
    st.permutations(range(5)),
    st.sampled_from(sorted(RULES)),
)
def test_no_rule_joins_more_for_rounding_or_for_the_order_of_objects(
    parts: np.ndarray, order: list[int], name: str
) -> None:
    rule = RULES[name]
    row = rule(parts)
    assert 0 <= row < 7
    if name != "bootstrap_median":  # whose samples are drawn by place
        assert rule(parts[:, order]) == row
    if name == "one_standard_error":
        assert row <= RULES["least_voi"](parts)
    if name == "least_voi":
        assert rule(np.repeat(parts, 2, axis=0)) == 2 * row, "the lowest of equal thresholds"
