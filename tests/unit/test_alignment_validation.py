"""Validation of alignment trainings: fixed pairs of sections that serve nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tiny_seamless as tiny
from retrace.alignment.build import build_alignment_trainer
from retrace.alignment.stack_sampling import sections_of_split
from retrace.alignment.validation import PairValidation, StackPaths, correlations
from retrace.checkpoints.safetensors import read_metadata
from retrace.config.alignment_model import StackSet
from retrace.displacement import length
from retrace.planning.align import fit_job
from retrace.planning.align_settings import FitSettings
from retrace.planning.experiment import Planner
from run_config import run_config

pytestmark = pytest.mark.usefixtures("tiny_threads")

EVERY, ITERATIONS = 2, 5
SHOWN = {"iteration", "loss", "similarity", "smoothness", "known"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Stacks to train on, and others for validation."""
    folder = tmp_path_factory.mktemp("stacks")
    measured = tiny.write_stacks(folder / "validation.h5", count=1, first=9)
    return tiny.write_stacks(folder / "train.h5"), measured


def trained(folder: Path, files: tuple[Path, Path], **changes: Any) -> dict[str, Any]:
    """Trains in `folder`, which may have a saved state; returns training.json."""
    settings = tiny.training(**{"iterations": ITERATIONS} | changes)
    tiny.train(folder, files[0], settings, f"--validation={files[1]}")
    content: dict[str, Any] = json.loads((folder / "a/training.json").read_text())
    return content


def selection(**changes: Any) -> dict[str, Any]:
    return {"every": EVERY, "keep": "best", "patience": None} | changes


