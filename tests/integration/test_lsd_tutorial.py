"""The steps of the LSD tutorial (docs/how-to/lsd-tutorial.md), one after the other."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from matplotlib.image import imread

import tiny_workflow
from built_networks import built
from conftest import REPOSITORY
from kill import PATIENCE_S
from retrace.checkpoints.published import load_published, read_published
from retrace.config import datasets, networks
from retrace.planning.training_folders import snapshots_in
from retrace.storage.volumes import Volume, open_volume

pytestmark = [pytest.mark.s3, pytest.mark.timeout(1500)]

PUBLISHED = ("weights=published", "iterations=401")
CHECKPOINT = "data/tutorial/checkpoints/tiny_mtlsd"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, endpoint: str) -> Path:
    """A working directory with a narrow mtlsd, whose checkpoint of iteration 400 is published.

    As in the tutorial, its file `checkpoint` names a later iteration that is not there, and the
    volume that is trained on is predicted.
    """
    folder = tmp_path_factory.mktemp("lsd_tutorial")
    phantom = yaml.safe_load((REPOSITORY / "config/datasets/phantom.yaml").read_text())
    only_trained = {k: v for k, v in phantom.items() if k not in ("validation", "test")}
    (folder / "config/datasets").mkdir(parents=True)
    own = folder / "config/datasets/tutorial.yaml"
    own.write_text(yaml.safe_dump(only_trained | {"name": "tutorial"}))
    tiny_workflow.write_network(folder, "tiny_mtlsd")
    original = folder / "original"
    original.mkdir()
    names = 'model_checkpoint_path: "train_net_checkpoint_500"\n'
    (original / "checkpoint").write_text(names)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_workflow.publish(endpoint, original, "tiny_mtlsd")
    return folder


@pytest.fixture
def arguments(endpoint: str) -> Callable[..., list[str]]:
    """The command line of Snakemake for some targets and settings."""

    def line(*targets: str, config: tuple[str, ...]) -> list[str]:
        options = ["--quiet", "host", "--cores", "2", *tiny_workflow.threads()]
        return [*targets, *options, "--config", f"endpoint_url={endpoint}", *config]

    return line


@pytest.fixture
def snakemake(place: Path, arguments: Callable[..., list[str]]) -> Callable[..., str]:
    """Runs Snakemake in `place` and returns what it prints; `status`: how it has to end."""

    def run(*targets: str, config: tuple[str, ...] = (), status: int = 0) -> str:
        ended, printed = tiny_workflow.finish(place, arguments(*targets, config=config))
        assert ended == status, printed[-6000:]
        return printed

    return run


def snapshots(place: Path, iteration: int) -> list[Path]:
    """The snapshots of an iteration, of all trainings."""
    found = [path for work in (place / "work/train").iterdir() for path in snapshots_in(work)]
    return [path for path in found if path.name == f"batch_{iteration:09d}.zarr"]


def values(volume: Volume) -> Any:
    return volume.read(volume.box)


def predicted(place: Path, snapshot: Path) -> dict[str, Any]:
    """What the published weights predict from the raw of a snapshot, uint8 by head."""
    network = networks.network_for("tiny_mtlsd", datasets.load_dataset("phantom"))
    module = built(network)
    load_published(read_published(place / CHECKPOINT), module, "tiny_mtlsd")
    raw = torch.from_numpy(values(open_volume(snapshot, "raw"))).float() / 127.5 - 1
    with torch.no_grad():
        outputs = module(raw[None, None])
    return {head: (output[0] * 255).to(torch.uint8) for head, output in outputs.items()}


def test_fetch_mask_and_train_one_iteration(snakemake: Callable[..., str], place: Path) -> None:
    snakemake("train_tutorial_tiny_mtlsd", config=("iterations=1",))
    assert (place / "data/tutorial/train_0.zarr").is_dir(), "the first volume, and no other"
    assert not list((place / "data/tutorial").glob("[!t]*_0.zarr"))
    mask = open_volume(place / "results/tutorial/masks/train_0.zarr", "labels_mask")
    assert set(np.unique(values(mask))) <= {0, 1}
    (snapshot,) = snapshots(place, 1)
    grey = values(open_volume(snapshot, "pred_affs"))
    assert grey.std() < 20, "untrained weights"
    assert {int(v) for v in np.unique(values(open_volume(snapshot, "gt_affs")))} == {0, 255}


def test_train_one_iteration_beyond_the_checkpoint(
    snakemake: Callable[..., str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch shows what the published weights predict; then they are trained on."""
    monkeypatch.chdir(place)
    targets = [f"{verb}_tutorial_tiny_mtlsd" for verb in ("train", "predict")]
    printed = snakemake("fetch_tutorial_tiny_mtlsd_checkpoint", *targets, config=PUBLISHED)
    assert "continues from train_net_checkpoint_400" in printed
    assert {path.name for path in (place / CHECKPOINT).iterdir()} >= {"checkpoint"}
    (snapshot,) = snapshots(place, 401)
    for head, expected in predicted(place, snapshot).items():
        shown = values(open_volume(snapshot, f"pred_{head}")).astype(int)
        # raw of the snapshot is rounded to uint8
        assert np.abs(shown - expected.numpy()).max() <= 3 and shown.std() > 0
    prediction = place / "results/tutorial/tiny_mtlsd/train_0/prediction.zarr"
    heads = {head: open_volume(prediction, head) for head in ("affs", "lsds")}
    assert {head: volume.channels for head, volume in heads.items()} == {"affs": 3, "lsds": 10}
    raw = open_volume(place / "data/tutorial/train_0.zarr", "volumes/raw")
    assert heads["affs"].box == raw.box, "all of the volume that was trained on"


