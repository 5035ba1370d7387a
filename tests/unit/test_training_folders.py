"""Which snapshot a view of a training batch shows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from conftest import REPOSITORY
from loaded_programs import program
from retrace.errors import ConfigError
from retrace.planning import view
from retrace.planning.experiment import Planner
from run_config import run_config

WORK = Path("work/train")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planner(**changes: Any) -> Planner:
    return Planner(Path(), run_config(**changes))


def write_folder(name: str, *iterations: int, inputs: Any = None, **changes: Any) -> Path:
    """A folder of a training of phantom_mtlsd_small with snapshots of raw."""
    write = program(REPOSITORY / "docs/_site/planned_rules.py").write_snapshot
    for iteration in iterations:
        folder: Path = write(planner(**changes), "phantom", "mtlsd_small", iteration, name)
    noted = json.loads((folder / "identity.json").read_text())
    (folder / "identity.json").write_text(json.dumps(noted | {"inputs": inputs or {}}))
    return folder


def shown(**changes: Any) -> str:
    job = view.view_batch_job(planner(**changes), "phantom", "mtlsd_small")
    (path,) = {layer.path for layer in job.settings.layers}
    return str(Path(path).relative_to(WORK / "phantom_mtlsd_small_a"))


def test_the_newest_batch_or_the_chosen_one_of_this_training() -> None:
    folder = write_folder("a", 1, 7)
    write_folder("b", 9, seed=1)
    (folder / "snapshots" / "batch_000000008.zarr.partial").mkdir()
    assert shown() == shown(iterations=99, precision="fp32") == "snapshots/batch_000000007.zarr"
    assert shown(batch=1) == "snapshots/batch_000000001.zarr"
    with pytest.raises(ConfigError, match=r"no snapshot of iteration 9 .* set it to one of 1, 7,"):
        shown(batch=9)


@pytest.mark.parametrize(
    ("inputs", "changes", "reason"),
    [
        ({}, {"seed": 3}, "seed changed from 0 to 3"),
        ({}, {"precision": "bf16"}, "precision changed from 'fp32' to 'bf16'"),
        ({}, {"weights": "published"}, "it did not read data/phantom/checkpoints/mtlsd_small"),
        ({"own.h5": {}}, {}, "it read own.h5"),
    ],
)
def test_batches_of_other_trainings_are_named(inputs: Any, changes: Any, reason: str) -> None:
    folder = write_folder("a", 1, inputs=inputs)
    with pytest.raises(ConfigError) as refused:
        shown(**changes)
    message = str(refused.value)
    assert "run `snakemake train_phantom_mtlsd_small --config iterations=1`" in message
    assert f"{folder} has snapshots of another training: {reason}" in message


def test_batches_of_a_falling_rate_belong_to_one_length() -> None:
    own = {"name": "mtlsd_small", "extends": ["mtlsd", "baseline_small"]}
    own |= {"fmaps_out": 16, "optimizer": {"decay": {"kind": "cosine"}}}
    Path("config/networks").mkdir(parents=True)
    Path("config/networks/mtlsd_small.yaml").write_text(json.dumps(own))
    write_folder("a", 7, iterations=9)
    assert shown(iterations=9) == "snapshots/batch_000000007.zarr"
    with pytest.raises(ConfigError, match=r"train_phantom_mtlsd_small` .*changed from 9 to 99"):
        shown(iterations=99)


def test_weights_with_other_bytes_are_of_another_training() -> None:
    init = Path("init.safetensors")
    init.write_bytes(b"as it was")
    inputs = {str(init): {"sha256": "0" * 16}}
    write_folder("a", 1, inputs=inputs, init=str(init))
    with pytest.raises(ConfigError, match=r"init\.safetensors has changed since"):
        shown(init=str(init))
    init.unlink()
    with pytest.raises(ConfigError, match="it read init"):
        shown()


def test_an_image_of_any_range_is_scaled_to_be_seen() -> None:
    """ZNN whitens its images."""
    raw = write_folder("a", 1) / "snapshots" / "batch_000000001.zarr" / "raw"
    network = planner().network("phantom", "n4")
    for dtype, normalize in (("|u1", None), ("<f4", {"percentiles": [0, 100]})):
        (raw / ".zarray").write_text(json.dumps({"dtype": dtype}))
        (layer,) = view.batch_layers(raw.parent, network)
        assert layer.plain().get("normalize") == normalize


def test_the_training_that_wrote_last_counts_after_an_update() -> None:
    """Another version of the code trains in another folder, from the beginning."""
    write_folder("a", 3)
    old = write_folder("b", 900)
    os.utime(old / "snapshots" / "batch_000000900.zarr", (0, 0))
    assert shown() == "snapshots/batch_000000003.zarr"
