"""Validation during a training: the weights stay the same, and a killed one has the same curve."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tiny_training
import train
from built_networks import built
from kill import interrupt
from planned_cubes import content as dataset_content
from planned_cubes import part, plan, write_cubes
from retrace.checkpoints.safetensors import read_metadata
from retrace.config.networks import network_by_name
from retrace.config.validation_model import Validation, is_due
from retrace.errors import ConfigError, DataError
from retrace.geometry import VoxelBox, clear_of
from retrace.planning.experiment import Planner
from retrace.planning.train import train_job
from retrace.planning.train_settings import read_train_settings
from retrace.planning.validation_checks import boxes_of_test, check_validation, labelled_validation
from retrace.storage.volumes import Volume
from retrace.training.build import build_trainer
from retrace.training.task import Measurement, Picture
from retrace.training.validation import ValidationCurve, undisturbed
from retrace.training.validation_patches import (
    LabelledAffinities,
    PatchValidation,
    threshold_scores,
)
from retrace.training.validation_picture import validation_image
from retrace.training.volumes import _read_mirrored
from run_config import run_config

ITERATIONS = 24
EVERY = 4


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a volume to train on, one for validation, and one for test."""
    folder = tmp_path_factory.mktemp("validation")
    for seed, name in enumerate(("cube", "held_out", "tested")):
        tiny_training.write_volume(folder / f"{name}.zarr", seed)
    return folder


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """A training that is measured on `held_out`."""
    volumes = {
        name: {p: {"path": str(folder / f"{name}.zarr"), "array": p} for p in ("raw", "labels")}
        for name in ("cube", "held_out", "tested")
    }
    entry = {"volume": "held_out", "roi_nm": None, "probability": 1.0, "exclude_nm": []}
    data = tiny_training.dataset(folder / "cube.zarr", volumes=volumes, validation=[entry])
    return tiny_training.settings(folder / "cube.zarr", ITERATIONS, dataset=data, **changes)


def trained(folder: Path, chosen: dict[str, Any]) -> dict[str, Any]:
    """Trains in `folder`; returns training.json."""
    train.main(tiny_training.arguments(folder, chosen))
    content: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return content


def selection(**changes: Any) -> dict[str, Any]:
    return {"every": EVERY, "keep": "last", "patience": None} | changes


