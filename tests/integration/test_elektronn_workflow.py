"""Some hundred real digits through the whole workflow: trained, pre-trained, predicted, scored."""

from __future__ import annotations

import csv
import gzip
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.torch import load_file

import replaced_outputs
import roc_validator
import tiny_digits as tiny
import tiny_elektronn as cubes
import tiny_workflow
from replaced_outputs import AMID, BEFORE
from retrace.formats.examples import read_idx

pytestmark = [pytest.mark.realdata, pytest.mark.timeout(900)]

NETWORKS = {
    "tiny_cnn": {
        "extends": "cnn_warp",
        "nof_filters": [6, 8],
        "MLP_layers": [24],
        "batch_size": 20,
        "LR_decay": 1,
        "history_freq": 100,
        "monitor_batch_size": 200,
        "n_steps": 300,
        "actions": [{"at_iteration": 200, "set": {"warp_on": False, "lr": 0.005}}],
    },
    "tiny_coder": {"extends": "autoencoder", "MLP_layers": [40, 10], "n_steps": 60},
    "tiny_scratch": {
        "extends": "from_scratch",
        "MLP_layers": [40, 10],
        "n_steps": 10,
        "history_freq": 10,
    },
    "tiny_pretrained": {
        "extends": "from_scratch",
        "MLP_layers": [40, 10],
        "n_steps": 40,
        "history_freq": 20,
        "pretrained": {"network": "tiny_coder", "layers": [0, 1]},
    },
}

