"""Scores of boundary maps on cases that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retrace.evaluation.boundaries import best_thresholds, score_sections
from retrace.evaluation.boundary_sections import (
    BoundarySection,
    objects_of_section,
    segments_between_lines,
)
from retrace.evaluation.contingency import count_block
from retrace.evaluation.metrics.boundary_pixels import pixel_error
from retrace.evaluation.metrics.boundary_thinned import v_info, v_rand
from retrace.formats.label_values import compact


def cells(gap: int = 1) -> np.ndarray:
    """Two cells of 10 x 10 with a boundary of `gap` pixels around and between them."""
    labels = np.zeros((10 + 2 * gap, 20 + 3 * gap), np.uint8)
    labels[gap : gap + 10, gap : gap + 10] = 1
    labels[gap : gap + 10, 2 * gap + 10 : 2 * gap + 20] = 1
    return labels


def test_the_ground_truth_itself_is_perfect_at_every_intermediate_threshold() -> None:
    labels = cells()
    section = BoundarySection(
        labels.astype(float), objects_of_section(labels), np.ones(labels.shape, bool)
    )

    np.testing.assert_allclose(score_sections([section], [0.3, 0.7]), [[0, 1, 1], [0, 1, 1]])


def test_thick_boundaries_are_thinned_before_objects_are_compared() -> None:
    thin, thick = cells(3), cells(3)
    thick[:, 11:15] = 0
    section = BoundarySection(
        thick.astype(float), objects_of_section(thin), np.ones(thin.shape, bool)
    )

    assert pixel_error(section, 0.5) == pytest.approx((thin != thick).mean())
    assert score_sections([section], [0.5])[0, 1] == pytest.approx(1, abs=0.02)


def test_one_merger_of_two_equal_objects() -> None:
    truth = objects_of_section(cells())
    merged = np.ones(truth.shape, np.uint64)
    table = count_block(merged, truth)

    # sum p_ij^2 = 2 / 4, sum s_i^2 = 1, sum t_j^2 = 1 / 2
    assert v_rand(table) == pytest.approx(0.5 / 0.75)
    assert v_info(table) == pytest.approx(0)


def test_voxels_of_lines_are_segments_of_their_own() -> None:
    truth = np.ones((1, 4), np.uint64)
    table = count_block(np.array([[1, 1, 0, 0]], np.uint64), truth)

    assert v_rand(table) == pytest.approx((4 + 1 + 1) / 16 / (0.5 * 6 / 16 + 0.5))
    assert v_info(table) == pytest.approx(0)


def test_masked_pixels_do_not_count() -> None:
    labels = cells()
    guess = labels.astype(float)
    guess[:, :5] = 1 - guess[:, :5]
    known = np.ones(labels.shape, bool)
    known[:, :5] = False

    section = BoundarySection(guess, objects_of_section(labels), known)
    assert pixel_error(section, 0.5) == 0
    with pytest.raises(ValueError, match="no section holds an object"):
        score_sections(
            [BoundarySection(guess, objects_of_section(labels), np.zeros_like(known))], [0.5]
        )


def test_touching_labels_and_pieces_of_one_label_are_objects() -> None:
    labels = np.array([[7, 7, 9, 9, 0, 7]])

    assert objects_of_section(labels).tolist() == [[1, 1, 2, 2, 0, 3]]


def test_segments_fill_the_space_between_lines() -> None:
    segments = segments_between_lines(cells(3) > 0)

    assert len(np.unique(segments[segments > 0])) >= 2
    assert segments[8, 8] != segments[8, 20]


def test_each_metric_has_its_own_best_threshold() -> None:
    scores = np.array([[0.3, 0.9, 0.5], [0.1, 0.8, 0.6], [0.2, 0.7, 0.7]])

    assert best_thresholds([0.2, 0.4, 0.6], scores) == {
        "pixel_error": 0.4,
        "v_rand": 0.2,
        "v_info": 0.6,
    }


@given(
    hnp.arrays(np.int64, (3, 4), elements=st.sampled_from([-(2**62), -1, 0, 5, 2**62])),
)
def test_compact_labels_keep_equality_and_background(labels: np.ndarray) -> None:
    compacted = compact(labels)

    np.testing.assert_array_equal(compacted == 0, labels == 0)
    same = compacted.reshape(-1, 1) == compacted.reshape(1, -1)
    np.testing.assert_array_equal(same, labels.reshape(-1, 1) == labels.reshape(1, -1))
