"""Agglomeration: scores of known graphs, agreement with waterz's own segmentations, LUTs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import waterz
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from retrace.errors import ConfigError
from retrace.evaluation.curve import RegionGraph
from retrace.segmentation import agglomerate
from retrace.segmentation.agglomerate import (
    MERGE_FUNCTIONS,
    connection_scores,
    epsilon_agglomerate,
    region_graph,
)
from retrace.segmentation.fragments import renumber, watershed_fragments
from retrace.segmentation.lut import segment_lut, threshold_list


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


@pytest.mark.parametrize("name", ["hist_quant_75", "hist_quant_50", "hist_quant_75_initmax"])
@pytest.mark.parametrize("step", [64, 90, 110])
def test_segments_are_waterz_own_at_every_threshold(name: str, step: int) -> None:
    # At the edge of a bin, where waterz's binned queue is in order of score.
    affinities, fragments = _noise()
    edges, scores = region_graph(affinities, fragments, name)
    ours = RegionGraph(edges, scores).segments(fragments, step / 256 - 1e-6)
    with agglomerate._silent():
        (theirs,) = waterz.agglomerate(
            agglomerate._as_float(affinities),
            [step / 256],
            fragments=fragments.copy(),
            scoring_function=MERGE_FUNCTIONS[name],
            discretize_queue=256,
        )
    assert 1 < len(np.unique(ours)) < len(np.unique(fragments))
    np.testing.assert_array_equal(renumber(ours), renumber(theirs))


def test_waterz_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    affinities, fragments = _noise()
    region_graph(affinities, fragments, "mean")
    epsilon_agglomerate(affinities, fragments, 0.3)
    print("after")
    assert capfd.readouterr().out == "after\n"


def test_inputs_stay_as_they_are() -> None:
    affinities, fragments = _noise()
    copies = affinities.copy(), fragments.copy()
    region_graph(affinities, fragments, "hist_quant_75")
    assert len(np.unique(epsilon_agglomerate(affinities, fragments, 0.6))) < fragments.max()
    np.testing.assert_array_equal(affinities, copies[0])
    np.testing.assert_array_equal(fragments, copies[1])


def test_every_merge_function_comes_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: Any) -> None:
        raise AssertionError("waterz would compile at run time, which an image cannot")

    monkeypatch.setattr(waterz._agglomerate, "_jit_compile", no_compiler)
    for name in MERGE_FUNCTIONS:
        assert len(region_graph(*_row(), name)[0]) == 2


def test_unknown_merge_function_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'hist_quant_75"):
        region_graph(*_row(), "hist_quant75")


def _naive_scores(history: list[dict[str, Any]], edges: np.ndarray) -> list[float]:
    """Replays the whole history for every edge."""
    result = []
    for u, v in edges:
        group = {int(u): int(u), int(v): int(v)}
        score = float("nan")
        for merge in history:
            group = {
                k: merge["c"] if g in (merge["a"], merge["b"]) else g for k, g in group.items()
            }
            if group[int(u)] == group[int(v)]:
                score = merge["score"]
                break
        result.append(score)
    return result


@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_connection_scores_replay_the_history(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    roots = list(range(1, count + 1))
    history = []
    for score in np.sort(rng.random(rng.integers(0, count))):
        a, b = rng.choice(roots, 2, replace=False)
        history.append({"a": int(a), "b": int(b), "c": int(a), "score": float(score)})
        roots.remove(b)
    edges = rng.integers(1, count + 1, (40, 2)).astype(np.uint64)
    edges = edges[edges[:, 0] != edges[:, 1]]
    expected = np.array(_naive_scores(history, edges), dtype=np.float32)
    np.testing.assert_array_equal(connection_scores(history, edges, count), expected)


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
