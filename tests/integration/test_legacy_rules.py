"""The legacy engine through Snakemake, in the stand-in image, from a real S3 server to scores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

import phantom
import predict
import s3_server
from conftest import Apptainer
from retrace import config as catalog
from retrace.checkpoints.published import read_published, write_published
from retrace.networks import build_network
from retrace.volumes import open_volume

pytestmark = [pytest.mark.container, pytest.mark.s3, pytest.mark.timeout(2400)]

VOLUME = ["--shape", "24", "80", "80", "--margin", "12", "24", "24", "--chunks", "16", "32", "32"]
CHECKPOINTS = "funke/phantom/training/checkpoints"
LEGACY = ("engine=legacy", "legacy_image=standin", "iterations=2")


def write_networks(folder: Path) -> None:
    """Narrow forms of three networks; two of them make an auto-context pair."""
    folder.mkdir(parents=True)
    for name in ("mtlsd", "lsd", "acrlsd"):
        content = {
            "name": f"thin_{name}",
            "extends": f"{name}_small",
            "fmaps": 2,
            "fmaps_out": 2,
            "recipes": {"anisotropic": {"fmap_factor": 2, "input_shape": [24, 52, 52]}},
        }
        if name == "acrlsd":
            content["autocontext"] = "thin_lsd"
        (folder / f"thin_{name}.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server.serving() as address:
        phantom.main(["upload", "--endpoint", address, *VOLUME])
        yield address


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, apptainer: Apptainer) -> Path:
    """A working directory with networks of its own and both images."""
    folder = tmp_path_factory.mktemp("legacy_rules")
    write_networks(folder / "config" / "networks")
    images = folder / "containers" / "images"
    images.mkdir(parents=True)
    for name in ("modern", "standin"):
        image = apptainer.image(name)
        (images / image.name).symlink_to(image)
    return folder


@pytest.fixture
def snakemake(repository: Path, place: Path, endpoint: str) -> Callable[..., str]:
    """Runs Snakemake in `place` with the legacy engine; returns what it prints."""

    def run(*arguments: str, config: Sequence[str] = LEGACY) -> str:
        settings = [f"endpoint_url={endpoint}", "evaluate={untrained: false}", *config]
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(repository / "Snakefile")]
        options = ["--directory", str(place), "--use-singularity", "--cores", "2"]
        done = subprocess.run(
            [*command, *arguments, *options, "--resources", "gpu=2", "--config", *settings],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout

    return run


def results(place: Path, name: str) -> Path:
    return place / "results" / "phantom" / f"thin_{name}"


def largest_difference(place: Path, name: str, weights: str, work: Path) -> dict[str, int]:
    """Per head: how far the modern engine's prediction of test_0 is from the legacy one's, uint8.

    The modern engine reads the weights that were converted from the TensorFlow checkpoint.
    """
    made = results(place, name) / "test_0"
    settings = json.loads((made / "prediction.manifest.json").read_text())["settings"]
    settings |= {"device": "cpu", "precision": "fp32", "compile": False}
    output = work / name / "prediction.zarr"
    arguments = ["--settings", json.dumps(settings), "--work", str(work / "work")]
    model = str(results(place, name) / f"{weights}.safetensors")
    predict.main([*arguments, "--model", model, "--output", str(output)])
    found = {}
    for head in settings["heads"]:
        ours, theirs = (
            open_volume(store / "prediction.zarr", head) for store in (output.parent, made)
        )
        assert ours.box == theirs.box
        values = ours.read(ours.box).astype(int), theirs.read(theirs.box).astype(int)
        assert values[0].std() > 0.1, "a constant prediction would agree with anything"
        found[head] = int(np.abs(values[0] - values[1]).max())
    return found


def test_train_predict_segment_evaluate(snakemake: Callable[..., str], place: Path) -> None:
    verbs = ("train", "evaluate")
    snakemake(*(f"{v}_phantom_thin_{n}" for v in verbs for n in ("mtlsd", "acrlsd")))
    for name in ("mtlsd", "acrlsd"):
        scores = json.loads((results(place, name) / "evaluation.json").read_text())
        assert 0 < scores["volumes"]["test_0"]["voi_sum"] < 40
        history = json.loads((results(place, name) / "training.json").read_text())
        assert (history["engine"], history["iterations"]) == ("legacy", 2)
        assert [row["iteration"] for row in history["history"]] == [1, 2]
        manifest = json.loads(
            (results(place, name) / "test_0" / "prediction.manifest.json").read_text()
        )
        assert "standin" in manifest["predicted_by"]["image"]
        assert manifest["predicted_by"]["iteration"] == 2
        assert not list((results(place, name) / "test_0").glob("legacy_*"))


def test_nothing_is_made_again(snakemake: Callable[..., str]) -> None:
    assert "Nothing to be done" in snakemake("evaluate_phantom_thin_acrlsd", "-n")


@pytest.mark.parametrize("name", ["mtlsd", "lsd", "acrlsd"])
def test_the_modern_engine_predicts_the_same(
    place: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    found = largest_difference(place, name, "model", tmp_path)
    print(f"{name}: largest difference of the engines {found} of 255")
    assert max(found.values()) <= 1


def test_training_goes_on_where_it_was(snakemake: Callable[..., str], place: Path) -> None:
    """Until iteration 3: the work of the first two is taken up, not done again."""
    config = (*LEGACY[:2], "iterations=3")
    printed = snakemake("train_phantom_thin_mtlsd", config=config)
    assert "3/3 loss" in printed
    assert "train_net_checkpoint_2" in printed
    history = json.loads((results(place, "mtlsd") / "training.json").read_text())
    assert [row["iteration"] for row in history["history"]] == [1, 2, 3]
    assert history["iterations_this_run"] == 1
    assert read_published(results(place, "mtlsd") / "checkpoint").iteration == 3


def test_published_weights_are_predicted_and_trained_on(
    snakemake: Callable[..., str],
    place: Path,
    endpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A checkpoint of another scope, as the paper's are; predicted with as fetched."""
    monkeypatch.chdir(place)
    network = catalog.network_for("thin_mtlsd", catalog.load_dataset("phantom"))
    module = build_network(network, seed=5)
    prefix = write_published(tmp_path / "original", module, 400, scope="setup02")
    client = s3_server.writer(endpoint)
    for file in prefix.parent.iterdir():
        key = f"{CHECKPOINTS}/thin_mtlsd/{file.name}"
        client.put_object(Bucket="open-neurodata", Key=key, Body=file.read_bytes())
    config = (*LEGACY[:2], "weights=published")
    snakemake("predict_phantom_thin_mtlsd", config=config)
    manifest = results(place, "mtlsd") / "test_0" / "prediction.manifest.json"
    assert json.loads(manifest.read_text())["predicted_by"]["iteration"] == 400
    snakemake("results/phantom/thin_mtlsd/published.safetensors", config=config)
    assert max(largest_difference(place, "mtlsd", "published", tmp_path).values()) <= 1
    snakemake("train_phantom_thin_mtlsd", config=(*config, "iterations=402"))
    history = json.loads((results(place, "mtlsd") / "training.json").read_text())
    assert [row["iteration"] for row in history["history"]] == [401, 402]
