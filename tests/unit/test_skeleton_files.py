"""Skeletons as users write them: repeated edges and ids, transposed tables, NaN, damaged files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrace.errors import DataError
from retrace.evaluation.node_segments import run_length
from retrace.evaluation.skeleton_files import read_dump, read_masked, read_skeletons
from retrace.evaluation.skeletons import Skeletons
from retrace.formats.mongo_dump import read_columns, write_documents

POSITIONS = [[0, 0, 0], [0, 0, 10], [0, 0, 30], [0, 0, 60], [0, 50, 0], [0, 50, 20]]
"""Nodes of a skeleton of 60 nm and of one of 20 nm."""
TABLE: dict[str, Any] = {
    "id": [7, 3, 12, 9, 100, 2**63 + 1],
    "position_nm": POSITIONS,
    "skeleton": [1, 1, 1, 1, 2, 2],
    "edges": [[7, 3], [3, 12], [12, 9], [100, 2**63 + 1]],
}


def written(folder: Path, suffix: str, table: dict[str, Any]) -> Path:
    path = folder / f"skeletons.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps(table))
    else:
        np.savez(path, **table)
    return path


def columns(*, dtype: Any = np.uint64, **changed: Any) -> dict[str, Any]:
    """The table as arrays of a type."""
    ids = {name: np.array(TABLE[name], dtype) for name in ("id", "skeleton", "edges")}
    return {**ids, "position_nm": np.array(POSITIONS, float), **changed}


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_the_table_itself(tmp_path: Path, suffix: str) -> None:
    skeletons = read_skeletons(written(tmp_path, suffix, TABLE if suffix == "json" else columns()))

    assert skeletons.edges.tolist() == [[0, 1], [1, 2], [2, 3], [4, 5]]
    runs = run_length(skeletons, np.array([5] * 4 + [6] * 2))
    assert runs.erl_nm == runs.max_erl_nm == pytest.approx((60**2 + 20**2) / 80)


def test_other_byte_orders_and_types(tmp_path: Path) -> None:
    position = np.array(POSITIONS, ">i4")
    table = columns(dtype=">u8", position_nm=position, skeleton=np.array([1, 1, 1, 1, 2, 2], "i1"))
    skeletons = read_skeletons(written(tmp_path, "npz", table))

    assert skeletons.edges.tolist() == [[0, 1], [1, 2], [2, 3], [4, 5]]
    assert skeletons.position_nm.tolist() == POSITIONS


@pytest.mark.parametrize("more", [[[3, 7]], [[7, 3], [7, 3]], [[7, 7], [12, 12]]])
def test_edges_count_once_and_loops_not_at_all(tmp_path: Path, more: list[list[int]]) -> None:
    plain = read_skeletons(written(tmp_path, "json", TABLE))
    table = {**TABLE, "edges": TABLE["edges"] + more}
    skeletons = read_skeletons(written(tmp_path, "json", table))

    segments = np.array([5, 5, 6, 6, 7, 7])
    assert skeletons.edges.tolist() == plain.edges.tolist()
    assert run_length(skeletons, segments) == run_length(plain, segments)


def test_a_cycle_counts_each_of_its_edges(tmp_path: Path) -> None:
    table = {**TABLE, "edges": TABLE["edges"] + [[9, 7]]}
    skeletons = read_skeletons(written(tmp_path, "json", table))

    runs = run_length(skeletons, np.array([5, 5, 5, 6, 7, 7]))
    # Correct: 10 + 20 nm of a cycle of 120 nm, and all 20 nm.
    assert runs.erl_nm == pytest.approx((30**2 + 20**2) / 140)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"id": [7, 3, 12, 9, 100, 100]}, "2 rows have the node id 100"),
        ({"id": [7, 3, 12, 9, 100, 1.2]}, "`id` has 1.2"),
        ({"id": [7, 3, 12, 9, 100, -1]}, "`id` has -1"),
        ({"id": [7, 3, 12, 9, 100, 2.0**60]}, "`id` has 1.15"),
        ({"id": [7, 3, 12, 9, 100, None]}, "`id` has None"),
        ({"id": [[7], [3], [12], [9], [100], [5]]}, r"`id` has shape \(6, 1\)"),
        ({"id": 5}, r"`id` has shape \(\)"),
        ({"edges": [[7, 3], [3, 12.5]]}, "`edges` has 12.5"),
        ({"edges": [[7, 3], [3, 13]]}, "an edge names node 13"),
        ({"edges": [[7, 3, 12], [3, 12, 9]]}, r"`edges` has shape \(2, 3\).*transpose it"),
        ({"edges": [7, 3, 3, 12]}, r"`edges` has shape \(4,\), and \(2, 2\) is needed"),
        ({"edges": [[7, 3], [3]]}, "`edges` has|`edges` holds rows"),
        ({"edges": [[7, 100]]}, "joins two skeletons"),
        ({"skeleton": [1, 1, 1, 1, 2, 0]}, "`skeleton` holds 0"),
        ({"skeleton": [1, 1, 1, 1, 2, -2]}, "`skeleton` has -2"),
        ({"skeleton": [1, 1, 1, 1, 2]}, "one row for each node"),
        ({"position_nm": np.array(POSITIONS).T.tolist()}, r"shape \(3, 6\).*\(6, 3\).*transpose"),
        ({"position_nm": np.ravel(POSITIONS).tolist()}, r"shape \(18,\), and \(6, 3\) is needed"),
        ({"position_nm": [[0, 0]] * 6}, r"shape \(6, 2\), and \(6, 3\) is needed"),
        ({"position_nm": [*POSITIONS[:5], [0, float("nan"), 0]]}, "no finite position"),
        ({"position_nm": [*POSITIONS[:5], [0, float("-inf"), 0]]}, "no finite position"),
        ({"position_nm": [*POSITIONS[:5], [0, 1e30, 0]]}, "no finite position"),
        ({"position_nm": [*POSITIONS[:5], [0, None, 0]]}, "must hold numbers"),
        ({"position_nm": [*POSITIONS[:5], [0, "7", 0]]}, "must hold numbers"),
        ({"position_nm": [*POSITIONS[:5], [0, 7]]}, "must hold numbers"),
        ({"position_nm": [], "id": [], "skeleton": [], "edges": []}, "has no nodes"),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_skeletons(written(tmp_path, "json", {**TABLE, **changed}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"position_nm": np.array(POSITIONS, float).T}, "transpose it"),
        ({"edges": np.array(TABLE["edges"], np.uint64).T}, "transpose it"),
        ({"id": np.array(TABLE["id"], float)}, "`id` has 9.2"),
        ({"id": np.array(["a"] * 6)}, "`id` has 'a'"),
        ({"id": np.arange(6) - 3}, "`id` has -3"),
        ({"position_nm": np.array(POSITIONS, str)}, "must hold numbers"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_skeletons(written(tmp_path, "npz", columns(**changed)))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b"5", b"\xff\xfe", b"<html>log in</html>", b"PK\x03\x04", b'"id"'],
)
@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_foreign_files_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"skeletons.{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read|web page|lacks id"):
        read_skeletons(path)


def test_objects_of_pickle_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "skeletons.npz"
    np.savez(path, **columns(id=np.array([{"a": 1}] * 6, object)))
    with pytest.raises(DataError, match="cannot be read"):
        read_skeletons(path)


@st.composite
def traced(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[list[int]], np.ndarray]:
    """Positions, skeletons, edges with repetitions and loops, and segments of up to 8 nodes."""
    count = draw(st.integers(2, 8))
    skeleton = np.array(draw(st.lists(st.integers(1, 2), min_size=count, max_size=count)))
    at = st.lists(st.integers(0, 9), min_size=3, max_size=3)
    position = np.array(draw(st.lists(at, min_size=count, max_size=count)), float)
    nodes = st.integers(0, count - 1)
    pairs = draw(st.lists(st.tuples(nodes, nodes), min_size=1, max_size=12))
    edges = [[a, b] for a, b in pairs if skeleton[a] == skeleton[b]]
    segments = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    return position, skeleton, edges, np.array(segments, np.uint64)


@settings(max_examples=150, deadline=None)
@given(traced())
def test_run_lengths_equal_those_of_a_graph_library(
    case: tuple[np.ndarray, np.ndarray, list[list[int]], np.ndarray],
) -> None:
    """The definition of funlib.evaluate on graphs of networkx, which hold each edge once."""
    position, skeleton, edges, segments = case
    graph = nx.Graph()
    graph.add_edges_from((a, b) for a, b in edges if a != b)
    length = {
        frozenset(e): float(np.linalg.norm(position[e[0]] - position[e[1]])) for e in graph.edges
    }
    total = sum(length.values())
    owners = {s: set(skeleton[segments == s].tolist()) for s in set(segments.tolist())}
    correct: Counter[tuple[int, int]] = Counter()
    for edge, distance in length.items():
        a, b = edge
        if segments[a] == segments[b] != 0 and len(owners[int(segments[a])]) == 1:
            correct[int(skeleton[a]), int(segments[a])] += distance
    skeletons = Skeletons(position, skeleton, np.array(edges, np.int64).reshape(-1, 2))
    if not total:
        with pytest.raises(DataError, match="no cable"):
            run_length(skeletons, segments)
        return

    erl = run_length(skeletons, segments).erl_nm

    assert erl == pytest.approx(sum(value**2 for value in correct.values()) / total)


def write_dump(folder: Path, nodes: list[dict[str, Any]], edges: list[tuple[Any, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    write_documents(folder / "t.nodes.bson", nodes)
    ends = [{"source": source, "target": target} for source, target in edges]
    write_documents(folder / "t.edges.bson", ends)


def node(number: Any, x: float, **changed: Any) -> dict[str, Any]:
    return {"id": number, "z": 0, "y": 0, "x": x, **changed}


LARGE = 2**53
NODES = [node(LARGE, 0.5), node(LARGE + 1, 10), node(LARGE + 2, 20), node(3.0, 30), node(-5, 40)]


def test_large_ids_of_a_dump_stay_apart_next_to_fractions(tmp_path: Path) -> None:
    edges = [(LARGE + 1, LARGE + 2), (3.0, -5), (-5, 3), (3, 3), (77, 3)]
    write_dump(tmp_path, NODES, edges)
    ids, skeletons = read_dump(tmp_path, "t")

    assert ids.tolist() == [LARGE, LARGE + 1, LARGE + 2, 3, 2**64 - 5]
    assert skeletons.edges.tolist() == [[1, 2], [3, 4]]
    assert len(set(skeletons.skeleton.tolist())) == 3


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([*NODES, node(1.2, 50)], "has the integer 9007199254740993 next to fractions"),
        ([node(1, 0), node(1.2, 50)], r"nodes.bson has 1.2"),
        ([node(1.0, 0), node(2.0**60, 50)], r"nodes.bson has 1.15"),
        ([node(1, 0), node(1, 50)], "2 rows have the node id 1"),
        ([node(1, 0), node(2, float("nan"))], "no finite position"),
        ([node(1, 0), node(2, 5, y=float("inf"))], "no finite position"),
        ([], "has no nodes"),
    ],
)
def test_wrong_dumps_are_refused(tmp_path: Path, nodes: list[dict[str, Any]], message: str) -> None:
    write_dump(tmp_path, nodes, [(1, 2)])
    with pytest.raises(DataError, match=message):
        read_dump(tmp_path, "t")


def test_columns_of_a_dump_are_exact_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bson"
    write_documents(path, [{"id": LARGE + 1, "z": 1.5}, {"id": 2.0, "z": True}])
    assert read_columns(path, ["id"])["id"].tolist() == [LARGE + 1, 2]
    assert read_columns(path, ["z"])["z"].tolist() == [1.5, 1]


@pytest.mark.parametrize(
    ("parts", "kept", "message"),
    [
        ([(1, 0), (2, 0.5)], [1, 1], "`component_id` has 0.5"),
        ([(1, 0), (1, 1)], [1, 1], "2 rows have the node id 1"),
        ([(1, -1), (2, -1)], [1, 1], "keep no node"),
        ([(1, 0), (2, 1)], [1, 1], "joins two skeletons"),
    ],
)
def test_wrong_parts_of_a_dump_are_refused(
    tmp_path: Path, parts: list[tuple[int, float]], kept: list[Any], message: str
) -> None:
    write_dump(tmp_path, [node(1, 0), node(2, 10)], [(1, 2)])
    rows = [{"id": number, "component_id": part} for number, part in parts]
    write_documents(tmp_path / "nodes_t_components_r_masked.bson", rows)
    rows = [{"id": number, "masked": bool(keep)} for number, keep in enumerate(kept, 1)]
    write_documents(tmp_path / "nodes_t_mask_r_masked.bson", rows)
    with pytest.raises(DataError, match=message):
        read_masked(tmp_path, "t", "r")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY"])
def test_what_is_no_npz_is_refused_without_unsafe_advice(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)

    with pytest.raises(DataError, match=r"it is not a complete .npz file\)") as error:
        read_skeletons(tmp_path / "a.npz")
    assert "unsafe" not in str(error.value)