@pytest.fixture(scope="module")
def measured(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that keeps its last state."""
    folder = tmp_path_factory.mktemp("measured")
    trained(folder, settings(stores, validate_every=EVERY))
    return folder


@pytest.fixture(scope="module")
def best(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that keeps its best state."""
    folder = tmp_path_factory.mktemp("best")
    trained(folder, settings(stores, selection=selection(keep="best")))
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    content = json.loads((folder / "training.json").read_text())
    return list(content["validation"]["rows"])


def test_the_weights_are_the_same_bits_as_without_validation(
    measured: Path, stores: Path, tmp_path: Path
) -> None:
    content = trained(tmp_path, settings(stores, validate_every="never"))
    assert content["validation"] is None
    one, other = (load_file(f / "model.safetensors") for f in (measured, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_curve_has_loss_terms_and_voi_of_each_interval(measured: Path) -> None:
    curve = rows(measured)
    assert [row["iteration"] for row in curve] == list(range(EVERY, ITERATIONS + 1, EVERY))
    for row in curve:
        assert row["loss"] == pytest.approx(row["lsds"] + row["affs"], rel=1e-6)
        assert row["voi_sum"] == pytest.approx(row["voi_split"] + row["voi_merge"])
        assert 0 <= row["threshold"] < 1
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_tensorboard_has_scalars_and_pictures(measured: Path) -> None:
    (folder,) = measured.glob("work/*/log")
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    loss = {event.step: event.value for event in events.Scalars("validation/loss")}
    assert loss == pytest.approx({row["iteration"]: row["loss"] for row in rows(measured)})
    pictures = events.Images("validation")
    assert [picture.step for picture in pictures] == [row["iteration"] for row in rows(measured)]
    assert pictures[0].height > pictures[0].width / 4 > 0


def test_the_best_state_is_the_one_of_the_lowest_loss(best: Path, measured: Path) -> None:
    curve = rows(best)
    assert curve == rows(measured)
    lowest = min(curve, key=lambda row: row["loss"])
    facts = read_metadata(best / "model.safetensors")["validation"]
    assert facts == {"keep": "best", "iteration": lowest["iteration"], "measured": lowest}


def test_a_killed_training_has_the_same_curve_and_keeps_the_same_state(
    best: Path, stores: Path, tmp_path: Path
) -> None:
    chosen = settings(stores, selection=selection(keep="best"))
    interrupt(
        "train.py",
        tiny_training.arguments(tmp_path, chosen),
        lambda: any(tmp_path.glob("work/*/state_*12.pt")),
        lambda: shutil.rmtree(tmp_path / "work"),
    )
    trained(tmp_path, chosen)
    assert rows(tmp_path) == rows(best)
    one, other = (load_file(f / "model.safetensors") for f in (best, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_no_test_data_is_opened(stores: Path, measured: Path) -> None:
    content = json.loads((measured / "training.json").read_text())
    opened = json.dumps(content["origin"])
    assert "held_out" in opened and "cube.zarr" in opened
    read = [str(path) for path in content["origin"].get("inputs", {})]
    assert read and not any("tested" in path for path in read)


def test_a_validation_box_thinner_than_a_patch_is_measured(stores: Path, tmp_path: Path) -> None:
    chosen = settings(stores)
    (entry,) = chosen["dataset"]["validation"]
    entry["roi_nm"] = {"offset": [100, 0, 0], "shape": [30, 400, 400]}
    trainer = build_trainer(read_train_settings(chosen), {}, tmp_path)
    data = trainer.validation and trainer.validation.data
    assert isinstance(data, PatchValidation)
    for batch in data.batches:
        known = batch["labels_mask"].flatten(1).any(1)
        assert 1 <= int(known.sum()) <= 3  # of 8 sections
        assert (batch["raw"] > -1).float().mean() > 0.99  # beyond the box, too


def test_raw_of_a_test_box_changes_no_measurement(tmp_path: Path) -> None:
    """The test box is next to a validation box thinner than a patch; training has the rest."""
    batches = []
    boxes = [{"offset": [o, 0, 0], "shape": [n, 400, 400]} for o, n in ((200, 60), (260, 140))]
    raw, labels = tiny_training.blobs(1)
    for value in (0, 255):
        raw[26:], labels[26:] = value, 1
        store = tmp_path / f"{value}.zarr"
        tiny_training.write_array(store, "raw", raw)
        tiny_training.write_array(store, "labels", labels)
        entry = {"volume": "cube", "roi_nm": boxes[0], "probability": 1.0, "exclude_nm": [boxes[1]]}
        data = tiny_training.dataset(store, validation=[entry])
        chosen = read_train_settings(tiny_training.settings(store, 1, dataset=data))
        trainer = build_trainer(chosen, {}, tmp_path)
        measured = trainer.validation and trainer.validation.data
        assert isinstance(measured, PatchValidation)
        batches.append(measured.batches)
    for one, other in zip(*batches, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_context_beside_a_test_box_is_mirrored() -> None:
    raw = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    volume = Volume(raw, (10, 10, 10), (0, 0, 0), "raw")
    visible = clear_of(volume.box, VoxelBox((2, 0, 0), (2, 5, 6)), VoxelBox((0, 0, 0), (1, 5, 6)))
    assert visible == VoxelBox((0, 0, 0), (2, 5, 6))
    read = _read_mirrored(volume, VoxelBox((-1, -2, 0), (6, 5, 6)), visible)
    expected = raw[[0, 0, 1, 1, 0, 0]][:, [1, 0, 0, 1, 2]]
    np.testing.assert_array_equal(read, expected)


boxes = st.builds(
    VoxelBox, st.tuples(*[st.integers(-9, 9)] * 3), st.tuples(*[st.integers(1, 9)] * 3)
)


@given(kept=boxes, grown=st.tuples(*[st.integers(0, 9)] * 3), hole=boxes, axis=st.integers(0, 2))
def test_what_is_clear_of_a_hole_contains_what_is_kept(
    kept: VoxelBox, grown: tuple[int, int, int], hole: VoxelBox, axis: int
) -> None:
    """The hole is moved along an axis until it is next to what is kept."""
    box, steps = kept.grow(grown), [0, 0, 0]
    if not kept.intersect(hole).is_empty:
        steps[axis] = kept.end[axis] - hole.offset[axis]
    hole = hole.shift(steps)
    part = clear_of(box, hole, kept)
    assert box.contains(part) and part.contains(kept) and part.intersect(hole).is_empty


class Losses:
    """Validation data with given losses."""

    identity = "given"

    def __init__(self, *losses: float | None) -> None:
        self.losses = list(losses)

    def is_due(self, iteration: int) -> bool:
        return True

    def measure(self, module: torch.nn.Module, iteration: int) -> Measurement:
        return Measurement({"loss": self.losses[iteration - 1]})


def curve_of(losses: list[float | None], **chosen: Any) -> tuple[ValidationCurve, torch.nn.Linear]:
    """A curve after these losses, of a network whose bias is the iteration."""
    module = torch.nn.Linear(1, 1)
    curve = ValidationCurve(Losses(*losses), Validation(**chosen))
    for iteration in range(1, len(losses) + 1):
        module.bias.data.fill_(iteration)
        curve.measure_if_due(module, iteration, None)
    return curve, module


def test_of_equal_losses_the_first_state_is_kept_and_unknown_ones_never() -> None:
    curve, module = curve_of([None, 3.0, 1.0, 1.0, float("nan"), 2.0], keep="best")
    kept = curve.in_best_state(module)
    assert isinstance(kept, torch.nn.Linear) and float(kept.bias.item()) == 3
    assert curve.facts(6)["iteration"] == 3
    assert float(module.bias.item()) == 6


@pytest.mark.parametrize(
    ("losses", "stalled"),
    [([3.0, 2.0, 1.0], False), ([1.0, 2.0], False), ([1.0, 2.0, 1.0], True), ([None] * 5, False)],
)
def test_patience_counts_measurements_without_a_lower_loss(
    losses: list[float | None], stalled: bool
) -> None:
    curve, _ = curve_of(losses, patience=2)
    assert curve.has_stalled is stalled


def test_a_training_ends_early_and_stays_ended(stores: Path, tmp_path: Path) -> None:
    rising = tiny_training.network(
        optimizer={"lr": 1e-12, "betas": [0.95, 0.999], "eps": 1e-8, "average": None}
    )
    chosen = settings(stores, selection=selection(patience=1), network=rising)
    content = trained(tmp_path, chosen)
    ended = content["iterations"]
    assert content["validation"]["stopped_early"] and ended < ITERATIONS
    assert trained(tmp_path, chosen)["iterations"] == ended


def test_measurements_on_other_data_are_not_continued(
    capsys: pytest.CaptureFixture[str],
) -> None:
    curve, _ = curve_of([3.0, 1.0], keep="best")
    state = curve.state()
    other = ValidationCurve(Losses(), Validation(keep="best"))
    other.resume(state)
    assert (other.rows, other.best and other.best.iteration) == (curve.rows, 2)
    assert not capsys.readouterr().out
    other = ValidationCurve(Losses(), Validation(keep="best"))
    other.resume({**state, "data": "other"})
    assert (other.rows, other.best) == ([], None)
    assert "on other validation data and are left out" in capsys.readouterr().out


def test_a_measurement_leaves_modes_and_random_numbers_as_they_are() -> None:
    module = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.BatchNorm3d(1).eval())
    torch.manual_seed(1)
    with undisturbed(module):
        assert not any(part.training for part in module.modules())
        torch.rand(3)
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after)
    assert [part.training for part in module] == [True, False]


def test_the_automatic_interval_grows_with_the_training() -> None:
    due = [iteration for iteration in range(1, 20001) if is_due(iteration, "auto")]
    assert due[:4] == [32, 64, 96, 128]
    assert [b - a for a, b in zip(due[-4:], due[-3:], strict=False)] == [1024] * 3
    assert all(b - a <= max(32, a / 8) for a, b in zip(due, due[1:], strict=False))
    assert [i for i in range(1, 25) if is_due(i, 10)] == [10, 20]
    assert not any(is_due(i, "never") for i in range(1, 100))


def test_two_objects_have_a_voi_of_0_apart_and_of_1_bit_together() -> None:
    labels = torch.ones(12, 12, 27, dtype=torch.int64)
    labels[..., 12:15] = 0
    labels[..., 15:] = 2
    apart = (labels > 0).float().expand(3, *labels.shape)
    for affinities, voi in ((apart, 0.0), (torch.ones_like(apart), 1.0)):
        scores = threshold_scores(LabelledAffinities(affinities, labels), in_xy=False)
        assert scores is not None
        assert min(one["voi_sum"] for one in scores) == pytest.approx(voi, abs=1e-9)
    assert threshold_scores(LabelledAffinities(apart, labels * 0), in_xy=False) is None


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_affinities_without_a_fragment_are_scored_as_one_segment(value: float) -> None:
    labels = torch.ones(8, 8, 8, dtype=torch.int64)
    labels[:4] = 2
    affinities = torch.full((3, 8, 8, 8), value)
    scores = threshold_scores(LabelledAffinities(affinities, labels), in_xy=False)
    assert scores is not None and scores[0]["voi_sum"] == pytest.approx(1)


def test_a_picture_shows_raw_target_and_prediction_of_one_place() -> None:
    raw = torch.zeros(5, 12, 12)
    raw[2, 4:8, 4:8] = 1  # what the output covers
    truth = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    truth[0] = 255
    predicted = torch.full((3, 1, 4, 4), 128, dtype=torch.uint8)
    pictures = {
        "raw": Picture(raw, (0, 0, 0)),
        "gt_affs": Picture(truth, (0, 0, 0)),
        "pred_affs": Picture(predicted, (0, 0, 0)),
    }
    image = validation_image(pictures)
    assert image is not None and image.shape == (160, 3 * 160 + 2 * 4, 3)
    at = [tuple(image[80, x]) for x in (162, 244, 408)]
    assert at == [(255, 255, 255), (255, 0, 0), (128, 128, 128)]
    assert validation_image({"raw": Picture(raw, (0, 0, 0))}) is None


def test_a_choice_without_validation_data_is_refused(stores: Path, tmp_path: Path) -> None:
    chosen = tiny_training.settings(stores / "cube.zarr", 2, selection=selection(keep="best"))
    with pytest.raises(DataError, match="keep: last"):
        trained(tmp_path, chosen)


def run_planner(**changes: Any) -> Planner:
    return Planner(Path(), run_config(**changes), uses_containers=True)


def planned(dataset: str, network: str, **changes: Any) -> Any:
    return train_job(run_planner(**changes), dataset, network)


def test_a_validation_entry_that_is_tested_measures_nothing() -> None:
    planner = Planner(Path(), run_config(), uses_containers=True)
    data = planner.dataset("vnc_nc")
    assert [entry.volume for entry in labelled_validation(data)] == ["stack"]
    same = data.model_copy(update={"test": data.validation})
    assert labelled_validation(same) == []
    (box,) = boxes_of_test(data, "stack")
    assert box.offset == (400, 0, 0)


@pytest.mark.parametrize(
    "network", ["n4", "vd2d3d", "srini", "neuro3d_doc", "mtlsd", "mtlsd_small"]
)
def test_the_smallest_validation_box_is_what_the_training_needs(network: str) -> None:
    settings = network_by_name(network, (10, 10, 10))
    module = built(settings, device="meta")
    raw, labels = settings.measured_shapes
    if settings.predict_padding != "symmetric":
        assert tuple(raw) == module.valid_shape(labels)


def test_a_training_waits_for_validation_volumes_and_for_no_test_volume() -> None:
    job = planned("phantom", "mtlsd_small")
    read = " ".join(path for paths in job.files().values() for path in paths)
    assert "val_0" in read and "test_0" not in read
    job = planned("phantom", "mtlsd_small", validation={"every": "never"})
    assert not any("val_0" in path for paths in job.files().values() for path in paths)
    assert job.settings.dataset.validation == ()


def test_files_of_validation_volumes_only_measure_unless_they_decide() -> None:
    job = planned("phantom", "mtlsd_small")
    read = [path for paths in job.files().values() for path in paths]
    assert set(job.measured) == {path for path in read if "val_0" in path}
    assert {Path(path).parent.name for path in job.measured} == {"phantom", "masks"}
    for chosen in ({"keep": "best"}, {"patience": 3}):
        assert planned("phantom", "mtlsd_small", validation=chosen).measured == ()


def test_validation_data_decide_where_an_action_waits_for_them() -> None:
    network = run_planner().network("mnist", "cnn_warp")
    for of, follows in (("validation_loss", True), ("train_loss", False)):
        action = {"on_plateau": {"of": of, "patience": 3}, "set": {"lr": 0.1}}
        assert network.with_(actions=[action]).follows_validation is follows
    assert not network.with_(actions=[{"at_iteration": 3, "set": {"lr": 0.1}}]).follows_validation


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": {"keep": "best", "every": "never"}}, "exclude each other"),
        ({"validation": {"patience": 3}, "engine": "legacy"}, "engine: modern"),
    ],
)
def test_settings_that_exclude_each_other_are_refused_while_planning(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        planned("phantom", "mtlsd_small", **changes)


@pytest.mark.parametrize(
    ("dataset", "network", "message"),
    [
        ("zfinch", "mtlsd", "no `validation` entry"),
        ("phantom_sections", "seamless_small", "has a `validation_count`"),
    ],
)
def test_the_best_state_is_refused_without_validation_data(
    dataset: str, network: str, message: str
) -> None:
    planner = Planner(Path(), run_config(validation={"keep": "best"}), uses_containers=True)
    data, net = planner.dataset(dataset), planner.network(dataset, network)
    if dataset == "zfinch":
        data = data.model_copy(update={"validation": ()})
    with pytest.raises(ConfigError, match=message):
        check_validation(planner.config, data, net)


@pytest.mark.parametrize("network", ["n4", "neuro3d_doc"])
def test_a_box_smaller_than_a_patch_is_refused_while_planning(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cubes(tmp_path)
    small = dataset_content(validation=[part("a", [0, 0, 0], [10, 10, 10])])
    with pytest.raises(ConfigError, match=r"none fits into volume 'a': there are \[.*patch has \["):
        plan(small, {"validation": {"keep": "best"}}, "train", network=network)
    plan(small, None, "train", network=network)
