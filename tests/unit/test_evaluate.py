"""evaluate.py through its command line on small stores."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evaluate
from retrace.errors import ConfigError, DataError, StateError
from retrace.evaluation.comparison_rows import other_row
from retrace.evaluation.skeletons import Skeletons
from retrace.evaluation.threshold_rules import DESCRIPTIONS, RULES
from retrace.evaluation.voxelwise import open_predictions
from retrace.formats.mongo_dump import write_documents
from retrace.formats.source import Source
from retrace.planning.scored_dataset import ScoredDataset
from retrace.segmentation.region_graph import RegionGraph
from retrace.storage.manifest import write_manifest
from retrace.storage.zarr_writer import create_volume
from skeleton_tables import write_skeletons

SHAPE = (8, 12, 12)
VOXEL = (20, 9, 9)
OFFSET = (40, 0, 18)
EDGES = np.array([[1, 2], [3, 4], [2, 3]], np.uint64)
SCORES = np.array([0.1, 0.3, 0.7], np.float32)


def truth_and_fragments() -> tuple[np.ndarray, np.ndarray]:
    """Two neurons along x, each cut into two fragments along z: 1, 2 and 3, 4."""
    labels = np.ones(SHAPE, np.uint64)
    labels[..., 6:] = 2
    fragments = np.ones(SHAPE, np.uint64)
    fragments[4:] = 2
    fragments[..., 6:] += 2
    return labels, fragments


def write_store(path: Path, arrays: dict[str, np.ndarray], offset_nm: tuple[int, int, int]) -> Path:
    import zarr

    for name, data in arrays.items():
        if data.ndim == 3:
            place = {"voxel_size_nm": VOXEL, "offset_nm": offset_nm}
            created = create_volume(
                path, name, shape=data.shape, chunks=(4, 8, 8), dtype=data.dtype, **place
            )
            created[:] = data
        else:
            zarr.open_group(path, mode="a", zarr_format=2).create_array(name, data=data)
    write_manifest(path, inputs=[], settings={}, seconds=0)
    return path


class Case:
    """A dataset of one volume for validation and one for testing, with finished stores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        labels, fragments = truth_and_fragments()
        raw = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
        arrays = {"raw": raw, "labels": labels}
        sources = {}
        for name in ("val", "test"):
            store = write_store(folder / f"{name}.zarr", arrays, OFFSET)
            sources[name] = {key: {"path": str(store), "array": key} for key in arrays}
        graph = {"edges": EDGES, "scores": SCORES}
        self.fragments = write_store(
            folder / "fragments.zarr", {"fragments": fragments, **graph}, OFFSET
        )
        self.segmentation = self.write_segments(0.3)
        self.settings: dict[str, Any] = {
            "dataset": {
                "name": "tiny",
                "voxel_size_nm": list(VOXEL),
                "background_ids": [],
                "volumes": sources,
                "validation": [{"volume": "val", "roi_nm": None}],
                "test": [{"volume": "test", "roi_nm": None}],
            },
            "thresholds": [0, 1, 0.1],
        }

    def move_labels(self, offset_nm: tuple[int, int, int]) -> None:
        """Labels of the test volume from a file that states another position."""
        name = f"labels_{offset_nm[0]}.zarr"
        store = write_store(self.folder / name, {"labels": truth_and_fragments()[0]}, offset_nm)
        labels = self.settings["dataset"]["volumes"]["test"]["labels"]
        labels.update({"path": str(store), "array": "labels"})

    def write_segments(self, threshold: float) -> Path:
        segments = RegionGraph(EDGES, SCORES).segments(truth_and_fragments()[1], threshold)
        path = self.folder / f"segmentation_{threshold}.zarr"
        return write_store(path, {"segments": segments}, OFFSET)

    def choose(self, *more: str) -> dict[str, Any]:
        output = self.folder / "threshold.json"
        stores = ["--fragments", f"val={self.fragments}", "--output", str(output)]
        evaluate.main(["choose", "--settings", json.dumps(self.settings), *stores, *more])
        result: dict[str, Any] = json.loads(output.read_text())
        return result

    def score(self, *more: str, segmentation: Path | None = None) -> dict[str, Any]:
        output = self.folder / "evaluation.json"
        stores = ["--fragments", f"val={self.fragments}", f"test={self.fragments}"]
        stores += ["--segmentation", f"test={segmentation or self.segmentation}"]
        files = ["--threshold-file", str(self.folder / "threshold.json"), "--output", str(output)]
        files += ["--plot", str(self.folder / "evaluation.png")]
        settings = json.dumps(self.settings)
        evaluate.main(["score", "--settings", settings, *stores, *files, *more])
        result: dict[str, Any] = json.loads(output.read_text())
        return result


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_chooses_the_lowest_perfect_threshold(case: Case) -> None:
    chosen = case.choose()

    assert chosen["threshold"] == 0.3
    assert [row["voi_split"] for row in chosen["table"]] == [1, 0.5, 0.5] + [0] * 7
    assert [row["voi_merge"] for row in chosen["table"]] == [0] * 7 + [1] * 3
    assert "log2" in chosen["convention"]


