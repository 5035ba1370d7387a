"""A tiny phantom through the whole workflow: stacks, training, alignment, scores, view."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

import replaced_outputs
import roc_validator
import seamless
import tiny_seamless as tiny
import tiny_workflow
from built_networks import built
from replaced_outputs import AMID, BEFORE
from retrace.config.networks import network_by_name
from retrace.errors import ConfigError
from retrace.storage.volumes import open_volume

pytestmark = pytest.mark.timeout(900)

Start = Callable[..., str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with its own dataset and network."""
    folder = tmp_path_factory.mktemp("alignment")
    tiny.write_configuration(folder)
    return folder


@pytest.fixture(scope="module")
def start(place: Path) -> Start:
    """Runs Snakemake in `place`; what it printed."""

    def run(*arguments: str, fails: bool = False) -> str:
        options = ["--cores", "1", "--config", "device=cpu"]
        status, printed = tiny_workflow.finish(place, [*options, *arguments])
        assert (status != 0) == fails, printed[-6000:]
        return printed

    return run


def test_a_stack_is_trained_on_aligned_and_scored(place: Path, start: Start) -> None:
    start("iterations=4", "--", "evaluate_slices_tiny")

    results = place / "results/slices/tiny"
    scores = json.loads((results / "evaluation.json").read_text())
    assert scores["all"]["pairs"] == 6
    assert scores["held_out"]["pairs"] == 1
    (measured,) = json.loads((results / "training.json").read_text())["validation"]["rows"]
    assert measured["iteration"] == 4 and measured["error_px"] > 0
    assert scores["all"]["after"]["error_px"] > 0
    assert scores["all"]["after"]["folded"] < 0.05
    assert (results / "alignment.txt").read_text().startswith(" ")
    for picture in ("alignment.png", "before_after.png"):
        assert (results / picture).read_bytes().startswith(b"\x89PNG")
    aligned = np.asarray(zarr.open_group(results / "aligned.zarr", mode="r")["aligned"])
    layer = open_volume(f"file://{results}/precomputed/aligned")
    np.testing.assert_array_equal(layer.read(layer.box), aligned)
    field = open_volume(f"file://{results}/precomputed/field")
    assert field.channels == 2
    assert len(list((place / "results/runs").glob("slices_tiny_*/run.json"))) == 1


def test_a_crate_of_an_alignment_is_valid(place: Path, start: Start, tmp_path: Path) -> None:
    start("iterations=4", "--", "crate_slices_tiny")
    crate = place / "results/slices/tiny/crate"
    accepted, report = roc_validator.validate(crate, tmp_path)

    assert accepted, report
    assert "results/slices/tiny/aligned.zarr" in (crate / "ro-crate-metadata.json").read_text()


def test_an_alignment_that_lost_its_result_is_reproduced_exactly(place: Path, start: Start) -> None:
    store = place / "results/slices/tiny/aligned.zarr"
    before = np.asarray(zarr.open_group(store, mode="r")["field"])
    store.with_name("aligned.manifest.json").unlink()

    start("iterations=4", "--", "align_slices_tiny")

    np.testing.assert_array_equal(np.asarray(zarr.open_group(store, mode="r")["field"]), before)


def test_killed_programs_leave_whole_outputs(place: Path, start: Start, tmp_path: Path) -> None:
    start("iterations=4", "--", "evaluate_slices_tiny")
    copy = Path(shutil.copytree(place, tmp_path / "copy"))
    config = ["--config", "device=cpu", "iterations=4"]
    for job in replaced_outputs.finished_jobs(copy, ["evaluate_slices_tiny", *config]):
        replaced_outputs.assert_whole_after_kills(job, (BEFORE, AMID))


def archive_of_2018(path: Path, network: object) -> None:
    """A network with initial weights as a .pt of SEAMLeSS."""
    names = {
        "aligners": ("mlist", "conv"),
        "encoders": ("enclist", "c"),
        "pre_encoder": ("pe", "c"),
    }
    weights = {}
    for name, tensor in built(network).state_dict().items():
        part, *level, layer, kind = name.split(".")
        old, letter = names[part]
        number = int(layer) // 2 + 1
        weights[".".join(["pyramid", old, *level, f"{letter}{number}", kind])] = tensor
    path.parent.mkdir(exist_ok=True)
    torch.save(weights, path)


def test_the_command_line_of_seamless_trains(
    place: Path, start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fine-tuning of its README, with two levels because sections are of 48 px."""
    monkeypatch.chdir(place)
    command = (
        "train --state_archive pt/SOME_ARCHIVE.pt --size 2 --lambda1 2 --lambda2 0.04 --lambda3 0 "
        "--lambda4 5 --lambda5 0 --mask_smooth_radius 75 --mask_neighborhood_radius 75 --lr 0.0003 "
        "--trunc 0 --fine_tuning --hm --padding 0 --vis_interval 1 --lambda6 1 fine_tune_example"
    )
    seamless.main(command.split())
    with Path("config/networks/fine_tune_example.yaml").open("a") as file:
        file.write("train_size: 48\ncollapse: {valid_fraction: 0}\n")
    archive_of_2018(Path("pt/SOME_ARCHIVE.pt"), network_by_name("fine_tune_example"))
    words = ("run=fine_tune_example", "num_epochs=1", "--", "train_slices_fine_tune_example")

    printed = start(*words)

    assert "initialised from pt/SOME_ARCHIVE.pt; 0 weights not completely loaded" in printed
    assert "epoch 0: level 0, all, lr 6e-05" in printed
    capsys.readouterr()
    seamless.main(["nh", "fine_tune_example"])
    assert "from pt/SOME_ARCHIVE.pt" in capsys.readouterr().out
    archive = "results/runs/fine_tune_example/archive.safetensors"
    seamless.main(["inspect_enc", "--archive", archive, "results/slices/stacks/main_train.h5"])
    assert Path("encodings.png").is_file()
    of_2018 = ["inspect_enc", "--archive", "pt/SOME_ARCHIVE.pt", "--output", "old.png"]
    with pytest.raises(ConfigError, match="holds weights without their settings; add --network"):
        seamless.main([*of_2018, "results/slices/stacks/main_train.h5"])
    of_2018 += ["--network", "fine_tune_example", "results/slices/stacks/main_train.h5"]
    seamless.main(of_2018)
    assert Path("old.png").is_file()
    assert list(Path("work/train").glob("*/pictures/000000002_level0_stack.gif"))


def test_impossible_combinations_are_refused_at_planning(start: Start) -> None:
    assert "aligns sections; it serves the verbs" in start(
        "-n", "--", "segment_slices_tiny", fails=True
    )
    assert "aligns nothing" in start("-n", "--", "align_slices_mtlsd_small", fails=True)
    assert "has no `alignment`" in start("-n", "--", "align_zfinch_tiny", fails=True)
    assert "the path of volume 'sections' is not filled in yet" in start(
        "-n", "--", "align_basil_seamless", fails=True
    )