Start = Callable[..., str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, shared_dir: Path) -> Path:
    """A user's folder: 1,200 digits for training, 300 others for the test."""
    folder = tmp_path_factory.mktemp("digits")
    for name in ("data/digits", "config/datasets", "config/networks"):
        (folder / name).mkdir(parents=True)
    source = shared_dir / "data" / "mnist"
    images, labels = (
        read_idx(source / f"train-{part}-ubyte.gz") for part in ("images-idx3", "labels-idx1")
    )
    examples: dict[str, object] = {"classes": 10, "held_out": 200, "labelled": 900}
    for split, part in (("train", slice(0, 1200)), ("test", slice(1200, 1500))):
        examples[split] = {}
        for kind, values in (("values", images), ("labels", labels)):
            path = folder / "data" / "digits" / f"{split}-{kind}.gz"
            path.write_bytes(gzip.compress(tiny.idx(values[part].astype(np.uint8))))
            examples[split][kind] = {"path": str(path.relative_to(folder))}  # type: ignore[index]
    dataset = {"name": "digits", "examples": examples}
    (folder / "config/datasets/digits.yaml").write_text(json.dumps(dataset))
    for name, network in NETWORKS.items():
        text = json.dumps({"name": name, **network})
        (folder / f"config/networks/{name}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def start(place: Path) -> Start:
    """Runs Snakemake in `place`; with `fails` it must fail."""

    def run(*arguments: str, fails: bool = False, config: str = "seed=0") -> str:
        options = ["--quiet", "host", "--cores", "2", "--config", "device=cpu", config]
        status, printed = tiny_workflow.finish(place, [*arguments, *options])
        assert (status != 0) == fails, printed[-6000:]
        return printed

    return run


def test_train_predict_and_evaluate(place: Path, start: Start) -> None:
    start("train_digits_tiny_cnn", "evaluate_digits_tiny_cnn")
    results = place / "results/digits/tiny_cnn"
    scores = json.loads((results / "evaluation.json").read_text())

    assert scores["split"] == "test"
    assert scores["examples"] == 300
    assert scores["error"] < 0.2
    assert 0 < scores["nll"] < 0.7
    with (results / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == ["1", "100", "200", "300"]
    assert [float(row["warp"]) for row in rows] == [1, 1, 1, 0]
    assert [float(row["lr"]) for row in rows] == [0.02, 0.02, 0.02, 0.005]
    for name in ("timeline", "history", "errors", "evaluation"):
        assert (results / f"{name}.png").stat().st_size > 2000
    with h5py.File(results / "predictions.h5") as file:
        predicted = file["predictions"][...]
    assert np.allclose(predicted.sum(axis=1), 1, atol=1e-5)
    truth = read_idx(place / "data/digits/test-labels.gz")
    assert scores["wrong"] == int((predicted.argmax(axis=1) != truth).sum())


def test_killed_programs_leave_whole_outputs(place: Path, start: Start, tmp_path: Path) -> None:
    start("train_digits_tiny_cnn", "evaluate_digits_tiny_cnn")
    copy = Path(shutil.copytree(place, tmp_path / "copy"))
    targets = ["train_digits_tiny_cnn", "evaluate_digits_tiny_cnn"]
    arguments = [*targets, "--config", *["device=cpu"]]
    for job in replaced_outputs.finished_jobs(copy, arguments):
        replaced_outputs.assert_whole_after_kills(job, (BEFORE, AMID))


def test_a_crate_of_digits_is_valid(place: Path, start: Start, tmp_path: Path) -> None:
    start("crate_digits_tiny_cnn")
    crate = place / "results/digits/tiny_cnn/crate"
    accepted, report = roc_validator.validate(crate, tmp_path)

    assert accepted, report
    graph = json.loads((crate / "ro-crate-metadata.json").read_text())["@graph"]
    jobs = {e["@id"] for e in graph if e["@type"] == "CreateAction"}
    assert len(jobs) >= 4, jobs  # the run, and training, prediction, scores


def test_pre_training_trains_the_autoencoder_first(place: Path, start: Start) -> None:
    param = "results/digits/tiny_coder/net.param"
    start("evaluate_digits_tiny_pretrained", "evaluate_digits_tiny_coder", param)
    results = place / "results/digits"
    coder = load_file(results / "tiny_coder/model.safetensors")

    assert {"layers.0.weight", "layers.1.bias"} <= coder.keys()
    log = (place / "logs/train/digits_tiny_pretrained.log").read_text()
    assert "layer 1 taken from results/digits/tiny_coder/model.safetensors" in log
    scores = json.loads((results / "tiny_coder/evaluation.json").read_text())
    assert 0 < scores["mse"] < 0.1
    assert scores["rmse"] == pytest.approx(scores["mse"] ** 0.5)
    assert (results / "tiny_coder/evaluation.png").stat().st_size > 2000


def test_the_file_of_the_compression_part_starts_a_classifier(place: Path, start: Start) -> None:
    """`saveParameters(..., layers=cnn.layers[0:3])`, then `loadParameters` of another network."""
    start("results/digits/tiny_coder/net.param")
    shutil.copy(place / "results/digits/tiny_coder/net.param", place / "AE-pretraining.param")
    start("train_digits_tiny_scratch", config="init=AE-pretraining.param")

    log = (place / "logs/train/digits_tiny_scratch.log").read_text()
    assert "layer 0: [40, 784] from AE-pretraining.param" in log
    assert "layer 1: [10, 40] from AE-pretraining.param" in log
    assert "layer 2" not in log  # the layer of the classes begins at random


CONFIG_FILES = {
    "MNIST_CNN_warp_config": """
save_name = 'cnn_of_the_document'
n_dim = 2
desired_input = 26
filters = [3, 3]
pool = [2, 2]
nof_filters = [4, 6]
MLP_layers = [20]
mode = 'img-scalar'
data_load_kwargs = dict(path='mnist.pkl.gz', convert2image=True, warp_on=True, shift_augment=True)
""",
    "MNIST_MLP_config": """
save_name = 'mlp_of_the_document'
MLP_layers = [20, 20]
mode = 'vect-scalar'
data_load_kwargs = dict(path='mnist.pkl.gz', convert2image=False, warp_on=True)
""",
    "neuro_3d_config": """
save_name = 'neuro_3d'
save_path = '~/CNN_Training/3D/'
data_path = 'cubes/'
label_path = 'cubes/'
preview_data_path = 'cubes/preview_cubes.h5'
d_files = [('raw_%i.h5' % i, 'raw') for i in range(3)]
l_files = [('barrier_%i.h5' % i, 'lab') for i in range(3)]
valid_cubes = [2,]
n_dim = 3
desired_input = [19, 19, 3]
filters = [[4,4,1], [3,3,3]]
pool = [[2,2,1], [1,1,1]]
nof_filters = [4, 6]
n_lab = 2
mode = 'img-img'
warp_on = 0.7
history_freq = [500]
""",
}
DIGITS = """
data_class_name = 'MNISTData'
data_batch_kwargs = dict()
batch_size = 20
"""


def test_the_configuration_files_of_the_document(place: Path, start: Start) -> None:
    """Edited as it says, translated and trained for less than `history_freq` iterations."""
    (place / "cubes").mkdir()
    cubes.write_cubes(place / "cubes")
    with h5py.File(place / "cubes/preview_cubes.h5", "w") as previews:
        previews["data0"] = cubes.cube(7)[0]
    splits = [read_idx(place / f"data/digits/train-{part}.gz") for part in ("values", "labels")]
    values = splits[0].reshape(-1, 784).astype(np.float32) / 255
    parts = [(values[n : n + 100], splits[1][n : n + 100].astype(np.int64)) for n in (0, 100, 200)]
    (place / "mnist.pkl.gz").write_bytes(gzip.compress(pickle.dumps(tuple(parts), protocol=2)))
    targets = []
    for name, text in CONFIG_FILES.items():
        file = place / f"{name}.py"
        file.write_text(text + (DIGITS if "MNIST" in name else ""))
        targets.append(translated(place, file))
    start(*targets, "predict_neuro_3d_cubes_neuro_3d", config="iterations=5")

    assert targets[0] == "train_cnn_of_the_document_digits_cnn_of_the_document"
    for kind in ("cnn", "mlp"):
        name = f"{kind}_of_the_document"
        assert (place / f"results/{name}_digits/{name}/model.safetensors").is_file()
    results = place / "results/neuro_3d_cubes/neuro_3d"
    with (results / "history.csv").open() as table:
        assert [row["iteration"] for row in csv.DictReader(table)] == ["1", "5"]
    assert (results / "preview_0/prediction.zarr").is_dir()
    (work,) = (place / "work/train").glob("neuro_3d_cubes_neuro_3d_*")
    assert (work / "debug_batch.png").is_file()
    assert len(list((work / "preview").glob("*.png"))) == 2


def translated(place: Path, file: Path) -> str:
    """The target that `elektronn.py translate` names for a configuration file."""
    program = Path(__file__).resolve().parents[2] / "workflow/scripts/elektronn.py"
    done = subprocess.run(
        [sys.executable, program, "translate", file.name, "--voxel-size-nm", "20", "10", "10"],
        cwd=place,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "NO FILE" not in done.stdout
    return done.stdout.strip().splitlines()[-1].split()[-1]


def test_impossible_settings_are_refused_before_any_job_runs(start: Start) -> None:
    for target, reason in (
        ("train_digits_mtlsd", "has single images with a class each"),
        ("segment_digits_tiny_cnn", "nothing to segment"),
        ("train_phantom_tiny_cnn", "gives one class for a whole image"),
        ("mask_digits", "nothing to mask"),
    ):
        assert reason in start(target, "--dry-run", fails=True)
