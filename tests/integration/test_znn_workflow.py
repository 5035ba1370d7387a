"""A ZNN user's three files, unchanged, through the whole workflow; and imported affinities."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

import replaced_outputs
import tiny_workflow
import tiny_znn as tiny
from replaced_outputs import AMID, BEFORE
from retrace.storage.volumes import open_volume

pytestmark = pytest.mark.timeout(1500)

NET = """\
nodes input
type input
size 1
edges conv1
type conv
init xavier
size 1,4,4
stride 1,1,1
input input
output n1
nodes n1
type transfer
function rectify_linear
size 6
edges pool1
type max_filter
size 1,2,2
stride 1,2,2
input n1
output p1
nodes p1
type sum
size 6
edges conv2
type conv
init xavier
size 1,3,3
stride 1,1,1
input p1
output output
nodes output
type transfer
function linear
size 2
"""
SPEC = """\
[image1]
fnames = ../data/raw.tif
pp_types = standard2D
is_auto_crop = yes
[label1]
fnames = ../data/labels.tif
pp_types = auto
is_auto_crop = yes
fmasks =
[image2]
fnames = ../data/other.tif
pp_types = standard2D
is_auto_crop = yes
[label2]
fnames = ../data/other_labels.tif
pp_types = auto
is_auto_crop = yes
[sample1]
input = 1
output = 1
[sample2]
input = 2
output = 2
[sample3]
input = 2
output = 2
"""
CFG = """\
[parameters]
fnet_spec = ../networks/net.znn
fdata_spec = ../data/data.spec
num_threads = 0
dtype = float32
out_type = boundary
train_net_prefix = ../experiments/net
train_range = 1
test_range = 2
forward_range = 3
train_outsz = 1,16,16
train_conv_mode = fft
eta = 0.05
momentum = 0.9
is_data_aug = yes
is_bd_mirror = yes
rebalance_mode = global
is_stdio = yes
Num_iter_per_show = 10
Num_iter_per_test = 20
test_num = 2
Num_iter_per_save = 50
Max_iter = 60
forward_outsz = 2,30,30
output_prefix = ../experiments/out
"""
DATASET = "{name: mine, voxel_size_nm: [40, 10, 10], cfg: python/config.cfg}"
AFFINITIES = {
    "name": "tiny_affinities",
    "extends": "n4_a",
    "layers": [
        {"conv": "conv1", "size": [1, 4, 4], "to": "n1", "maps": 4},
        {"conv": "conv6", "size": [3, 3, 3], "to": "output"},
    ],
    "parameters": {"train_outsz": [2, 12, 12], "num_iter_per_test": 5, "max_iter": 10},
}

RECURSIVE = {
    "name": "tiny_recursive",
    "extends": "n4",
    "recursive": {"input-r": {"network": "mine"}},
    "layers": [
        {"conv": "a", "from": "input", "size": [1, 3, 3], "to": "n1", "maps": 2},
        {"conv": "b", "from": "input-r", "size": [1, 3, 3], "to": "n1", "maps": 2},
        {"conv": "c", "size": [1, 1, 1], "to": "output", "maps": 2, "function": "linear"},
    ],
    "parameters": {"train_outsz": [1, 16, 16], "num_iter_per_test": 5, "max_iter": 10},
}
TWO_NET = (
    NET
    + """\
