"""A loss over nothing is no number, and a training of nothing but such losses gives no result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import align
import tiny_elektronn
import tiny_seamless
import tiny_training as tiny
import train
import znn_trainings
from built_networks import built
from retrace.alignment.defect_training import DefectPatches, DefectTraining
from retrace.alignment.stack_files import StackDataset
from retrace.checkpoints.safetensors import save_model
from retrace.config.alignment_model import DefectDetector
from retrace.errors import DataError, StateError
from retrace.planning.train_settings import read_train_settings
from retrace.training import build
from retrace.training.compared import marked, number, total
from retrace.training.elektronn_history import read_history, write_history
from retrace.training.history import mean_rows
from retrace.training.znn_curve import add_test_pass, read_test_curve

pytestmark = pytest.mark.usefixtures("tiny_threads")
NOTHING, SOMETHING = torch.tensor(True), torch.tensor(False)


# ---------------------------------------------------------------- rows


def test_a_term_without_anything_to_compare_is_no_number_and_a_diverged_one_infinite() -> None:
    values = torch.tensor([0.0, 2.0, torch.nan])

    row = marked(values, ("a", "b", "c"), {"a": NOTHING, "b": SOMETHING})

    assert [number(v) for v in row] == [None, 2.0, float("inf")]
    assert float(total(row[:2], 0)) == 2
    assert number(total(row[:1], 0)) is None


def test_curves_average_what_was_compared() -> None:
    losses = torch.tensor([[1.0, torch.nan], [3.0, torch.nan], [torch.nan, torch.nan]])

    ((_, first), (_, second), (_, third)) = mean_rows(losses)

    assert [number(v) for v in (*first, *second, *third)] == [1, None, 3, None, None, None]


def test_a_test_pass_over_nothing_has_no_value(tmp_path: Path) -> None:
    add_test_pass(tmp_path, 4, None, None, "")
    add_test_pass(tmp_path, 8, 0.5, 0.25, "")

    assert read_test_curve(tmp_path, "") == [
        {"it": 4, "err": None, "cls": None},
        {"it": 8, "err": 0.5, "cls": 0.25},
    ]


def test_curves_of_families_leave_out_measurements_on_other_validation_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_test_pass(tmp_path, 4, 0.75, 0.5, "before")
    assert read_test_curve(tmp_path, "after") == []
    add_test_pass(tmp_path, 8, 0.5, 0.25, "after")
    assert read_test_curve(tmp_path, "after") == [{"it": 8, "err": 0.5, "cls": 0.25}]

    rows = [{"iteration": n, "train_loss": 1.0, "validation_loss": 2.0} for n in (1, 2)]
    write_history(tmp_path, rows, "before")
    assert read_history(tmp_path, 1, "before") == rows[:1]
    assert not capsys.readouterr().out
    assert read_history(tmp_path, 1, "after") == [{"iteration": 1, "train_loss": 1.0}]
    assert "on other validation data and are left out" in capsys.readouterr().out


# ---------------------------------------------------------------- alignment


def fit(folder: Path, stacks: Path, *more: str, **changes: Any) -> Path:
    """Trains the tiny pyramid; the model."""
    output = folder / "model.safetensors"
    paths = ["--work", folder / "work", "--runs", folder / "runs", "--output", output]
    paths += ["--history", folder / "training.json", "--stacks", stacks]
    settings = json.dumps(tiny_seamless.training(**changes))
    align.main(["train", "--settings", settings, *map(str, paths), *more])
    return output


@pytest.fixture
def stacks(tmp_path: Path) -> Path:
    return tiny_seamless.write_stacks(tmp_path / "stacks.h5")


def guard(**changes: Any) -> dict[str, Any]:
    settings = {"patience": 300, "field_fraction": 0.0, "valid_fraction": 0.0, "action": "stop"}
    return settings | changes


def test_a_short_training_that_compares_too_little_is_refused(tmp_path: Path, stacks: Path) -> None:
    result = tmp_path / "model.safetensors"
    result.write_text("the result before")

    with pytest.raises(StateError, match=r"iteration 2: only .* of the pixels are compared"):
        fit(tmp_path, stacks, iterations=2, collapse=guard(valid_fraction=1.0))

    assert result.read_text() == "the result before"
    assert not (tmp_path / "runs").exists()
    assert list(tmp_path.glob("work/*/state_*"))  # nothing that was computed is lost


def test_the_end_is_judged_between_two_checks(tmp_path: Path, stacks: Path) -> None:
    settings = {"lr": 1e-9, "collapse": guard(patience=4, field_fraction=1.0)}
    with pytest.raises(StateError, match=r"iteration 4: the network predicts an almost zero"):
        fit(tmp_path, stacks, iterations=5, **settings)
    settings["collapse"]["patience"] = 6
    fit(tmp_path, stacks, iterations=5, **settings)  # too short to judge the field
    with pytest.raises(StateError, match=r"iteration 6: the network predicts an almost zero"):
        fit(tmp_path, stacks, iterations=7, **settings)


def test_sections_that_are_defects_as_a_whole_teach_nothing(tmp_path: Path, stacks: Path) -> None:
    with h5py.File(stacks, "r+") as file:
        file["main/masks"][...] = 2

    with pytest.raises(StateError, match=r"nothing was compared in 3 iterations \(similarity, kno"):
        fit(tmp_path, stacks, iterations=3, lambda5=0, collapse=guard())

    with pytest.raises(StateError, match="nothing was compared"):  # nor when it resumes
        fit(tmp_path, stacks, iterations=3, lambda5=0, collapse=guard())


def test_a_curve_of_folds_alone_has_no_similarity(tmp_path: Path, stacks: Path) -> None:
    fit(tmp_path, stacks, iterations=2, fold_probability=1.0, fold_radius_px=[6, 8])

    rows = json.loads((tmp_path / "training.json").read_text())["history"]
    assert [row["similarity"] for row in rows] == [None, None]
    assert all(row["fold"] > 0 for row in rows)


@pytest.mark.parametrize("loss", [0.0, None])
def test_a_network_that_learned_nothing_is_no_beginning(
    tmp_path: Path, stacks: Path, loss: float | None
) -> None:
    network = tiny_seamless.typed(tiny_seamless.network())
    metadata = {"network": network.plain(), "loss": loss, "iteration": 5}
    archive = save_model(tmp_path / "archive.safetensors", built(network), metadata)

    with pytest.raises(DataError, match="its training compared nothing .loss (0.0|None) at iterat"):
        fit(tmp_path, stacks, f"--init={archive}", iterations=1)


def test_a_detector_of_blank_sections_is_refused(tmp_path: Path, stacks: Path) -> None:
    with h5py.File(stacks, "r+") as file:
        file["main/images"][...] = 0
    settings = DefectDetector(iterations=2, batch_size=1, side=32, fmaps=2)
    patches = DefectPatches(StackDataset([stacks]), 32, 0)
    training = DefectTraining(patches, settings, 0, torch.device("cpu"), tmp_path / "work")

    with pytest.raises(StateError, match=r"nothing was compared in 2 iterations \(classes, defect"):
        list(training.run())


def test_labelled_defects_have_no_loss_of_classes(tmp_path: Path, stacks: Path) -> None:
    with h5py.File(stacks, "r+") as file:
        file["main/masks"][...] = 2
    settings = DefectDetector(iterations=1, batch_size=1, side=32, fmaps=2)
    patches = DefectPatches(StackDataset([stacks]), 32, 0)
    training = DefectTraining(patches, settings, 0, torch.device("cpu"), tmp_path / "work")

    list(training.run())

    assert [number(v) is None for v in training.progress.losses[0]] == [True, False]


# ---------------------------------------------------------------- other families


def test_an_lsd_training_that_met_no_labelled_voxel_is_refused(tmp_path: Path) -> None:
    store = tiny.write_volume(tmp_path / "cube.zarr")
    mask = np.zeros(tiny.SHAPE, np.uint8)
    mask[:2, :2, :2] = 1
    tiny.write_array(tmp_path / "m.zarr", "labels_mask", mask)
    settings = tiny.settings(store, 2, network=tiny.network(min_masked=0.0))

    with pytest.raises(StateError, match=r"nothing was compared in 2 iterations \(lsds, affs"):
        train.main(tiny.arguments(tmp_path, settings, "--masks", f"cube={tmp_path / 'm.zarr'}"))

    assert not (tmp_path / "model.safetensors").exists()


def test_a_znn_patch_outside_the_mask_has_no_cost(tmp_path: Path) -> None:
    znn_trainings.tiny.write_stack(tmp_path)
    task = znn_trainings.task_of(tmp_path)
    batch = task.batch(0)
    terms = {"err": torch.tensor(1.0), "cls": torch.tensor(0.5)}

    assert not any(task.uncompared(terms, batch).values())
    assert all(task.uncompared(terms, batch | {"mask": 0 * batch["mask"]}).values())


def test_an_elektronn_batch_without_a_label_has_no_loss(tmp_path: Path) -> None:
    tiny_elektronn.write_cubes(tmp_path)
    settings = tiny.training(
        tiny_elektronn.dataset(tmp_path), tiny_elektronn.network(history_freq=1), 1
    )
    trainer = build.build_trainer(read_train_settings(settings), {}, tmp_path / "work")
    task, batch = trainer.task, trainer.task.batch(0)
    unlabelled = batch | {"target": torch.full_like(batch["target"], -1)}
    terms = task.losses(task.predict(trainer.module, unlabelled), unlabelled)
    _, _, recorded = trainer._loss(unlabelled)

    task.after_step(trainer.module, 1, recorded, tmp_path / "work")

    (rows,) = (json.loads(p.read_text())["rows"] for p in tmp_path.glob("work/history.json"))
    assert (rows[0]["loss"], rows[0]["loss_change"]) == (None, None)
    assert rows[0]["train_loss"] > 0
    assert all(task.uncompared(terms, unlabelled).values())
    assert not any(task.uncompared(terms, batch).values())


def test_a_training_that_compared_something_is_unchanged(tmp_path: Path) -> None:
    store = tiny.write_volume(tmp_path / "cube.zarr")
    settings = tiny.settings(store, 2)
    trainer = build.build_trainer(read_train_settings(settings), {}, tmp_path / "none")

    train.main(tiny.arguments(tmp_path, settings))

    rows = json.loads((tmp_path / "training.json").read_text())["history"]
    assert not any(trainer.task.uncompared({"affs": NOTHING}, trainer.task.batch(0)).values())
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert load_file(tmp_path / "model.safetensors")
