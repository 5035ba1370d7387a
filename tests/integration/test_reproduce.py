"""The paper's gate, end to end: layer, bucket, published weights, scores, table, verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import evaluate
import tiny_workflow
from retrace.formats.precomputed import local_info
from retrace.storage.volumes import open_volume

pytestmark = [pytest.mark.s3, pytest.mark.timeout(1200)]

NETWORK = "tiny_mtlsd"
BOX = {"offset": [240, 216, 216], "shape": [480, 720, 720]}
TRUTH = "funke/phantom/testing/ground_truth"
TOLERANCE = {
    name: {"absolute": 1e-6, "reason": "the same program computes both"}
    for name in ("voi_split", "voi_merge", "voi_sum", "erl_nm", "max_erl_nm", "splits_needed")
}

Run = Callable[..., tuple[int, str]]


def paper_dataset(layer: Path) -> dict[str, Any]:
    """One region scored on skeletons, one on labels; both are cut from the same layer."""
    dump = {"path": "data/phantom_paper/ground_truth/{}", "name": "phantom", "region": "roi_1"}
    dumps = {s: {**dump, "path": dump["path"].format(s)} for s in ("validation", "testing")}
    raw = {"path": f"file://{layer}", "mip": 0}
    labels = {"path": "data/phantom_paper/ground_truth/labels"}
    return {
        "name": "phantom_paper",
        "voxel_size_nm": [20, 9, 9],
        "lsd_sigma_nm": 120,
        "weights_of": "phantom",
        "ground_truth": {
            "testing": f"{TRUTH}/testing",
            "validation": f"{TRUTH}/validation",
            "labels": f"{TRUTH}/data.zarr/volumes/roi_1/consolidated_ids",
        },
        "volumes": {
            "traced": {"raw": raw, "roi_nm": BOX},
            "labelled": {"raw": raw, "labels": labels, "roi_nm": "labels"},
        },
        "validation": [{"volume": "traced", "skeletons": dumps["validation"]}, "labelled"],
        "test": [{"volume": "traced", "skeletons": dumps["testing"]}, "labelled"],
        "paper": {
            "networks": [NETWORK],
            "threshold": "validation",
            "compute_mincut": True,
            "segment": {"block_shape": [16, 48, 48], "block_context": [4, 8, 8]},
            "tolerance": TOLERANCE,
        },
    }


def write_yaml(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a network two maps wide and the phantom's paper dataset."""
    folder = tmp_path_factory.mktemp("reproduce")
    tiny_workflow.write_network(folder, NETWORK)
    write_yaml(folder / "config/datasets/phantom_paper.yaml", paper_dataset(folder / "layer"))
    return folder


@pytest.fixture(scope="module")
def endpoint(place: Path) -> Iterator[str]:
    """A server with the phantoms, their ground truth and an untrained network's checkpoint."""
    layer = ["--layer", str(place / "layer")]
    with pytest.MonkeyPatch.context() as patch, tiny_workflow.serving(*layer) as address:
        patch.chdir(place)
        tiny_workflow.publish(address, place / "original", NETWORK)
        yield address


@pytest.fixture
def snakemake(place: Path, endpoint: str) -> Run:
    """Runs Snakemake in `place`; returns its status and what it printed."""

    def run(
        *arguments: str, regions: str = "[traced, labelled]", more: Sequence[str] = ()
    ) -> tuple[int, str]:
        options = ["--quiet", "host", "--cores", "2", *tiny_workflow.threads()]
        settings = [f"endpoint_url={endpoint}", f"reproduce={{regions: {regions}}}", *more]
        return tiny_workflow.finish(place, [*arguments, *options, "--config", *settings])

    return run


def publish(place: Path, regions: dict[str, Any]) -> None:
    """Writes the file of published numbers that the gate reads."""
    content = {"source": "an earlier run of this test", "regions": regions}
    write_yaml(place / "config/published/phantom.yaml", content)


def table(place: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (place / "results/phantom_paper/reproduction.json").read_text()
    )
    return content


def numbers(**changed: float) -> dict[str, float]:
    """Published numbers far from any result, except those in the arguments."""
    names = ("voi_split", "voi_merge", "voi_sum", "threshold")
    return {**dict.fromkeys(names, -1.0), **changed}


def as_computed(place: Path) -> dict[str, Any]:
    """The results of the last run in the form of published numbers."""
    computed: dict[str, Any] = {}
    for row in table(place)["rows"]:
        networks = computed.setdefault(row["region"], {}).setdefault(row["truth"], {})
        networks.setdefault(row["network"], {})[row["metric"]] = row["ours"]
    return computed


