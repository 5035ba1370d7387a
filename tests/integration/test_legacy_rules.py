"""The legacy engine through Snakemake, in the stand-in image, from a real S3 server to scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import predict
import tiny_workflow
from conftest import Apptainer
from retrace.checkpoints.published import read_published
from retrace.planning.experiment import Planner
from retrace.planning.view import view_batch_job
from retrace.storage.volumes import open_volume
from run_config import run_config

pytestmark = [pytest.mark.container, pytest.mark.s3, pytest.mark.timeout(2400)]

LEGACY = ("engine=legacy", "legacy_image=standin", "iterations=2")


def write_networks(folder: Path) -> None:
    """Narrow forms of three networks; two of them make an auto-context pair."""
    for name in ("mtlsd", "lsd"):
        tiny_workflow.write_network(folder, f"thin_{name}", f"{name}_small")
    tiny_workflow.write_network(folder, "thin_acrlsd", "acrlsd_small", autocontext="thin_lsd")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, apptainer: Apptainer) -> Path:
    """A working directory with its own networks and both images."""
    folder = tmp_path_factory.mktemp("legacy_rules")
    write_networks(folder)
    images = folder / "containers" / "images"
    images.mkdir(parents=True)
    for name in ("modern", "standin"):
        image = apptainer.image(name)
        (images / image.name).symlink_to(image)
    return folder


@pytest.fixture
def snakemake(place: Path, endpoint: str) -> Callable[..., str]:
    """Runs Snakemake in `place` with the legacy engine; returns what it prints."""

    def run(*arguments: str, config: Sequence[str] = LEGACY) -> str:
        settings = [f"endpoint_url={endpoint}", "evaluate={untrained: false}", *config]
        options = ["--use-singularity", "--cores", "2", "--resources", "gpu=2", "--config"]
        return tiny_workflow.succeed(place, [*arguments, *options, *settings])

    return run


def results(place: Path, name: str) -> Path:
    return place / "results" / "phantom" / f"thin_{name}"


def largest_difference(place: Path, name: str, weights: str, work: Path) -> dict[str, int]:
    """Per head: how far the modern engine's prediction of test_0 is from the legacy one's, uint8.

    The modern engine reads the weights that were converted from the TensorFlow checkpoint.
    """
    modern = results(place, name) / "test_0"
    settings = json.loads((modern / "prediction.manifest.json").read_text())["settings"]
    settings |= {"device": "cpu", "precision": "fp32", "compile": False}
    output = work / name / "prediction.zarr"
    arguments = ["--settings", json.dumps(settings), "--work", str(work / "work")]
    model = str(results(place, name) / f"{weights}.safetensors")
    predict.main([*arguments, "--model", model, "--output", str(output)])
    differences = {}
    for head in settings["heads"]:
        ours, theirs = (
            open_volume(store / "prediction.zarr", head) for store in (output.parent, modern)
        )
        assert ours.box == theirs.box
        values = ours.read(ours.box).astype(int), theirs.read(theirs.box).astype(int)
        assert values[0].std() > 0.1, "a constant prediction would agree with anything"
        differences[head] = int(np.abs(values[0] - values[1]).max())
    return differences


def test_train_predict_segment_evaluate(snakemake: Callable[..., str], place: Path) -> None:
    # What follows a prediction does not know the network: one of them is segmented and scored.
    targets = ("train_mtlsd", "predict_mtlsd", "train_acrlsd", "evaluate_acrlsd")
    snakemake(*(target.replace("_", "_phantom_thin_") for target in targets))
    scores = json.loads((results(place, "acrlsd") / "evaluation.json").read_text())
    assert 0 < scores["volumes"]["test_0"]["voi_sum"] < 40
    for name in ("mtlsd", "acrlsd"):
        history = json.loads((results(place, name) / "training.json").read_text())
        assert (history["engine"], history["iterations"]) == ("legacy", 2)
        assert [row["iteration"] for row in history["history"]] == [1, 2]
        manifest = json.loads(
            (results(place, name) / "test_0" / "prediction.manifest.json").read_text()
        )
        assert "standin" in manifest["predicted_by"]["image"]
        assert manifest["predicted_by"]["iteration"] == 2
        assert not list((results(place, name) / "test_0").glob("legacy_*"))


def test_a_second_run_recomputes_nothing(snakemake: Callable[..., str]) -> None:
    assert "Nothing to be done" in snakemake("evaluate_phantom_thin_acrlsd", "-n")


@pytest.mark.parametrize("name", ["mtlsd", "lsd", "acrlsd"])
def test_the_modern_engine_predicts_the_same(
    place: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    differences = largest_difference(place, name, "model", tmp_path)
    print(f"{name}: largest difference of the engines {differences} of 255")
    assert max(differences.values()) <= 1


def test_training_resumes(
    snakemake: Callable[..., str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to iteration 3: resumes after the first two, which are not repeated."""
    config = (*LEGACY[:2], "iterations=3")
    printed = snakemake("train_phantom_thin_mtlsd", config=config)
    assert "3/3 loss" in printed
    assert "train_net_checkpoint_2" in printed
    history = json.loads((results(place, "mtlsd") / "training.json").read_text())
    assert [row["iteration"] for row in history["history"]] == [1, 2, 3]
    assert history["iterations_this_run"] == 1
    checkpoint = results(place, "mtlsd") / "checkpoint"
    assert read_published(checkpoint).iteration == 3
    graphs = {f"{name}.{end}" for name in ("config", "train_net") for end in ("json", "meta")}
    assert {path.name for path in checkpoint.iterdir()} > graphs
    monkeypatch.chdir(place)
    planner = Planner(place, run_config(engine="legacy", legacy_image="standin"), True)
    for name, batch in (("mtlsd", 3), ("mtlsd", 1), ("acrlsd", 2)):
        chosen = replace(planner, config=planner.config.with_(batch=batch))
        layers = view_batch_job(chosen, "phantom", f"thin_{name}").settings.layers
        volumes = {layer.name: open_volume(Path(layer.path), layer.array) for layer in layers}
        grey = volumes["pred_affs"]
        assert volumes["gt_affs"].box == grey.box and grey.channels == 3
        assert 0 < grey.read(grey.box).std() < 30, "hardly trained"
    assert "pretrained_lsds" in volumes and "pred_lsds" not in volumes


def test_published_weights_are_predicted_and_trained_on(
    snakemake: Callable[..., str],
    place: Path,
    endpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A checkpoint of another variable scope, like the paper's; used unchanged."""
    monkeypatch.chdir(place)
    tiny_workflow.publish(endpoint, tmp_path / "original", "thin_mtlsd", scope="setup02")
    config = (*LEGACY[:2], "weights=published")
    snakemake("predict_phantom_thin_mtlsd", config=config)
    manifest = results(place, "mtlsd") / "test_0" / "prediction.manifest.json"
    assert json.loads(manifest.read_text())["predicted_by"]["iteration"] == 400
    snakemake("results/phantom/thin_mtlsd/published.safetensors", config=config)
    assert max(largest_difference(place, "mtlsd", "published", tmp_path).values()) <= 1
    snakemake("train_phantom_thin_mtlsd", config=(*config, "iterations=402"))
    history = json.loads((results(place, "mtlsd") / "training.json").read_text())
    assert [row["iteration"] for row in history["history"]] == [401, 402]
