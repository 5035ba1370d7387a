"""VOI and Rand scores: closed forms, other implementations, and exact merging of tables."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import adapted_rand_error, variation_of_information

from retrace.errors import DataError
from retrace.evaluation.contingency import Contingency, count_block, merge_tables
from retrace.evaluation.counting import count_volumes
from retrace.evaluation.ground_truth import GroundTruth
from retrace.evaluation.scores import score
from retrace.geometry import NmBox
from retrace.storage.volumes import Volume

LABELS = arrays(np.uint64, (3, 4, 5), elements=st.integers(0, 4))


def table_of(segments: list[int], truth: list[int]) -> Contingency:
    return count_block(np.array(segments, np.uint64), np.array(truth, np.uint64))


def volume(data: np.ndarray, offset_nm: tuple[int, int, int] = (0, 0, 0)) -> Volume:
    return Volume(data, (20, 9, 9), offset_nm, "test volume")


def same(a: Contingency, b: Contingency) -> bool:
    return (
        np.array_equal(a.segments, b.segments)
        and np.array_equal(a.ground_truth, b.ground_truth)
        and np.array_equal(a.counts, b.counts)
    )


def test_11_merging_everything() -> None:
    scores = score(table_of([2, 2, 2, 2], [1, 1, 2, 2]))

    assert (scores["voi_split"], scores["voi_merge"]) == (0.0, 1.0)
    assert (scores["rand_split"], scores["rand_merge"]) == (1.0, 0.5)
    assert scores["adapted_rand_error"] == pytest.approx(1 / 3)


def test_splitting_in_four() -> None:
    scores = score(table_of([1, 2, 3, 4], [7, 7, 7, 7]))

    assert (scores["voi_split"], scores["voi_merge"]) == (2.0, 0.0)
    assert (scores["rand_split"], scores["rand_merge"]) == (0.25, 1.0)


def test_ground_truth_zero_is_ignored_and_segment_zero_is_not() -> None:
    scores = score(table_of([0, 0, 1, 5], [1, 1, 1, 0]))

    assert scores.voxels == 3
    expected = -(2 / 3) * math.log2(2 / 3) - (1 / 3) * math.log2(1 / 3)
    assert scores["voi_split"] == pytest.approx(expected)


@given(LABELS, LABELS)
@settings(max_examples=40, deadline=None)
def test_equals_scikit_image(segments: np.ndarray, truth: np.ndarray) -> None:
    truth = truth + np.uint64(1)
    table = count_block(segments, truth)
    scores = score(table)
    merged, split = variation_of_information(segments.astype(int), truth.astype(int))
    error, _, _ = adapted_rand_error(
        np.tile(truth.astype(int), (60, 1, 1)),
        np.tile(segments.astype(int), (60, 1, 1)),
        ignore_labels=(),
    )

    assert scores["voi_split"] == pytest.approx(split, abs=1e-9)
    assert scores["voi_merge"] == pytest.approx(merged, abs=1e-9)
    # scikit-image leaves out pairs of a voxel with itself: a difference of order 1 / voxels
    assert scores["adapted_rand_error"] == pytest.approx(error, abs=2e-3)


@given(LABELS, LABELS, st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_blocks_give_the_whole_table(segments: np.ndarray, truth: np.ndarray, edge: int) -> None:
    whole = count_block(segments, truth)
    slabs = [
        count_block(segments[i : i + edge], truth[i : i + edge]) for i in range(0, len(truth), edge)
    ]

    assert same(whole, merge_tables(slabs))
    assert same(whole, merge_tables(slabs[::-1]))


@given(LABELS, LABELS)
@settings(max_examples=30, deadline=None)
def test_relabeling_the_table_is_relabeling_the_volume(
    segments: np.ndarray, truth: np.ndarray
) -> None:
    lut = np.array([0, 9, 9, 3, 9], np.uint64)
    table = count_block(segments, truth)

    assert same(count_block(lut[segments], truth), table.relabeled(lut[table.segments]))


def test_majority_joins_fragments_to_their_largest_overlap() -> None:
    table = table_of([1, 1, 1, 2, 2, 3], [5, 5, 6, 5, 5, 6]).majority()

    assert same(table_of([5, 5, 5, 5, 5, 6], [5, 5, 6, 5, 5, 6]), table)


@pytest.mark.parametrize("threads", [1, 3])
def test_count_volumes_takes_the_overlap_only(threads: int) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, (12, 14, 16)).astype(np.uint32)
    segments = rng.integers(0, 9, (8, 9, 10)).astype(np.uint64)
    mask = rng.integers(0, 2, truth.shape).astype(np.uint8)
    roi = NmBox((40, 18, 0), (160, 99, 144))
    ground_truth = GroundTruth(volume(truth), volume(mask), roi, (3, 2**64 - 3))
    counted = count_volumes(volume(segments, (80, 27, 36)), ground_truth, (5, 4, 7), threads)

    keep = (mask != 0) & (truth != 3) & (truth != 0)
    region, inside = np.s_[2:10, 2:13, 0:16], np.s_[4:10, 3:12, 4:14]
    assert counted.label_voxels == np.count_nonzero(keep[region])
    assert counted.scored_voxels == np.count_nonzero(keep[inside])
    assert same(count_block(segments[:6], truth[inside], keep[inside]), counted.table)


def test_hemi_background_is_ignored() -> None:
    background = 2**64 - 3
    labels = np.array([[[1, 2, background, background]]], np.uint64)
    ground_truth = GroundTruth(volume(labels), ignored_ids=(background,))

    assert count_volumes(volume(np.ones_like(labels)), ground_truth).scored_voxels == 2


def test_refuses_what_cannot_be_scored() -> None:
    labels = np.ones((4, 4, 4), np.uint32)
    with pytest.raises(DataError, match="no labelled voxel lies in both"):
        count_volumes(volume(labels, (80, 0, 0)), GroundTruth(volume(labels)))
    with pytest.raises(DataError, match="no label left"):
        count_volumes(volume(labels), GroundTruth(volume(labels * 0)))
    with pytest.raises(DataError, match="equal voxel sizes"):
        count_volumes(Volume(labels, (8, 8, 8), (0, 0, 0), "seg"), GroundTruth(volume(labels)))


@pytest.mark.realdata
def test_fib25_baselines(shared_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import evaluate

    path = shared_dir / "data" / "fib25" / "training_sample2_z000-124.h5"
    sources = [f"ffn={path}:labels_ffn", f"overseg={path}:labels_overseg"]
    evaluate.main(["compare", "--labels", f"{path}:labels_gt", "--segmentation", *sources])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]

    assert rows[0][:5] == ["ffn", "0.847", "0.744", "1.591", "0.210"]
    assert rows[1][:5] == ["overseg", "2.496", "0.306", "2.801", "0.413"]
