"""The whole workflow, from a real S3 server to scores and a picture, at a width of a few maps."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

import phantom
import s3_server
import sharded
from retrace import config as catalog
from retrace.checkpoints.published import write_published
from retrace.networks import build_network
from retrace.volumes import open_volume

pytestmark = [pytest.mark.s3, pytest.mark.timeout(1500)]

NETWORKS = ("baseline", "long_range", "malis", "mtlsd", "lsd", "aclsd", "acrlsd")
VOLUME = ["--shape", "24", "80", "80", "--margin", "12", "24", "24", "--chunks", "16", "32", "32"]
SIDE_BY_SIDE = [
    *("--resources", "gpu=2", "--set-threads"),
    *(f"{rule}=1" for rule in ("train", "predict", "fragments", "choose_threshold", "evaluate")),
]
"""These jobs are so small that starting them takes longest: one core each."""
CHECKPOINTS = "funke/phantom/training/checkpoints"


def write_networks(folder: Path) -> None:
    """`tiny_NETWORK` for each of the family: its small form, two maps wide."""
    folder.mkdir(parents=True)
    for name in NETWORKS:
        content = {
            "name": f"tiny_{name}",
            "extends": f"{name}_small",
            "fmaps": 2,
            "fmaps_out": 2,
            "recipes": {"anisotropic": {"fmap_factor": 2, "input_shape": [24, 52, 52]}},
        }
        if name.startswith("ac"):
            content["autocontext"] = "tiny_lsd"
        if name == "malis":
            content["loss"] = {"start_iteration": 1}
        (folder / f"tiny_{name}.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server.serving() as address:
        phantom.main(["upload", "--endpoint", address, *VOLUME])
        yield address


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory that has nothing but networks of its own."""
    folder = tmp_path_factory.mktemp("workflow")
    write_networks(folder / "config" / "networks")
    return folder


@pytest.fixture
def start(repository: Path, place: Path, endpoint: str) -> Callable[..., subprocess.Popen[str]]:
    """Starts Snakemake in `place`."""

    def begin(*arguments: str, config: Sequence[str]) -> subprocess.Popen[str]:
        settings = [f"endpoint_url={endpoint}", "evaluate={untrained: false}", *config]
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(repository / "Snakefile")]
        options = ["--directory", str(place), "--quiet", "host", "--cores", "2", *SIDE_BY_SIDE]
        return subprocess.Popen(
            [*command, *arguments, *options, "--config", *settings],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return begin


@pytest.fixture
def snakemake(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., str]:
    """Runs Snakemake in `place` and returns what it prints; shown where it fails."""

    def run(*arguments: str, config: Sequence[str] = ("iterations=2",)) -> str:
        with start(*arguments, config=config) as process:
            printed, _ = process.communicate()
        assert process.returncode == 0, printed[-6000:]
        return printed

    return run


def results(place: Path, name: str) -> Path:
    return place / "results" / "phantom" / f"tiny_{name}"


def test_every_network_trains_predicts_segments_and_is_scored(
    snakemake: Callable[..., str], place: Path
) -> None:
    scored = [name for name in NETWORKS if name != "lsd"]
    snakemake(*(f"evaluate_phantom_tiny_{name}" for name in scored))
    for name in scored:
        evaluation = json.loads((results(place, name) / "evaluation.json").read_text())
        scores = evaluation["volumes"]["test_0"]
        assert 0 < scores["scored_voxels"] <= 24 * 80 * 80
        assert 0 < scores["voi_sum"] < 40
        assert 0 <= scores["threshold"] < 1
        history = json.loads((results(place, name) / "training.json").read_text())
        assert history["iterations"] == 2
    far = open_volume(results(place, "long_range") / "test_0" / "prediction.zarr", "affs")
    assert far.channels == 12


def test_nothing_is_made_again(snakemake: Callable[..., str]) -> None:
    assert "Nothing to be done" in snakemake("evaluate_phantom_tiny_acrlsd", "-n")


def test_other_thresholds_leave_training_and_prediction_alone(
    snakemake: Callable[..., str],
) -> None:
    config = ("iterations=2", "segment={thresholds: [0, 1, 0.1]}")
    planned = snakemake("evaluate_phantom_tiny_mtlsd", "-n", config=config)
    jobs = re.findall(r"^rule (\w+):$", planned, re.M)
    assert "choose_threshold" in jobs
    assert not {"train", "predict", "fragments"} & set(jobs)


def test_published_weights_come_from_the_bucket(
    snakemake: Callable[..., str], place: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    network = catalog.network_for("tiny_mtlsd", catalog.load_dataset("phantom"))
    prefix = write_published(place / "original", build_network(network, seed=5), 400)
    client = s3_server.writer(endpoint)
    for file in prefix.parent.iterdir():
        key = f"{CHECKPOINTS}/tiny_mtlsd/{file.name}"
        client.put_object(Bucket="open-neurodata", Key=key, Body=file.read_bytes())
    snakemake("evaluate_phantom_tiny_mtlsd", config=("weights=published",))
    assert (results(place, "mtlsd") / "published.safetensors").is_file()
    manifest = results(place, "mtlsd") / "test_0" / "prediction.manifest.json"
    assert "published.safetensors" in manifest.read_text()


def test_shares_give_what_one_job_gives(snakemake: Callable[..., str], place: Path) -> None:
    config = ("iterations=2", "tile=[64, 64, 64]", "segment={block_shape: [16, 32, 32]}")
    folder = results(place, "mtlsd")
    stores = [folder / "test_0" / f"{name}.zarr" for name in ("prediction", "fragments")]
    stores.append(folder / "test_0" / "segmentation.zarr")
    snakemake("evaluate_phantom_tiny_mtlsd", config=config)
    whole, scores = sharded.arrays(*stores), (folder / "evaluation.json").read_text()

    done = snakemake("evaluate_phantom_tiny_mtlsd", config=(*config, "shards=3"))

    assert "rule train:" not in done and done.count("rule edges:") == 6
    for name, values in sharded.arrays(*stores).items():
        np.testing.assert_array_equal(values, whole[name], err_msg=name)
    assert (folder / "evaluation.json").read_text() == scores


def test_a_second_workflow_in_the_same_folder_is_refused(
    start: Callable[..., subprocess.Popen[str]], place: Path
) -> None:
    locks = place / ".snakemake" / "locks"
    with start("train_phantom_tiny_malis", config=("iterations=40",)) as first:
        while not (locks.is_dir() and any(locks.iterdir())):
            assert first.poll() is None
            time.sleep(0.2)
        with start("train_phantom_tiny_malis", config=("iterations=50",)) as second:
            printed, _ = second.communicate()
        assert second.returncode != 0 and "cannot be locked" in printed
        first.communicate()
    assert first.returncode == 0
    history = json.loads((results(place, "malis") / "training.json").read_text())
    assert history["iterations"] == 40


@pytest.mark.browser
def test_a_picture_of_the_results(snakemake: Callable[..., str], place: Path) -> None:
    snakemake("view_phantom_tiny_baseline")
    assert (results(place, "baseline") / "view.png").stat().st_size > 20_000
