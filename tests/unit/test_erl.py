"""Expected run length on skeletons small enough to count by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from retrace.errors import DataError
from retrace.evaluation.node_segments import NodeSegments, run_length, sample_nodes
from retrace.evaluation.scores import skeleton_scores
from retrace.evaluation.skeleton_files import read_skeletons
from retrace.evaluation.skeletons import Skeletons
from retrace.geometry import NmBox
from retrace.storage.volumes import Volume
from skeleton_tables import write_skeletons


def line(y_nm: float, nodes: int) -> np.ndarray:
    """Nodes 10 nm apart along x."""
    return np.array([[0.0, y_nm, 10.0 * index] for index in range(nodes)])


@pytest.fixture
def pair() -> Skeletons:
    """Skeleton 1 of 5 nodes (40 nm) and skeleton 2 of 3 nodes (20 nm)."""
    edges = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [5, 6], [6, 7]])
    return Skeletons(np.concatenate([line(0, 5), line(50, 3)]), np.array([1] * 5 + [2] * 3), edges)


def test_perfect(pair: Skeletons) -> None:
    runs = run_length(pair, np.array([4] * 5 + [9] * 3))

    assert runs.erl_nm == pytest.approx((40**2 + 20**2) / 60)
    assert (runs.nerl, runs.merging_segments) == (1.0, 0)


def test_11_one_split(pair: Skeletons) -> None:
    """Between nodes 2 and 3: runs of 20 and 10 nm remain of 40 nm."""
    runs = run_length(pair, np.array([4, 4, 4, 5, 5, 9, 9, 9]))

    assert runs.erl_nm == pytest.approx((20**2 + 10**2 + 20**2) / 60)
    assert runs.nerl == pytest.approx(900 / 2000)


def test_11_one_merge(pair: Skeletons) -> None:
    """Segment 5 runs through both: its edges count in neither."""
    runs = run_length(pair, np.array([4, 4, 4, 5, 5, 5, 5, 5]))

    assert runs.erl_nm == pytest.approx(20**2 / 60)
    assert runs.merging_segments == 1


def test_merge_threshold_forgives_a_touch(pair: Skeletons) -> None:
    """Segment 4 touches skeleton 2 with one node only."""
    segments = np.array([4] * 5 + [4, 9, 9])

    assert run_length(pair, segments, 1).erl_nm == pytest.approx(10**2 / 60)
    assert run_length(pair, segments, 2).erl_nm == pytest.approx((40**2 + 10**2) / 60)


def test_segment_zero_is_never_correct(pair: Skeletons) -> None:
    assert run_length(pair, np.array([0] * 5 + [9] * 3)).erl_nm == pytest.approx(20**2 / 60)


def test_cropping_makes_parts(pair: Skeletons) -> None:
    """Without node 2 the first skeleton falls into two parts of 10 nm."""
    bent = Skeletons(pair.position_nm.copy(), pair.skeleton, pair.edges)
    bent.position_nm[2, 1] = 200
    inside = bent.within(NmBox((0, 0, 0), (1, 100, 100)))

    assert len(inside.skeleton) == 7
    assert len(set(inside.skeleton.tolist())) == 3
    perfect = run_length(inside, inside.skeleton)
    assert perfect.erl_nm == pytest.approx((10**2 + 10**2 + 20**2) / 40)


def test_no_cable_is_refused(pair: Skeletons) -> None:
    with pytest.raises(DataError, match="no cable"):
        run_length(pair.within(NmBox((0, 0, 0), (1, 1, 1))), np.array([1]))


@pytest.mark.parametrize("suffix", ["npz", "json"])
def test_tables_round_trip(pair: Skeletons, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"skeletons.{suffix}"
    if suffix == "npz":
        write_skeletons(path, pair)
    else:
        ids = [70, 3, 12, 9, 8, 100, 101, 5]
        content = {
            "id": ids,
            "position_nm": pair.position_nm.tolist(),
            "skeleton": pair.skeleton.tolist(),
            "edges": [[ids[a], ids[b]] for a, b in pair.edges.tolist()],
        }
        path.write_text(json.dumps(content))
    loaded = read_skeletons(path)

    np.testing.assert_array_equal(pair.edges, loaded.edges)
    np.testing.assert_array_equal(pair.position_nm, loaded.position_nm)


def test_broken_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    good = {"id": [1, 2], "position_nm": [[0, 0, 0], [0, 0, 1]], "skeleton": [1, 1]}
    for broken, message in [
        (good, "lacks edges"),
        ({**good, "edges": [[1, 3]]}, "not in `id`"),
        ({**good, "edges": [[1, 2]], "skeleton": [1, 2]}, "joins two skeletons"),
        ({**good, "edges": [], "skeleton": [1]}, "one row for each node"),
    ]:
        path.write_text(json.dumps(broken))
        with pytest.raises(DataError, match=message):
            read_skeletons(path)


@pytest.mark.parametrize("tile", [2, 256])
def test_nodes_are_sampled_at_their_voxel(tile: int) -> None:
    data = np.arange(4 * 5 * 6, dtype=np.uint64).reshape(4, 5, 6) + np.uint64(1)
    segmentation = Volume(data, (20, 9, 9), (40, 18, 27), "segments")
    position = np.array([[40, 18, 27], [59.9, 26.9, 35.9], [119, 62, 80], [39, 18, 27]])
    skeletons = Skeletons(position, np.ones(4, np.int64), np.zeros((0, 2), np.int64))

    expected = [data[0, 0, 0], data[0, 0, 0], data[3, 4, 5], 0]
    np.testing.assert_array_equal(expected, sample_nodes(segmentation, skeletons, tile))


def test_node_voi_counts_splits(pair: Skeletons) -> None:
    scores = skeleton_scores(NodeSegments(pair, np.array([4, 4, 4, 4, 9, 5, 5, 5])))

    assert scores["node_voi_merge"] == 0
    assert scores["node_voi_split"] > 0
    assert scores["nodes"] == 8