edges conv3
type conv
init xavier
size 1,3,3
stride 1,1,1
input p1
output output2
nodes output2
type transfer
function linear
size 2
"""
)
TWO_SPEC = SPEC.replace("output = 1", "output = 1\noutput2 = 1").replace(
    "output = 2", "output = 2\noutput2 = 2"
)

Start = Callable[..., str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ZNN user's folders, whose paths are relative to `python`, and two files of ours."""
    folder = tmp_path_factory.mktemp("znn")
    for name in ("data", "networks", "python", "config/datasets", "config/networks"):
        (folder / name).mkdir(parents=True)
    for seed, (raw, labels) in enumerate((("raw", "labels"), ("other", "other_labels"))):
        for name, data in zip((raw, labels), tiny.cells(seed), strict=True):
            tifffile.imwrite(folder / "data" / f"{name}.tif", data)
    (folder / "networks/net.znn").write_text(NET)
    (folder / "data/data.spec").write_text(SPEC)
    (folder / "python/config.cfg").write_text(CFG)
    (folder / "config/datasets/mine.yaml").write_text(DATASET)
    (folder / "config/networks/mine.yaml").write_text(
        "{name: mine, family: znn, cfg: python/config.cfg}"
    )
    (folder / "networks/two.znn").write_text(TWO_NET)
    (folder / "data/two.spec").write_text(TWO_SPEC)
    (folder / "python/two.cfg").write_text(
        CFG.replace("net.znn", "two.znn")
        .replace("data.spec", "two.spec")
        .replace("experiments/net", "experiments/two")
    )
    (folder / "config/networks/twin.yaml").write_text(
        "{name: twin, family: znn, cfg: python/config.cfg}"
    )
    two = {"datasets": DATASET, "networks": "{name: mine, family: znn, cfg: python/config.cfg}"}
    for kind, content in two.items():
        content = content.replace("mine", "two").replace("config.cfg", "two.cfg")
        (folder / f"config/{kind}/two.yaml").write_text(content)
    (folder / "config/networks/tiny_affinities.yaml").write_text(json.dumps(AFFINITIES))
    (folder / "config/networks/tiny_recursive.yaml").write_text(json.dumps(RECURSIVE))
    return folder


@pytest.fixture(scope="module")
def start(place: Path) -> Start:
    """Runs Snakemake in `place`; with `fails` it must fail. Returns what it printed."""

    def run(*arguments: str, config: tuple[str, ...] = (), fails: bool = False) -> str:
        options = ["--quiet", "host", "--cores", "2"]
        settings = ["device=cpu", "prediction_dtype=float32", *config]
        status, printed = tiny_workflow.finish(place, [*arguments, *options, "--config", *settings])
        assert (status != 0) == fails, printed[-6000:]
        return printed

    return run


def test_train_predict_and_evaluate_with_three_unchanged_files(place: Path, start: Start) -> None:
    start("evaluate_mine_mine", "results/mine/mine/net.h5")
    results = place / "results/mine/mine"
    scores = json.loads((results / "evaluation.json").read_text())

    (volume_scores,) = scores["volumes"].values()
    assert volume_scores["v_rand"] > 0.5
    assert volume_scores["pixel_error"] < 0.4
    assert scores["thresholds_chosen_on"] == ["sample2"]
    nets = ["net_50.h5", "net_current.h5", "net_init.h5"]
    assert sorted(path.name for path in (place / "experiments").iterdir()) == nets
    curve = json.loads((results / "training.json").read_text())["learning_curve"]
    assert curve["train"]["it"] == [10, 20, 30, 40, 50, 60]
    assert curve["test"]["it"] == [20, 40, 60]
    with h5py.File(results / "net.h5") as file:
        statistics = file["processing/znn/train/statistics"]
        np.testing.assert_allclose(statistics["train/err"][()], curve["train"]["err"])
        assert file["processing/znn/train/network/conv2/filters"].shape == (6, 2, 1, 3, 3)


def test_networks_that_a_training_did_not_write_are_continued_or_refused_while_planning(
    place: Path, start: Start
) -> None:
    start("train_mine_mine")
    current = place / "experiments/net_current.h5"
    written = current.read_bytes()

    plan = start("train_mine_twin", "--dry-run")
    assert "the training continues python/../experiments/net_current.h5, at iteration 50" in plan
    with h5py.File(current, "a") as file:
        file.attrs["note"] = "better"
    assert "Nothing to be done" in start("train_mine_mine", "--dry-run")
    refused = start("train_mine_mine", "--dry-run", config=("seed=1",), fails=True)
    assert "net_current.h5 exists and was changed after results/mine/mine wrote it" in refused
    current.write_bytes(written)
    (place / "work").rename(place / "moved_work")
    assert "seed changed" in start("train_mine_mine", "--dry-run", config=("seed=1",))
    shutil.rmtree(place / "work")  # digests of the dry run
    (place / "moved_work").rename(place / "work")


