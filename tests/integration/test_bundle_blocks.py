"""A bundle of streamed volumes contains them whole and needs no server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import bundle
import tiny_workflow
from retrace.config import yaml_files
from retrace.provenance.bundle_files import check_bundle

pytestmark = [pytest.mark.s3, pytest.mark.timeout(900)]

STORE = "data/phantom/train_0.zarr"
OPTIONS = ("--quiet", "host", "--cores", "2", "--resources", "gpu=2")
# The bundle holds the training volume alone.
SMALL = (
    *("iterations=2", "evaluate={untrained: false}", "device=cpu"),
    "validation={every: never}",
)


def snakemake(folder: Path, *arguments: str) -> None:
    tiny_workflow.succeed(folder, arguments)


def test_a_bundle_contains_streamed_volumes_as_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    tiny_workflow.write_network(place)
    content = yaml_files.read_yaml(yaml_files.WORKFLOW_CONFIG / "datasets/phantom.yaml")
    content["bucket"]["read"] = "blocks"
    (place / "config/datasets").mkdir()
    (place / "config/datasets/phantom.yaml").write_text(yaml.safe_dump(content))
    with tiny_workflow.serving() as address:
        snakemake(
            place,
            STORE.replace(".zarr", ".manifest.json"),
            *OPTIONS,
            "--config",
            f"endpoint_url={address}",
            *SMALL,
        )
    monkeypatch.chdir(place)
    (place / "modern.sif").write_bytes(b"image")
    (place / "wheels").mkdir()
    workflow_config = {
        **yaml_files.read_yaml(yaml_files.WORKFLOW_CONFIG / "config.yaml"),
        "endpoint_url": address,
    }
    settings = {"config": workflow_config, "dataset": "phantom", "name": "phantom_tiny"}
    settings["target"] = "train_phantom_tiny"
    bundle.main(
        [
            *("make", "--settings", json.dumps(settings), "--images", "modern.sif"),
            *("--files", STORE, "--wheels", "wheels", "--output", str(tmp_path / "bundle")),
        ]
    )
    folder = tmp_path / "bundle"
    check_bundle(folder)

    # The server is gone: any request would fail.
    goal = "results/phantom/tiny/model.safetensors"
    threads = tiny_workflow.threads()
    snakemake(folder, goal, *OPTIONS, *threads, "--configfile", "run.yaml", "--config", *SMALL)

    history = json.loads((folder / goal).with_name("training.json").read_text())
    assert history["iterations"] == 2
    assert "objects/funke/phantom/training/train_0.zarr" in json.dumps(history["origin"])
    assert not (folder / "data").exists(), "nothing was fetched again"