@pytest.fixture(scope="module")
def best(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that keeps its best state."""
    folder = tmp_path_factory.mktemp("best")
    trained(folder, files, selection=selection())
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    content = json.loads((folder / "a/training.json").read_text())
    return list(content["validation"]["rows"])


def test_measurements_have_losses_and_errors_and_change_no_weight(
    files: tuple[Path, Path], best: Path, tmp_path: Path
) -> None:
    trained(tmp_path / "measured", files, validate_every=EVERY)
    tiny.train(tmp_path / "plain", files[0], tiny.training(iterations=ITERATIONS))

    plain = json.loads((tmp_path / "plain/a/training.json").read_text())
    assert plain["validation"] is None
    one, other = (load_file(tmp_path / n / "a/model.safetensors") for n in ("measured", "plain"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    curve = rows(tmp_path / "measured")
    assert curve == rows(best)
    assert [row["iteration"] for row in curve] == [2, 4, 5]
    for row in curve:
        assert set(row) == SHOWN | {"field_px", "valid", "correlation", "error_px"}
        parts = row["similarity"] + row["smoothness"] + row["known"]
        assert row["loss"] == pytest.approx(parts, rel=1e-5)
        assert row["error_px"] > 0 and -1 <= row["correlation"] <= 1
    (log,) = (tmp_path / "measured").glob("work/*/log")
    events = EventAccumulator(str(log), size_guidance={"images": 0}).Reload()
    assert [image.step for image in events.Images("validation")] == [2, 4, 5]
    assert {event.step for event in events.Scalars("validation/error_px")} == {2, 4, 5}


def test_a_resumed_training_has_the_same_curve_and_the_best_weights(
    files: tuple[Path, Path], best: Path, tmp_path: Path
) -> None:
    trained(tmp_path, files, selection=selection(), iterations=3)
    trained(tmp_path, files, selection=selection())

    # The last state is measured too; a longer training does not have that measurement.
    assert [row for row in rows(tmp_path) if row["iteration"] != 3] == rows(best)
    lowest = min(rows(best), key=lambda row: row["loss"])
    facts = read_metadata(best / "a/model.safetensors")["validation"]
    assert facts == {"keep": "best", "iteration": lowest["iteration"], "measured": lowest}
    one, other = (load_file(folder / "a/model.safetensors") for folder in (best, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_true_field_has_no_error_and_the_best_correlation(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = FitSettings.model_validate(tiny.training(iterations=1))
    paths = StackPaths([files[0]]), StackPaths([files[1]])
    trainer = build_alignment_trainer(settings, *paths, tmp_path)
    data = trainer.validation and trainer.validation.data
    assert isinstance(data, PairValidation)
    batch = data.batches[0]
    still = torch.zeros_like(batch["source_moved"])
    true, zero = (data.task.quality(field, batch) for field in (tiny.true_field(batch), still))

    assert true["error_px"] == pytest.approx(0, abs=0.1)
    apart = length(batch["source_moved"] - batch["target_moved"]).mean()
    assert zero["error_px"] == pytest.approx(float(apart), rel=0.2)
    assert true["correlation"] is not None and zero["correlation"] is not None
    assert true["correlation"] > zero["correlation"]
    unknown = batch | {"known": torch.zeros_like(batch["known"])}
    assert data.task.quality(still, unknown)["error_px"] is None


def test_a_measurement_has_pairs_of_different_stacks(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = FitSettings.model_validate(tiny.training(iterations=1, pairs_per_step=1))
    several = StackPaths([tiny.write_stacks(tmp_path / "validation.h5", count=3, first=9)])
    trainer = build_alignment_trainer(settings, StackPaths([files[0]]), several, tmp_path)
    data = trainer.validation and trainer.validation.data
    assert isinstance(data, PairValidation)
    plan = data.task.plan
    assert (plan.steps_per_visit, plan.iterations_per_epoch) == (3, 9)
    expected = [data.task.batch(number) for number in (0, 4)]
    assert len({plan.place(number).stack for number in (0, 4)}) == 2
    for batch, same in zip(data.batches, expected, strict=True):
        assert torch.equal(batch["source_image"], same["source_image"])


def test_correlations_are_those_of_the_counted_pixels() -> None:
    one, other = torch.rand(2, 1, 9, 9), torch.rand(2, 1, 9, 9)
    other[1] = 3 * one[1] + 1
    counted = (torch.rand(2, 1, 9, 9) > 0.3).float()
    found = correlations(one, other, counted)
    inside = counted[0] > 0
    expected = torch.corrcoef(torch.stack([one[0][inside], other[0][inside]]))[0, 1]
    assert found.tolist() == pytest.approx([float(expected), 1], abs=1e-5)
    assert correlations(one, torch.ones_like(one), counted).isnan().all()


@given(
    depth=st.integers(1, 200),
    validation=st.floats(0.05, 0.45),
    test=st.floats(0, 0.5),
    count=st.integers(0, 2),
)
def test_splits_follow_each_other(depth: int, validation: float, test: float, count: int) -> None:
    stacks = StackSet(validation_count=count, validation_fraction=validation, test_fraction=test)
    train, measured, tested = (
        sections_of_split(stacks, split, depth) for split in ("train", "validation", "test")
    )
    assert train[0] == 0 and sum(train) == measured[0]
    assert sum(measured) == tested[0] and sum(tested) == depth
    assert tested[1] == int(depth * test) and (count or measured[1] == 0)


def test_a_training_reads_validation_stacks_and_no_test_stacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.write_configuration(tmp_path)
    job = fit_job(Planner(tmp_path, run_config(), uses_containers=True), "slices", "tiny")
    assert job.inputs["validation"] == ["results/slices/stacks/main_validation.h5"]
    assert not any("test" in path for paths in job.files().values() for path in paths)
    never = run_config(validation={"every": "never"})
    assert "validation" not in fit_job(Planner(tmp_path, never), "slices", "tiny").inputs
    assert set(job.paths("validation")) <= {Path(path) for path in job.measured}
    assert not set(job.paths("stacks")) & {Path(path) for path in job.measured}
    best = run_config(validation={"keep": "best"})
    assert fit_job(Planner(tmp_path, best), "slices", "tiny").measured == ()
