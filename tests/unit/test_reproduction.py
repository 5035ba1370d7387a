"""The paper's numbers, and the gate that compares results with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import reproduce
from retrace.config import compatibility, datasets, paper, yaml_files
from retrace.config import networks as config_networks
from retrace.config.dataset_model import Dataset
from retrace.config.schema import check
from retrace.errors import ConfigError, StateError
from retrace.evaluation.reproduction import Row, compare_with_published, passes, reproduction_table
from retrace.planning import evaluate, paths, predict
from retrace.planning import reproduce as planning_reproduce
from retrace.planning import segment as planning_segment
from retrace.planning.score_settings import ReproductionSettings
from retrace.settings_model import as_json
from run_config import run_config
from volume_datasets import load_volumes

CONFIG = run_config()
FIRST: dict[str, Any] = {"regions": None, "networks": None}
METRICS = ("voi_split", "voi_merge", "voi_sum", "erl_nm", "max_erl_nm", "nerl")
PAPER = {"zfinch": "zfinch_paper", "fib25": "fib25_paper", "hemi": "hemi_paper"}


def paper_dataset(name: str, regions: Any = None, **_: Any) -> Dataset:
    return paper.choose_regions(load_volumes(PAPER[name]), regions)


def table_job(name: str, **reproduce: Any) -> ReproductionSettings:
    """The settings of `reproduce.py table`, as it reads them from its job."""
    reproduce_settings = {**FIRST, **reproduce}
    settings = planning_reproduce.table_settings(
        paper_dataset(name, **reproduce_settings), reproduce_settings["networks"]
    )
    return check(ReproductionSettings, json.loads(as_json(settings)), "settings")


def as_evaluation(numbers: dict[str, dict[str, Any]], region: str) -> dict[str, Any]:
    """An evaluation.json that holds exactly the published numbers of one network."""
    result: dict[str, Any] = {"volume": region, "counted": "skeleton nodes", "curve": []}
    for truth, scores in numbers.items():
        row = dict(scores)
        if truth == "voxels":
            other = {**row, "threshold": 0.0, "voi_sum": 9.0}
            result |= {**row, "voi_sum": 9.0, "counted": "voxels", "curve": [other, row]}
            continue
        cut = {k: row.pop(k) for k in ("splits_needed", "merges_needed") if k in row}
        row["node_voi_split"], row["node_voi_merge"] = row.pop("voi_split"), row.pop("voi_merge")
        result["threshold"] = row["threshold"]
        result[truth] = {**row, "curve": [row], "min_cut": cut}
    return {"volumes": {region: result}}


def evaluations(name: str, region: str, networks: Sequence[str]) -> dict[str, Any]:
    published = paper.read_paper_values(paper_dataset(name, regions=[region]))["regions"][region]
    return {
        n: as_evaluation({truth: published[truth][n] for truth in published}, region)
        for n in networks
    }


# ---------------------------------------------------------------- the numbers


def test_regions_that_were_scored_on_a_part_are_noted() -> None:
    settings = table_job("fib25", regions=["roi_1"], networks=["mtlsd"])
    content = evaluations("fib25", "roi_1", ["mtlsd"])
    content["mtlsd"]["volumes"]["roi_1"] |= {"scored_voxels": 5, "label_voxels": 20}
    published = paper.read_paper_values(paper_dataset("fib25", regions=["roi_1"]))
    rows = compare_with_published(settings, published, content)

    notes = {row.note for row in rows if row.ground_truth == "voxels" and row.ours is not None}
    assert notes == {"scored 5 of 20 (25.0 %), ONLY A PART"}


def test_the_projects_numbers_are_the_published_ones(shared_dir: Path) -> None:
    source = json.loads((shared_dir / "published/lsd_zebrafinch_published.json").read_text())
    regions = yaml_files.read_yaml(paper.published_file(paper_dataset("zfinch")))["regions"]
    compared = 0
    for row in source["rows"]:
        truth = "skeletons_masked" if row["neuropil_mask"] else "skeletons"
        ours = regions[row["roi"].removesuffix("_roi")][truth][row["network"]]
        for key in (*METRICS, "threshold", "segments"):
            assert ours[key] == pytest.approx(row[key], rel=1e-5)
        if row["mcm_splits"] is not None:
            assert ours["splits_needed"] == row["mcm_splits"]
            assert ours["merges_needed"] == row["mcm_merges"]
        compared += 1
    numbers = [n for r in regions.values() for t in r.values() for n in t.values() if n]
    assert compared == len(numbers) == 152


def test_the_digitised_numbers_are_the_published_ones(shared_dir: Path) -> None:
    source = json.loads((shared_dir / "published/lsd_fib25_hemi_digitised.json").read_text())
    places = {
        "fib25": {"roi_1": "fib25_roi1", "roi_2": "fib25_roi2", "full": "fib25_full"},
        "hemi": {"roi_1": "hemi_12um", "roi_2": "hemi_22um", "roi_3": "hemi_17um"},
    }
    for name, regions in places.items():
        ours = yaml_files.read_yaml(paper.published_file(paper_dataset(name)))["regions"]
        assert set(ours) == set(regions)
        for region, key in regions.items():
            networks = ours[region]["voxels"]
            voi = {n: [v["voi_split"], v["voi_merge"]] for n, v in networks.items()}
            assert voi == source[key]
            for value in networks.values():
                assert value["voi_sum"] == pytest.approx(value["voi_split"] + value["voi_merge"])


# ---------------------------------------------------------------- the comparison


@pytest.mark.parametrize(
    ("name", "region"), [("zfinch", "11_micron"), ("fib25", "roi_1"), ("hemi", "roi_3")]
)
def test_identical_numbers_pass(name: str, region: str) -> None:
    job = table_job(name, regions=[region])
    published = paper.read_paper_values(paper_dataset(name))
    rows = compare_with_published(job, published, evaluations(name, region, job.networks))

    assert passes([row.as_dict() for row in rows])
    judged = [row for row in rows if row.within is not None]
    assert {row.network for row in judged} == set(job.networks)
    # The published sum was rounded apart from its two parts.
    assert max(abs(row.difference or 0) for row in judged) < 2e-6
    assert [row.network for row in rows if row.note] == ["ffn"] * len(published["regions"][region])


def test_one_number_outside_fails_and_is_named(tmp_path: Path) -> None:
    job = table_job("zfinch")
    computed = evaluations("zfinch", "11_micron", job.networks)
    computed["mtlsd"]["volumes"]["11_micron"]["skeletons_masked"]["node_voi_split"] += 0.051
    rows = [
        r.as_dict()
        for r in compare_with_published(
            job, paper.read_paper_values(paper_dataset("zfinch")), computed
        )
    ]
    outside = [row for row in rows if row["within"] is False]

    assert not passes(rows)
    named = [(row["truth"], row["network"], row["metric"]) for row in outside]
    assert named == [("skeletons_masked", "mtlsd", m) for m in ("voi_split", "voi_sum")]


def test_a_network_that_is_missing_on_either_side_is_listed() -> None:
    job = table_job("zfinch", networks=["mtlsd", "baseline", "malis"])
    published = paper.read_paper_values(paper_dataset("zfinch"))
    here = published["regions"]["11_micron"] = {
        "skeletons": published["regions"]["11_micron"]["skeletons"]
    }
    computed = evaluations("zfinch", "11_micron", ["mtlsd", "baseline", "malis"])
    del here["skeletons"]["baseline"], computed["mtlsd"]
    here["skeletons"]["malis"] = None
    rows = {row.network: row for row in compare_with_published(job, published, computed)}

    assert (rows["mtlsd"].within, rows["mtlsd"].note) == (False, "no evaluation")
    assert rows["baseline"].within is False
    assert "no published number" in rows["baseline"].note
    assert (rows["malis"].within, rows["malis"].note) == (None, "the paper gives none")
    assert rows["ffn"].note == rows["acrlsd"].note == "not computed here"


def test_nothing_judged_does_not_pass() -> None:
    assert not passes([Row("r", "t", "n").as_dict()])
    assert not passes([])


def test_min_cut_may_be_left_out_and_run_lengths_may_not() -> None:
    job = table_job("zfinch", networks=["mtlsd"])
    published = paper.read_paper_values(paper_dataset("zfinch"))
    computed = evaluations("zfinch", "11_micron", ["mtlsd"])
    result = computed["mtlsd"]["volumes"]["11_micron"]
    result["skeletons_masked"]["min_cut"] = {}
    assert passes([row.as_dict() for row in compare_with_published(job, published, computed)])

    del result["skeletons"]
    rows = compare_with_published(job, published, computed)
    assert {
        row.within for row in rows if row.ground_truth == "skeletons" and row.metric == "erl_nm"
    } == {False}


def test_the_table_has_a_line_for_every_row() -> None:
    job = table_job("hemi")
    published = paper.read_paper_values(paper_dataset("hemi"))
    rows = compare_with_published(job, published, evaluations("hemi", "roi_1", job.networks))
    lines = reproduction_table([row.as_dict() for row in rows]).splitlines()

    assert len(lines) == 1 + len(rows)
    assert lines[0].split()[:4] == ["region", "truth", "network", "metric"]
    assert any("mtlsd" in line and "yes" in line for line in lines)


# ---------------------------------------------------------------- the program


def write_all(folder: Path, computed: dict[str, Any], job: ReproductionSettings) -> list[str]:
    """Evaluations on disk, and the command line of `table`."""
    files = []
    for network, evaluation in computed.items():
        path = folder / f"{network}.json"
        path.write_text(json.dumps(evaluation))
        files.append(f"{network}={path}")
    published = paper.published_file(paper_dataset("zfinch"))
    return [
        *("table", "--settings", as_json(job), "--published", str(published)),
        *("--evaluations", *files, "--output", str(folder / "table.json")),
        *("--text", str(folder / "table.txt")),
    ]


def test_the_gate_passes_fails_and_always_leaves_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = table_job("zfinch")
    computed = evaluations("zfinch", "11_micron", job.networks)
    judge = ["judge", "--table", str(tmp_path / "table.json"), "--output", str(tmp_path / "ok.txt")]
    reproduce.main(write_all(tmp_path, computed, job))
    reproduce.main(judge)

    assert "are within their tolerance" in (tmp_path / "ok.txt").read_text()
    assert "acrlsd" in (tmp_path / "table.txt").read_text()
    assert json.loads((tmp_path / "table.json").read_text())["passes"]

    (tmp_path / "ok.txt").unlink()
    computed["acrlsd"]["volumes"]["11_micron"]["skeletons"]["erl_nm"] *= 0.5
    reproduce.main(write_all(tmp_path, computed, job))
    with pytest.raises(
        StateError, match=r"1 of \d+ judged .*\n  11_micron skeletons acrlsd erl_nm"
    ):
        reproduce.main(judge)
    assert not (tmp_path / "ok.txt").exists()
    assert not json.loads((tmp_path / "table.json").read_text())["passes"]
    assert "NO" in capsys.readouterr().out


# ---------------------------------------------------------------- planning


def test_every_reproduction_has_a_dataset_with_weights_tolerances_and_numbers() -> None:
    assert paper.datasets() == {name: f"{name}_paper" for name in ("fib25", "hemi", "zfinch")}
    for name in PAPER:
        data = paper_dataset(name)
        published = paper.read_paper_values(data)
        assert datasets.load_dataset(data.weights_of).bucket.checkpoints
        for entry in datasets.load_dataset(PAPER[name]).test:
            assert entry.volume in published["regions"]
        for network in data.paper.networks:
            own = config_networks.network_for(network, data)
            assert own == config_networks.network_for(network, datasets.load_dataset(name))
            compatibility.check_pair(data, own, "evaluate")


def test_the_smallest_region_by_default_and_others_by_name() -> None:
    assert table_job("zfinch").regions == ("11_micron",)
    assert table_job("hemi", regions=["roi_2", "roi_1"]).regions == ("roi_1", "roi_2")
    assert table_job("hemi", regions=["roi_2", "11_micron"]).regions == ("roi_2",)
    with pytest.raises(ConfigError, match="no region 'roi_9'; did you mean 'roi_"):
        table_job("hemi", regions=["roi_1", "roi_9"])
    with pytest.raises(ConfigError, match=r"'ffn' is none of the paper's on 'zfinch'"):
        table_job("zfinch", networks=["ffn"])
    with pytest.raises(ConfigError, match="predicted with what was published for 'zfinch'"):
        data = paper_dataset("zfinch")
        compatibility.check_pair(data, config_networks.network_for("mtlsd", data), "train")


def test_published_numbers_that_lack_the_region_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config/published").mkdir(parents=True)
    file = tmp_path / "config/published/hemi.yaml"
    file.write_text(yaml.safe_dump({"source": "nowhere", "regions": {"roi_2": {}}}))
    with pytest.raises(ConfigError, match="has no region 'roi_1'; did you mean 'roi_2'"):
        table_job("hemi")
    file.write_text(yaml.safe_dump({"regions": {}}))
    with pytest.raises(ConfigError, match="needs `source` and `regions`"):
        table_job("hemi")


def test_the_papers_blocks_and_boxes_reach_the_programs() -> None:
    data = paper_dataset("zfinch")
    finch = config_networks.network_for("acrlsd", data)
    lsd = config_networks.network_for("lsd", data)
    segment = planning_segment.segment_settings(CONFIG, data, finch, "11_micron")
    affinities = predict.predict_settings(CONFIG, data, finch, "11_micron").volume
    descriptors = predict.predict_settings(CONFIG, data, lsd, "11_micron").volume

    assert segment.block_shape == (180, 400, 400)
    assert affinities.raw.mip == 0
    assert list(affinities.roi_nm.shape) == [10800, 10800, 10800]
    assert list(descriptors.roi_nm.shape) == [10800 + 2 * 360, 10800 + 2 * 954, 10800 + 2 * 954]
    assert evaluate.score_settings(CONFIG, data).compute_mincut is True

    flies = paper_dataset("fib25")
    lsd = config_networks.network_for("lsd", flies)
    from_labels = predict.predict_settings(CONFIG, flies, lsd, "roi_1").volume
    assert from_labels.roi_of.path == "data/fib25_paper/ground_truth/roi_1"
    assert list(from_labels.margin_nm) == [8 * 52] * 3
    assert paths.ground_truth(flies, "data/fib25_paper/ground_truth/roi_1") is not None
    assert paths.ground_truth(flies, "data/fib25_paper/ground_truth/roi_9") is None