@pytest.mark.browser
@pytest.mark.usefixtures("browser")
def test_view_the_batch(snakemake: Callable[..., str], place: Path) -> None:
    printed = snakemake("view_batch_tutorial_tiny_mtlsd", config=("seed=5",), status=1)
    assert "snakemake train_tutorial_tiny_mtlsd --config iterations=1" in printed
    jet = "view={lsd_channels: [6]}"
    snakemake("view_batch_tutorial_tiny_mtlsd", config=(*PUBLISHED, jet))
    picture = place / "results/tutorial/tiny_mtlsd/view_batch.png"
    # The lower row begins with `pred_lsds`; near 0.5, jet is green, and affinities are grey.
    lsds, _, affs = np.split(imread(picture)[550:850, 0:1599, :3], 3, axis=1)
    excess = [float(np.median(panel[..., 1] - panel[..., 0])) for panel in (lsds, affs)]
    assert excess[0] > 0.3 and abs(excess[1]) < 0.1
    assert (
        "in a headless browser" in (place / "logs/view_batch/tutorial_tiny_mtlsd.log").read_text()
    )
    record = json.loads(picture.with_name("view_batch.record.json").read_text())
    layers = {layer["name"]: layer for layer in record["identity"]["settings"]["layers"]}
    assert list(layers)[:3] == ["raw", "labels", "labels_mask"]
    assert set(list(layers)[3:]) == {"gt_affs", "pred_affs", "gt_lsds", "pred_lsds"}
    (snapshot,) = snapshots(place, 401)
    assert place / layers["raw"]["path"] == snapshot


def test_serve_data_and_batch_on_another_address(
    place: Path, arguments: Callable[..., list[str]]
) -> None:
    config = ("iterations=1", "serve=true", "view={bind_address: 127.0.0.2}")
    targets = ("view_data_tutorial", "view_batch_tutorial_tiny_mtlsd")
    line = arguments(*targets, config=config)
    with tiny_workflow.start(place, line, in_own_group=True) as process:
        assert process.stdout is not None
        addresses = []
        for line in process.stdout:
            addresses += re.findall(r"open (http://127\.0\.0\.2:\S+)", line)
            if len(addresses) == 2:
                break
        for address in addresses:
            with urllib.request.urlopen(address, timeout=PATIENCE_S) as page:
                assert b"neuroglancer" in page.read().lower()
        os.killpg(process.pid, signal.SIGINT)
        process.communicate()
    assert len(addresses) == 2
