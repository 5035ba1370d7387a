"""Agglomeration: scores of known graphs, agreement with waterz's own segmentations, LUTs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import waterz
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from retrace.errors import ConfigError
from retrace.segmentation.agglomerate import (
    MERGE_FUNCTIONS,
    connection_scores,
    epsilon_agglomerate,
    region_graph,
)
from retrace.segmentation.contacts import find_contacts
from retrace.segmentation.fragments import highest_value, renumber, watershed_fragments
from retrace.segmentation.lut import segment_lut, threshold_list
from retrace.segmentation.merging import Merges, merge_regions
from retrace.segmentation.region_graph import RegionGraph


def _row() -> tuple[np.ndarray, np.ndarray]:
    """Four fragments along x: 1 and 2 joined by 0.9, 2 and 3 by 0.4, 4 behind background."""
    fragments = np.zeros((4, 5, 40), dtype=np.uint64)
    for index, begin in enumerate((0, 10, 20, 31)):
        fragments[..., begin : begin + (10 if index < 3 else 9)] = index + 1
    fragments[..., 30] = 0
    affinities = np.ones((3, *fragments.shape), dtype=np.float32)
    affinities[2, :, :, 10] = 0.9
    affinities[2, :, :, 20] = 0.4
    return affinities, fragments


def _noise(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((3, 16, 48, 48)), (0, 1, 2, 2))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    affinities = (smooth * 255).astype(np.uint8)
    return affinities, renumber(watershed_fragments(affinities, in_xy=True))


def test_scores_are_one_minus_the_boundary_affinity() -> None:
    edges, scores = region_graph(*_row(), "mean")
    assert edges.tolist() == [[1, 2], [2, 3]]
    np.testing.assert_allclose(scores, [0.1, 0.6], atol=1e-6)
    _, quantile = region_graph(*_row(), "hist_quant_75")
    np.testing.assert_allclose(quantile, [0.1, 0.6], atol=1 / 256)


def test_the_quantile_counts_not_the_mean() -> None:
    affinities, fragments = _row()
    affinities[2, :2, :, 10] = 0.1  # half of the boundary is a membrane
    _, mean = region_graph(affinities, fragments, "mean")
    _, upper = region_graph(affinities, fragments, "hist_quant_75")
    _, lower = region_graph(affinities, fragments, "hist_quant_25")
    np.testing.assert_allclose(mean[0], 0.5, atol=1e-6)
    np.testing.assert_allclose([upper[0], lower[0]], [0.1, 0.9], atol=1 / 256)


def test_edges_that_never_join_have_no_score() -> None:
    affinities, fragments = _row()
    affinities[2, :, :, 20] = 0.0
    edges, scores = region_graph(affinities, fragments, "mean")
    assert np.isnan(scores).tolist() == [False, True]
    assert np.unique(RegionGraph(edges, scores).segments(fragments, 1.0)).tolist() == [0, 1, 3, 4]


def test_background_takes_no_part() -> None:
    affinities, fragments = _row()
    edges, scores = region_graph(affinities, np.zeros_like(fragments), "mean")
    assert edges.shape == (0, 2)
    assert scores.shape == (0,)
    np.testing.assert_array_equal(RegionGraph(edges, scores).segments(fragments, 0.5), fragments)


def _waterz(
    affinities: np.ndarray, fragments: np.ndarray, name: str, thresholds: list[float]
) -> list[Any]:
    """The steps of waterz: segmentation, merges and edges at each threshold."""
    scale = 255 if affinities.dtype == np.uint8 else 1
    steps = waterz.agglomerate(
        (affinities[:3].astype(np.float32) / np.float32(scale)).astype(np.float32),
        thresholds,
        fragments=fragments.astype(np.uint64),
        scoring_function=_waterz_type(name),
        discretize_queue=256,
        return_merge_history=True,
        return_region_graph=True,
    )
    return [(np.array(segments), *rest) for segments, *rest in steps]


def _waterz_type(name: str) -> str:
    """The C++ type of a merge function, in its wheel's spelling."""
    if name == "mean":
        return "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>"
    quantile, start = name.split("_")[2], str(name.endswith("initmax")).lower()
    affinity = f"HistogramQuantileAffinity<RegionGraphType, {quantile}, ScoreValue, 256, {start}>"
    return f"OneMinus<{affinity}>"


