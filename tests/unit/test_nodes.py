"""Tables of skeleton nodes: their content, and scores equal to those of the volume."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import evaluate
from retrace.errors import ConfigError, DataError
from retrace.evaluation.node_segments import NodeSegments
from retrace.evaluation.nodes import (
    NodeTable,
    node_table,
    read_segments,
    read_table,
    write_node_table,
)
from retrace.evaluation.scores import skeleton_scores
from retrace.evaluation.skeleton_files import read_skeletons
from retrace.evaluation.skeletons import Skeletons
from retrace.segmentation.region_graph import RegionGraph
from retrace.storage.manifest import check_manifest, write_manifest
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import create_volume, write_list
from skeleton_tables import write_skeletons

SIZE = (20, 10, 10)
OFFSET = (40, 0, 0)
EDGES = np.array([[1, 2], [2, 3]], np.uint64)
SCORES = np.array([0.1, 0.5], np.float32)


def fragments() -> np.ndarray:
    """Three fragments of 10 voxels along x."""
    return np.broadcast_to(np.repeat([1, 2, 3], 10), (4, 6, 30)).astype(np.uint64)


def skeletons() -> Skeletons:
    """Skeleton 1 through fragments 1 and 2, skeleton 2 inside fragment 3; 50 nm between nodes."""
    x = [25.0, 75, 125, 175, 225, 275]
    position = np.array([[50.0, 35.0, value] for value in x])
    edges = np.array([[0, 1], [1, 2], [2, 3], [4, 5]])
    return Skeletons(position, np.array([1, 1, 1, 1, 2, 2]), edges)


@pytest.fixture
def table() -> NodeTable:
    volume = Volume(fragments(), SIZE, OFFSET, "f")
    return node_table(volume, skeletons(), RegionGraph(EDGES, SCORES), [0.0, 0.2, 0.6], 0.2)


def test_each_node_has_its_voxel_fragment_and_segments(table: NodeTable) -> None:
    assert table.voxel.tolist() == [[2, 3, x] for x in (2, 7, 12, 17, 22, 27)]
    assert table.fragment.tolist() == [1, 1, 2, 2, 3, 3]
    assert len(set(table.at(0.0).tolist())) == 3
    assert len(set(table.at(0.2).tolist())) == 2
    assert len(set(table.at(0.6).tolist())) == 1
    scores = skeleton_scores(NodeSegments(table.skeletons, table.at(0.2)))
    assert scores["nerl"] == 1
    assert skeleton_scores(NodeSegments(table.skeletons, table.at(0.0)))["nerl"] == pytest.approx(
        (50**2 + 50**2 + 50**2) / (150**2 + 50**2)
    )
    with pytest.raises(DataError, match="no threshold 0.3; it has 0, 0.2, 0.6"):
        table.at(0.3)


@pytest.fixture
def node_tables(tmp_path: Path) -> Path:
    """The tables that the program writes for a store on disk."""
    store = tmp_path / "fragments.zarr"
    place: dict[str, Any] = {"voxel_size_nm": SIZE, "offset_nm": OFFSET}
    data = fragments()
    create_volume(
        store, "fragments", shape=data.shape, chunks=data.shape, dtype=data.dtype, **place
    )[...] = data
    group = zarr.open_group(store, mode="a")
    write_list(group, "edges", EDGES)
    write_list(group, "scores", SCORES)
    write_manifest(store, inputs=[], settings={}, seconds=0)
    write_skeletons(tmp_path / "s.npz", skeletons())
    (tmp_path / "threshold.json").write_text('{"threshold": 0.2}')
    entry = {"volume": "v", "roi_nm": None, "skeletons": {"path": str(tmp_path / "s.npz")}}
    dataset = {"name": "d", "background_ids": [], "volumes": {"v": {}}, "test": [entry]}
    settings = {"dataset": dataset, "thresholds": [0, 0.8, 0.2], "volume": "v"}
    options = {"--settings": json.dumps(settings), "--fragments": store}
    options |= {"--threshold-file": tmp_path / "threshold.json", "--output": tmp_path / "nodes"}
    evaluate.main(["nodes", *(str(part) for pair in options.items() for part in pair)])
    return tmp_path / "nodes"


def rescored(capsys: pytest.CaptureFixture[str], node_tables: Path, *more: str) -> dict[str, Any]:
    output = node_tables.parent / "scores.json"
    evaluate.main(["rescore", str(node_tables / "skeletons.npz"), *more, "--output", str(output)])
    assert "nerl" in capsys.readouterr().out
    return dict(json.loads(output.read_text())["tables"])


def test_a_table_is_scored_without_the_volume(
    node_tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (node_tables.parent / "fragments.zarr" / ".zattrs").unlink()
    at = rescored(capsys, node_tables)["threshold 0.2"]
    merged = rescored(capsys, node_tables, "--threshold", "0.6")["threshold 0.6"]

    assert (at["nerl"], at["node_voi_split"], at["node_voi_merge"]) == (1, 0, 0)
    assert (merged["nerl"], merged["merging_segments"]) == (0, 1)
    assert merged["node_voi_merge"] == pytest.approx(-(2 / 3) * np.log2(2 / 3) + np.log2(3) / 3)
    assert len(read_skeletons(node_tables / "skeletons.npz").skeleton) == 6
    assert set(check_manifest(node_tables)["files"]) == {"skeletons.csv", "skeletons.npz"}


def test_others_score_their_segments_at_the_same_nodes(
    node_tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (node_tables / "skeletons.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["x"] for row in rows] == ["2", "7", "12", "17", "22", "27"]
    assert [row["z_nm"] for row in rows] == ["50"] * 6
    theirs = node_tables.parent / "theirs.csv"
    theirs.write_text(
        "segment,node\n" + "".join(f"{10 + int(r['x']) // 5},{r['node']}\n" for r in rows[::-1])
    )
    store = node_tables.parent / "fragments.zarr"
    scores = rescored(
        capsys, node_tables, "--csv", f"theirs={theirs}", "--segmentation", f"f={store}:fragments"
    )

    assert set(scores) == {"threshold 0.2", "theirs", "f"}
    assert (scores["theirs"]["erl_nm"], scores["theirs"]["segments"]) == (0, 6)
    assert 0 < scores["f"]["nerl"] < 1


def test_segmentations_of_a_part_of_the_nodes_are_marked(
    node_tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def written(name: str, data: np.ndarray, x_nm: int) -> str:
        store = node_tables.parent / f"{name}.zarr"
        place: dict[str, Any] = {"voxel_size_nm": SIZE, "offset_nm": (40, 0, x_nm)}
        shape = {"shape": data.shape, "chunks": data.shape, "dtype": data.dtype}
        create_volume(store, "s", **shape, **place)[...] = data
        return f"{name}=file://{store}:s"

    signed = fragments().astype(np.int32)
    signed[..., :10] = -1
    sources = [written("half", signed[..., :15], 0), written("signed", signed, 0)]
    output = node_tables.parent / "scores.json"
    command = ["rescore", str(node_tables / "skeletons.npz"), "--segmentation"]
    evaluate.main([*command, *sources, "--output", str(output)])
    warning = capsys.readouterr().err
    scores = json.loads(output.read_text())["tables"]

    assert (scores["half"]["nodes_covered"], scores["signed"]["nodes_covered"]) == (3, 6)
    assert warning == ("warning: half covers only 3 of 6 nodes; the others count as segment 0\n")
    # Below 0 is no segment: of 150 nm, the last 50 nm are correct.
    assert scores["signed"]["erl_nm"] == pytest.approx((50**2 + 50**2) / 200)
    with pytest.raises(DataError, match="no node of the skeletons lies inside .*far"):
        evaluate.main([*command, written("far", signed, 4000)])
    with pytest.raises(DataError, match="must be of an integer type"):
        evaluate.main([*command, written("float", signed.astype(np.float32), 0)])
    with pytest.raises(ConfigError, match="'half' occurs twice"):
        evaluate.main([*command, sources[0], sources[0]])


def test_positions_in_the_csv_are_not_rounded(table: NodeTable, tmp_path: Path) -> None:
    far = replace(table.skeletons, position_nm=table.skeletons.position_nm + 1234567.125)
    write_node_table(tmp_path / "far.npz", replace(table, skeletons=far))

    with (tmp_path / "far.csv").open(newline="") as file:
        assert [row["x_nm"] for row in csv.DictReader(file)][:2] == ["1234592.125", "1234642.125"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0,5\n1,1.5\n", "the segment in line 3 is '1.5'"),
        ("0,5\n1,\n", "the segment in line 3 is ''"),
        ("0,5\n1\n", "the segment in line 3 is ''"),
        ("0,5\nx,1\n", "the node in line 3 is 'x'"),
        ("0,5\n0,6\n", "2 rows for 1 nodes"),
        ("0,5\n-1,6\n", "names 2 nodes"),
        (f"0,5\n1,{2**64}\n", f"`segment` has {2**64}"),
    ],
)
def test_wrong_rows_of_a_csv_are_refused(tmp_path: Path, rows: str, message: str) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text("node,segment\n" + rows)
    with pytest.raises(DataError, match=message):
        read_segments(path, 2)
    path.write_bytes(b"node,segment\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="cannot be read"):
        read_segments(path, 2)


def test_segments_of_a_csv_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text(f"node,segment\n1,{2**64 - 1}\n0, -1\n2,{2**53 + 1}\n", encoding="utf-8-sig")

    assert read_segments(path, 3).tolist() == [0, 2**64 - 1, 2**53 + 1]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("fragment", lambda a: a[:3], r"`fragment` has shape \(3,\), and \(6,\) is needed"),
        ("fragment", lambda a: a + 100, "must hold each value of `fragment` once"),
        ("fragment", lambda a: a + 0.5, "`fragment` has 1.5"),
        ("fragments", lambda a: a[::-1], "in ascending order"),
        ("segments", lambda a: a.T, r"`segments` has shape \(3, 4\), and \(4, 3\).*transpose"),
        ("segments", lambda a: a.astype(np.int64) - 9, "`segments` has -"),
        ("threshold", lambda a: np.array("a"), "could not convert"),
        ("thresholds", lambda a: a[:1], r"`segments` has shape"),
        ("voxel_size_nm", lambda a: a * 0, "is no voxel size"),
        ("position_nm", lambda a: a * np.nan, "no finite position"),
    ],
)
def test_node_tables_that_do_not_fit_are_refused(
    node_tables: Path, name: str, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    arrays = dict(np.load(node_tables / "skeletons.npz"))
    path = node_tables.parent / "changed.npz"
    np.savez(path, **{**arrays, name: change(arrays[name])})
    with pytest.raises(DataError, match=message):
        evaluate.main(["rescore", str(path)])


def test_options_of_rescore_that_contradict_are_refused(node_tables: Path) -> None:
    command = ["rescore", str(node_tables / "skeletons.npz")]
    with pytest.raises(ConfigError, match="'a' is a segmentation and a csv"):
        evaluate.main([*command, "--csv", "a=x.csv", "--segmentation", "a=x.h5:s"])
    with pytest.raises(ConfigError, match="--merge-threshold 0 is below 1"):
        evaluate.main([*command, "--merge-threshold", "0"])


def test_wrong_tables_are_refused(node_tables: Path) -> None:
    theirs = node_tables.parent / "theirs.csv"
    theirs.write_text("node,segment\n0,5\n")
    with pytest.raises(DataError, match="names 1 nodes; the table has 6"):
        read_segments(theirs, 6)
    theirs.write_text("node,id\n0,5\n")
    with pytest.raises(DataError, match="has no column segment"):
        read_segments(theirs, 6)
    with pytest.raises(DataError, match=r"s\.npz lacks voxel.*holds skeletons alone"):
        read_table(node_tables.parent / "s.npz")