def test_a_failing_gate_keeps_the_table(snakemake: Run, place: Path) -> None:
    of_skeletons = numbers(erl_nm=-1.0, max_erl_nm=-1.0, splits_needed=-1.0)
    publish(
        place,
        {
            "traced": {
                "skeletons_masked": {NETWORK: of_skeletons},
                "skeletons": {NETWORK: of_skeletons},
            },
            "labelled": {"voxels": {NETWORK: numbers()}},
        },
    )
    status, printed = snakemake("reproduce_phantom")

    assert status != 0
    assert "outside their tolerance" in printed
    judged = table(place)
    assert not judged["passes"]
    assert {row["within"] for row in judged["rows"] if row["metric"] == "voi_sum"} == {False}
    assert (place / "results/phantom_paper/reproduction.txt").is_file()
    assert not (place / "results/phantom_paper/reproduced.txt").exists()
    evaluation = place / f"results/phantom_paper/{NETWORK}/evaluation.json"
    traced = json.loads(evaluation.read_text())["volumes"]
    (result,) = [v for v in traced.values() if v["volume"] == "traced"]
    assert result["counted"] == "skeleton nodes"
    assert 0 < result["skeletons_masked"]["nodes"] < result["skeletons"]["nodes"]


def test_the_recorded_numbers_pass_and_an_altered_one_fails(snakemake: Run, place: Path) -> None:
    recorded = as_computed(place)
    publish(place, recorded)
    status, printed = snakemake("reproduce_phantom")

    assert status == 0, printed[-6000:]
    assert "within their tolerance" in (place / "results/phantom_paper/reproduced.txt").read_text()
    assert not re.search(r"^rule predict:", printed, re.M)

    recorded["labelled"]["voxels"][NETWORK]["voi_sum"] += 0.01
    publish(place, recorded)
    status, printed = snakemake("reproduce_phantom")

    assert status != 0
    outside = [row for row in table(place)["rows"] if row["within"] is False]
    assert [(row["truth"], row["metric"]) for row in outside] == [("voxels", "voi_sum")]


def test_exported_segments_score_like_the_evaluation(snakemake: Run, place: Path) -> None:
    export_setting = "export={layers: [segments, nodes], formats: [ome_zarr]}"
    targets = [f"{verb}_phantom_paper_{NETWORK}" for verb in ("export", "package")]
    status, printed = snakemake(*targets, more=[export_setting])
    assert status == 0, printed[-6000:]

    results = place / f"results/phantom_paper/{NETWORK}"
    scored = json.loads((results / "evaluation.json").read_text())["volumes"]
    (expected,) = [v for v in scored.values() if v["volume"] == "traced"]
    for name in ("skeletons", "skeletons_masked"):
        output = place / f"{name}.json"
        table = results / f"traced/nodes/{name}.npz"
        evaluate.main(["rescore", str(table), "--output", str(output)])
        (scores,) = json.loads(output.read_text())["tables"].values()
        assert scores == {key: expected[name][key] for key in scores}
    for volume in ("traced", "labelled"):
        segments = open_volume(results / volume / "segmentation.zarr", "segments")
        image = open_volume(results / volume / "ome_zarr/segments.zarr")
        assert image.box == segments.box
        np.testing.assert_array_equal(image.read(image.box), segments.read(segments.box))
    assert (results / "package.zip").stat().st_size > 10_000


def test_impossible_settings_are_refused_at_planning(snakemake: Run, place: Path) -> None:
    status, printed = snakemake("reproduce_phantom", "--dry-run", regions="[tracd]")
    assert status != 0
    assert "no region 'tracd'; did you mean 'traced'?" in printed

    file = place / "config/datasets/phantom_paper.yaml"
    good = yaml.safe_load(file.read_text())
    for change, message in (
        ({"raw": {**good["volumes"]["traced"]["raw"], "mip": 3}}, "has no mip 3; it has 0:"),
        ({"roi_nm": {**BOX, "offset": [240, 216, 900]}}, "leaves the volume"),
        ({"raw": {"path": f"file://{place / 'nowhere'}"}}, "does not exist (1 more of its files"),
    ):
        broken = json.loads(json.dumps(good))
        broken["volumes"]["traced"] |= change
        write_yaml(file, broken)
        status, printed = snakemake("reproduce_phantom", "--dry-run", "--forceall")
        assert status != 0
        assert message in printed
    write_yaml(file, good)
    assert local_info(good["volumes"]["traced"]["raw"]["path"]) == place / "layer/info"