def test_two_trainings_with_one_prefix_are_refused_while_planning(
    place: Path, start: Start
) -> None:
    (place / "experiments").rename(place / "moved_experiments")
    targets = ("train_mine_mine", "train_mine_twin")
    refused = start(*targets, "--dry-run", config=("seed=1",), fails=True)
    (place / "moved_experiments").rename(place / "experiments")

    assert "choose another `train_net_prefix` for one of them" in refused


def test_killed_programs_leave_whole_outputs(place: Path, start: Start, tmp_path: Path) -> None:
    start("evaluate_mine_mine", "results/mine/mine/net.h5")
    copy = Path(shutil.copytree(place, tmp_path / "copy"))
    targets = ["evaluate_mine_mine", "results/mine/mine/net.h5"]
    arguments = [*targets, "--config", *["device=cpu", "prediction_dtype=float32"]]
    for job in replaced_outputs.finished_jobs(copy, arguments):
        replaced_outputs.assert_whole_after_kills(job, (BEFORE, AMID))


def test_forward_from_an_h5_gives_the_same_prediction_under_znns_names(
    place: Path, start: Start
) -> None:
    start("predict_mine_mine", "results/mine/mine/net.h5")
    trained = open_volume(place / "results/mine/mine/sample3/prediction.zarr", "boundary")
    expected = trained.read(trained.box)
    (place / "net.h5").write_bytes((place / "results/mine/mine/net.h5").read_bytes())
    start(
        "predict_mine_mine",
        config=("weights=published", "init=net.h5", "output_prefix=out/net"),
    )

    with h5py.File(place / "out/net_sample3_output.h5") as file:
        np.testing.assert_array_equal(file["main"][()], expected)
    for channel in range(2):
        tif = tifffile.imread(place / f"out/net_sample3_output_{channel}.tif")
        np.testing.assert_array_equal(tif, expected[channel])


def test_two_outputs_of_a_znn_are_trained_and_predicted(place: Path, start: Start) -> None:
    start("predict_two_two", config=("output_prefix=out/two", "iterations=10"))

    for node in ("output", "output2"):
        prediction = open_volume(
            place / "results/two/two/sample3/prediction.zarr", f"boundary_{node}"
        )
        with h5py.File(place / f"out/two_sample3_{node}.h5") as file:
            np.testing.assert_array_equal(file["main"][()], prediction.read(prediction.box))


def test_a_network_reads_what_another_one_predicted(place: Path, start: Start) -> None:
    start("predict_mine_tiny_recursive")
    first = place / "results/mine/mine/sample2/whole_prediction.zarr"
    whole = open_volume(first, "boundary")
    prediction = open_volume(
        place / "results/mine/tiny_recursive/sample3/prediction.zarr", "boundary"
    )

    assert whole.box.shape == prediction.box.shape == tiny.SHAPE
    assert whole.dtype == np.float32
    manifest = json.loads(
        (place / "results/mine/tiny_recursive/sample3/prediction.manifest.json").read_text()
    )
    assert any("mine/mine/sample3/whole_prediction.zarr" in name for name in manifest["inputs"])


def test_training_begins_from_an_h5(place: Path, start: Start) -> None:
    start("results/mine/mine/net.h5")
    (place / "seed.h5").write_bytes((place / "results/mine/mine/net.h5").read_bytes())
    start("train_mine_mine", config=("init=seed.h5", "iterations=61"))

    history = json.loads((place / "results/mine/mine/training.json").read_text())
    assert history["iterations_this_run"] == 61


def test_imported_affinities_are_segmented_and_evaluated(place: Path, start: Start) -> None:
    start("evaluate_mine_tiny_affinities", config=("evaluate={untrained: false}",))
    scores = json.loads((place / "results/mine/tiny_affinities/evaluation.json").read_text())

    assert scores["volumes"]["sample3"]["voi_sum"] >= 0