def test_score_writes_all_results(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.choose()
    result = case.score()["volumes"]["test"]

    assert (result["voi_split"], result["voi_merge"], result["adapted_rand_error"]) == (0, 0, 0)
    assert result["threshold"] == 0.3
    assert result["fragments"]["voi_split"] == 1
    assert result["best_possible"]["voi_sum"] == 0
    assert result["one_segment"]["voi_merge"] == 1
    assert len(result["curve"]) == 10
    assert "not used" in result["curve_note"]
    assert result["untrained_watershed"]["voi_sum"] > 0
    assert result["scored_voxels"] == result["label_voxels"] == np.prod(SHAPE)
    assert (case.folder / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert "untrained_watershed" in capsys.readouterr().out


def test_another_rule_may_choose_another_threshold_and_is_named(case: Case) -> None:
    """Perfect are two thresholds or more: the middle of five of the lowest mean is another."""
    by_rule = case.choose()["threshold_by_rule"]
    assert set(by_rule) == set(RULES)
    case.settings["threshold_rule"] = "smoothed"
    chosen = case.choose()
    assert chosen["threshold"] == by_rule["smoothed"] != by_rule["least_voi"]
    assert chosen["threshold_by_rule"] == by_rule
    assert chosen["rule"].startswith(DESCRIPTIONS["smoothed"])


def test_validation_entries_are_weighted_by_voxels(case: Case) -> None:
    """One region of both neurons, and one of a quarter, which contains only fragment 1."""
    regions = [
        {"volume": "val", "roi_nm": {"offset": [40, 0, 18], "shape": [160, 108, 108]}},
        {"volume": "val", "roi_nm": {"offset": [40, 0, 18], "shape": [80, 108, 54]}},
    ]
    case.settings["dataset"]["validation"] = regions
    chosen = case.choose()

    assert chosen["table"][0]["voi_split"] == pytest.approx(1 * 4 / 5)
    assert [item["scored_voxels"] for item in chosen["chosen_on"]] == [1152, 288]


def test_masks_and_a_smaller_prediction_show_in_the_counts(case: Case) -> None:
    case.choose()
    mask = np.ones(SHAPE, np.uint8)
    mask[:2] = 0
    store = write_store(case.folder / "mask.zarr", {"labels_mask": mask}, OFFSET)
    result = case.score("--masks", f"test={store}")["volumes"]["test"]

    assert result["scored_voxels"] == result["label_voxels"] == 6 * 144
    case.move_labels((0, 0, 18))
    result = case.score()["volumes"]["test"]
    assert (result["scored_voxels"], result["label_voxels"]) == (6 * 144, 8 * 144)


def test_skeletons_are_scored(case: Case) -> None:
    case.choose()
    position = np.array([[50.0 + 20 * z, 30, x] for x in (30, 100) for z in range(8)])
    edges = np.array([[i, i + 1] for i in range(15) if i != 7])
    write_skeletons(case.folder / "skeletons.npz", Skeletons(position, np.repeat([1, 2], 8), edges))
    source = {"path": str(case.folder / "skeletons.npz")}
    case.settings["dataset"]["test"] = [{"volume": "test", "roi_nm": None, "skeletons": source}]
    case.settings["compute_mincut"] = True
    result = case.score()
    runs = result["volumes"]["test"]["skeletons"]

    assert result["volumes"]["test"]["counted"] == "voxels"
    assert runs["min_cut"] == {
        "splits_needed": 0,
        "merges_needed": 0,
        "unsplittable_fragments": 0,
    }
    assert runs["components"] == runs["segments"] == 2
    assert runs["erl_nm"] == runs["max_erl_nm"] == pytest.approx(140)
    assert runs["nerl"] == 1
    assert runs["curve"][0]["erl_nm"] == pytest.approx((60**2 + 60**2) / 140)
    assert runs["curve"][9]["erl_nm"] == 0


def test_no_threshold_is_chosen_where_nothing_is_labelled(case: Case) -> None:
    case.settings["dataset"]["background_ids"] = [1, 2]
    with pytest.raises(DataError, match="has no label left in .*correct `background_ids`"):
        case.choose()
    assert not (case.folder / "threshold.json").exists()


def test_nothing_is_scored_where_no_voxel_is_labelled_and_segmented(case: Case) -> None:
    case.choose()
    with pytest.raises(DataError, match="no labelled voxel lies in both; correct `offset_nm`"):
        case.move_labels((4000, 0, 18))
        case.score()
    case.move_labels(OFFSET)
    mask = write_store(case.folder / "m.zarr", {"labels_mask": np.zeros(SHAPE, np.uint8)}, OFFSET)
    with pytest.raises(DataError, match="all 0 or below 0, background or masked"):
        case.score("--masks", f"test={mask}")
    assert not (case.folder / "evaluation.json").exists()


def test_no_skeleton_is_scored_without_a_node_inside(case: Case) -> None:
    case.choose()
    outside = Skeletons(np.full((2, 3), 9000.0), np.array([1, 1]), np.array([[0, 1]]))
    write_skeletons(case.folder / "skeletons.npz", outside)
    entry = {"volume": "test", "roi_nm": None}
    entry["skeletons"] = {"path": str(case.folder / "skeletons.npz")}
    case.settings["dataset"]["test"] = [entry]
    with pytest.raises(DataError, match="no node of the skeletons lies inside"):
        case.score()


@pytest.mark.parametrize("array", ["boundary", "classes"])
def test_voxelwise_scores_need_voxels_in_common(case: Case, array: str) -> None:
    shape = (2, *SHAPE)
    created = create_volume(
        case.folder / "prediction.zarr",
        array,
        shape=shape,
        chunks=shape,
        dtype=np.uint8,
        voxel_size_nm=VOXEL,
        offset_nm=(40, 0, 9018),
    )
    created[...] = 128
    write_manifest(case.folder / "prediction.zarr", inputs=[], settings={}, seconds=0)
    dataset = ScoredDataset.model_validate(case.settings["dataset"])
    with pytest.raises(DataError, match="have no voxel of test in common"):
        open_predictions(dataset, "test", array, {"test": case.folder / "prediction.zarr"}, {})


def write_phantom_dump(folder: Path) -> dict[str, Any]:
    """Two traced neurons as a dump; the first section of either is not neuropil."""
    rows = [(z, x) for x in (30, 100) for z in range(8)]
    nodes = [{"id": 5 * i, "z": 50 + 20 * z, "y": 30, "x": x} for i, (z, x) in enumerate(rows)]
    edges = [{"source": 5 * i, "target": 5 * i + 5} for i in range(15) if i != 7]
    parts = [{"id": 5 * i, "component_id": i // 8} for i in range(16)]
    mask = [{"id": 5 * i, "masked": i % 8 != 0} for i in range(16)]
    write_documents(folder / "t.nodes.bson", nodes)
    write_documents(folder / "t.edges.bson", edges)
    write_documents(folder / "nodes_t_components_r_masked.bson", parts)
    write_documents(folder / "nodes_t_mask_r_masked.bson", mask)
    return {"path": str(folder), "name": "t", "region": "r"}


def test_without_labels_the_nodes_of_skeletons_are_scored(case: Case) -> None:
    source = write_phantom_dump(case.folder / "dump")
    dataset = case.settings["dataset"]
    for split, volume in (("validation", "val"), ("test", "test")):
        del dataset["volumes"][volume]["labels"]
        dataset[split] = [{"volume": volume, "roi_nm": None, "skeletons": source}]

    assert case.choose()["threshold"] == 0.3
    result = case.score()["volumes"]["test"]
    assert result["counted"] == "skeleton nodes"
    assert (result["voi_sum"], result["scored_voxels"]) == (0, 14)
    assert result["curve"][9]["voi_merge"] == 1
    assert "no labels" in result["untrained_watershed"]["note"]
    masked, whole = result["skeletons_masked"], result["skeletons"]
    assert (masked["nodes"], whole["nodes"]) == (14, 16)
    assert masked["max_erl_nm"] == pytest.approx(120)
    assert whole["max_erl_nm"] == pytest.approx(140)


def test_a_dump_that_does_not_fit_is_refused(case: Case) -> None:
    source = write_phantom_dump(case.folder / "dump")
    folder = Path(source["path"])
    del case.settings["dataset"]["volumes"]["val"]["labels"]
    entry = {"volume": "val", "roi_nm": None, "skeletons": source}
    case.settings["dataset"]["validation"] = [entry]
    source["region"] = "elsewhere"
    with pytest.raises(
        DataError, match=r"nodes_t_components_elsewhere_masked\.bson does not exist"
    ):
        case.choose()
    source["region"] = "r"
    write_documents(folder / "nodes_t_mask_r_masked.bson", [{"id": 5, "masked": False}])
    with pytest.raises(DataError, match="keep no node of t"):
        case.choose()
    (folder / "t.nodes.bson").write_text("<html>no such key</html>")
    with pytest.raises(DataError, match=r"t\.nodes\.bson is a web page"):
        case.choose()


def test_segmentation_of_another_threshold_is_refused(case: Case) -> None:
    case.choose()
    with pytest.raises(StateError, match=r"not .* at threshold 0\.3"):
        case.score(segmentation=case.write_segments(0.7))


def test_unknown_and_missing_volumes_are_refused(case: Case) -> None:
    case.settings["dataset"]["validation"] = [{"volume": "vall", "roi_nm": None}]
    with pytest.raises(ConfigError, match="did you mean 'val'"):
        case.choose()
    case.settings["dataset"]["validation"] = []
    with pytest.raises(ConfigError, match="no `validation` volumes"):
        case.choose()
    case.settings["dataset"]["validation"] = [{"volume": "test", "roi_nm": None}]
    with pytest.raises(ConfigError, match="no --fragments for volume 'test'"):
        case.choose()
    del case.settings["dataset"]["volumes"]["test"]["labels"]
    with pytest.raises(DataError, match="no `labels`"):
        case.choose("--fragments", f"test={case.fragments}")


def test_unfinished_store_is_refused(case: Case) -> None:
    (case.folder / "fragments.manifest.json").unlink()
    with pytest.raises(DataError, match="no manifest"):
        case.choose()


def test_compare_scores_any_segmentations(case: Case, tmp_path: Path) -> None:
    labels = f"{case.folder / 'test.zarr'}:labels"
    output = tmp_path / "compare.json"
    sources = [f"own={case.fragments}:fragments", f"truth={labels}"]
    roi = ["--roi-nm", "40:120,0:108,18:126", "--output", str(output)]
    evaluate.main(["compare", "--labels", labels, "--segmentation", *sources, *roi])
    scores = json.loads(output.read_text())["segmentations"]

    assert scores["truth"]["voi_sum"] == 0
    assert scores["own"]["voi_split"] == 0
    assert scores["own"]["scored_voxels"] == 4 * 144


def test_others_are_scored_on_all_test_entries_or_marked(case: Case, tmp_path: Path) -> None:
    labels = truth_and_fragments()[0]
    settings = case.settings["dataset"]
    settings["test"] = [{"volume": "test", "roi_nm": None}, {"volume": "val", "roi_nm": None}]
    dataset = ScoredDataset.model_validate(settings)
    store = write_store(tmp_path / "s.zarr", {"all": labels, "half": labels[:4]}, OFFSET)

    def row(**arrays: str) -> dict[str, Any]:
        sources = {name: Source(path=str(store), array=array) for name, array in arrays.items()}
        return other_row("ffn", sources, dataset, {}, 1)

    assert row(test="all", val="all")["coverage"] == "all 2,304"
    assert row(test="all", val="half")["coverage"] == "1,728 of 2,304 (75.0 %), ONLY A PART"
    only = row(test="all")
    assert only["coverage"] == "1,152 of 2,304 (50.0 %), ONLY A PART"
    assert only["voi_sum"] == 0


def test_fill_unassigned_grows_the_nearest_label(case: Case, tmp_path: Path) -> None:
    holes = truth_and_fragments()[0]
    holes[:, :, 4:8] = 0
    store = write_store(tmp_path / "holes.zarr", {"s": holes}, OFFSET)
    output = tmp_path / "compare.json"
    command = ["compare", "--labels", f"{case.folder / 'test.zarr'}:labels"]
    command += ["--segmentation", f"holes={store}:s", "--output", str(output)]
    evaluate.main(command)
    assert json.loads(output.read_text())["segmentations"]["holes"]["voi_split"] > 0

    evaluate.main([*command, "--fill-unassigned"])
    assert json.loads(output.read_text())["segmentations"]["holes"]["voi_sum"] == 0


def test_errors_are_written_as_json_table_and_layer(case: Case, tmp_path: Path) -> None:
    """The threshold 0.1 leaves fragments 3 and 4 of the second neuron apart."""
    source = write_phantom_dump(case.folder / "dump")
    case.settings["dataset"]["test"] = [{"volume": "test", "roi_nm": None, "skeletons": source}]
    case.settings["thresholds"] = [0.2, 0.3, 0.1]
    case.choose()
    path = tmp_path / "errors.json"
    case.score("--errors", str(path), segmentation=case.write_segments(0.2))
    lists = json.loads(path.read_text())["volumes"]["test"]["lists"]

    (error,) = lists["voxels"]["errors"]
    assert (error["kind"], error["segments"], error["ground_truth"]) == ("split", [4, 3], [2])
    assert error["point_nm"][0] == OFFSET[0] + 4 * VOXEL[0]
    assert error["voi_bits"] == pytest.approx(0.5)  # half of the voxels are cut in halves
    assert set(lists) == {"voxels", "skeletons", "skeletons_masked"}
    rows = list(csv.DictReader(path.with_suffix(".csv").open()))
    assert [row["segment"] for row in rows if row["counted"] == "voxels"] == ["4"]
    assert rows[0]["other_ground_truth"] == "" and float(rows[0]["z_nm"]) == error["point_nm"][0]
    layers = json.loads((tmp_path / "errors_layer.json").read_text())["layers"]
    assert len(layers) == len(lists)
    (point,) = layers[0]["annotations"]
    assert point["point"] == error["point_nm"][::-1] and point["segments"] == [["4", "3"], ["2"]]