def _blocky(seed: int, values: int) -> tuple[np.ndarray, np.ndarray]:
    """Fragments of few voxels with many neighbours, and affinities of few values, many equal."""
    rng = np.random.default_rng(seed)
    fragments = rng.integers(0, 40, (3, 6, 6)).repeat(2, 0).repeat(3, 1).repeat(2, 2)
    affinities = rng.integers(0, values, (3, *fragments.shape)) * (255 // (values - 1))
    return affinities.astype(np.uint8), fragments


def _cases() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    affinities, fragments = _noise()
    yield affinities, fragments
    yield (affinities / 255).astype(np.float32), fragments
    masked = fragments.copy()
    masked[:, 10:20] = 0
    yield affinities, masked
    for seed, values in ((0, 2), (1, 4), (2, 256)):
        yield _blocky(seed, values)


@pytest.mark.parametrize("name", MERGE_FUNCTIONS)
def test_edges_and_merges_are_those_of_waterz(name: str) -> None:
    for affinities, fragments in _cases():
        (_, _, contacts), (_, history, _) = _waterz(affinities, fragments, name, [-1.0, 1.0])
        found = find_contacts(affinities, fragments, highest_value(affinities))
        quantile, highest_only = MERGE_FUNCTIONS[name]
        merges = merge_regions(found, 1.0, quantile=quantile, highest_only=highest_only)
        assert sorted((c["u"], c["v"]) for c in contacts) == list(map(tuple, found.edges.tolist()))
        assert [[m["a"], m["b"]] for m in history] == merges.pairs.tolist()
        expected = np.array([m["score"] for m in history], np.float32)
        np.testing.assert_array_equal(merges.scores, expected)
        assert len(history) > 20


@pytest.mark.parametrize("name", ["hist_quant_75", "hist_quant_75_initmax"])
@pytest.mark.parametrize("step", [64, 110])
def test_segments_are_waterz_own_at_every_threshold(name: str, step: int) -> None:
    # At the edge of a bin, where waterz's binned queue is in order of score.
    affinities, fragments = _noise()
    edges, scores = region_graph(affinities, fragments, name)
    ours = RegionGraph(edges, scores).segments(fragments, step / 256 - 1e-6)
    ((theirs, *_),) = _waterz(affinities, fragments, name, [step / 256])
    assert 1 < len(np.unique(ours)) < len(np.unique(fragments))
    np.testing.assert_array_equal(renumber(ours), renumber(theirs))


def test_first_agglomeration_is_that_of_waterz() -> None:
    for affinities, fragments in _cases():
        ((theirs, *_),) = _waterz(affinities, fragments, "hist_quant_25", [0.45])
        ours = epsilon_agglomerate(affinities, fragments, 0.45)
        np.testing.assert_array_equal(ours, theirs)


def test_inputs_stay_as_they_are() -> None:
    affinities, fragments = _noise()
    copies = affinities.copy(), fragments.copy()
    region_graph(affinities, fragments, "hist_quant_75")
    assert len(np.unique(epsilon_agglomerate(affinities, fragments, 0.6))) < fragments.max()
    np.testing.assert_array_equal(affinities, copies[0])
    np.testing.assert_array_equal(fragments, copies[1])


def test_unknown_merge_function_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'hist_quant_75"):
        region_graph(*_row(), "hist_quant75")


def _naive_scores(merges: Merges, edges: np.ndarray) -> list[float]:
    """Replays all merges for every edge."""
    result = []
    for u, v in edges:
        group = {int(u): int(u), int(v): int(v)}
        score = float("nan")
        for (kept, lost), found in zip(merges.pairs.tolist(), merges.scores, strict=True):
            group = {k: kept if g == lost else g for k, g in group.items()}
            if group[int(u)] == group[int(v)]:
                score = found
                break
        result.append(score)
    return result


@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_connection_scores_replay_the_merges(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    roots = list(range(1, count + 1))
    pairs = np.zeros((rng.integers(0, count), 2), np.int64)
    for pair in pairs:
        pair[:] = rng.choice(roots, 2, replace=False)
        roots.remove(pair[1])
    merges = Merges(pairs, np.sort(rng.random(len(pairs), dtype=np.float32)))
    edges = rng.integers(1, count + 1, (40, 2)).astype(np.uint64)
    edges = edges[edges[:, 0] != edges[:, 1]]
    expected = np.array(_naive_scores(merges, edges), dtype=np.float32)
    np.testing.assert_array_equal(connection_scores(merges, edges, count), expected)


def test_an_edge_joins_at_the_threshold_equal_to_its_score() -> None:
    edges = np.array([[3, 9], [9, 1 << 60], [4, 5]], dtype=np.uint64)
    scores = np.array([0.3, 0.58, np.nan], dtype=np.float32)
    nodes = np.array([1 << 60, 9, 3, 4, 5, 77], dtype=np.uint64)
    at = {t: segment_lut(edges, scores, t, nodes).tolist() for t in (0.28, 0.3, 0.56, 0.58, 1.0)}
    assert at[0.28] == nodes.tolist()
    assert at[0.3] == at[0.56] == [1 << 60, 3, 3, 4, 5, 77]
    assert at[0.58] == at[1.0] == [3, 3, 3, 4, 5, 77]


def test_12_thresholds_are_exact_to_two_digits() -> None:
    values = threshold_list(0, 1, 0.02)
    assert len(values) == 50
    assert values[29] == 0.58
    assert values[-1] == 0.98
    fine = threshold_list(0, 1, 0.01)
    assert len({round(100 * t) for t in fine}) == len(fine) == 100
    with pytest.raises(ConfigError, match="step"):
        threshold_list(0, 1, 0)
