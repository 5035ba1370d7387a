"""Diverged networks and empty images end with a message, before a result is replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import zarr

import examples
import predict
import tiny_digits
import tiny_elektronn
import tiny_seamless
import tiny_training as tiny
import tiny_znn
import train
from align import main as align_main
from built_networks import built
from prediction_case import NETWORK, Case, make_case, tiny_network, write_raw
from retrace.alignment.aligned_stack import AlignedStack
from retrace.alignment.aligner import Aligner, AlignmentPlan
from retrace.alignment.detector import Detector
from retrace.alignment.scoring import Scorer, score_stack
from retrace.checkpoints.safetensors import load_model, save_model
from retrace.config.any_network import of_family
from retrace.errors import DataError, StateError
from retrace.evaluation.class_tally import ClassTally
from retrace.evaluation.classes import class_scores
from retrace.geometry import VoxelBox
from retrace.inference.predictor import check_finite
from retrace.inference.tiles import Tile
from retrace.networks.defect_unet import DefectNet
from retrace.settings_model import as_json
from retrace.storage.volumes import Volume

pytestmark = pytest.mark.usefixtures("tiny_threads")
ADAM = {"betas": [0.9, 0.99], "eps": 1e-8}


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return make_case(tmp_path)


def poison(module: torch.nn.Module, value: float) -> None:
    """Sets one weight of a network."""
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] = value


def family_networks(folder: Path) -> dict[str, Any]:
    """The settings of a tiny network of each family."""
    tiny_znn.write_stack(folder)
    return {
        "lsd": of_family(tiny.network()),
        "znn": tiny_znn.network(tiny_znn.dataset(folder)),
        "elektronn": tiny_elektronn.network(),
        "seamless": tiny_seamless.typed(tiny_seamless.network()),
    }


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("lr", [1e30, 1e12])
def test_weights_that_diverge_last_are_not_saved(tmp_path: Path, lr: float) -> None:
    store = tiny.write_volume(tmp_path / "cube.zarr")
    model = tmp_path / "model.safetensors"
    model.write_text("the model before")
    settings = tiny.settings(store, 1, network=tiny.network(optimizer={"lr": lr, **ADAM}))

    with pytest.raises(StateError, match=r"diverged by iteration 1: .*Lower `optimizer.lr`"):
        train.main(tiny.arguments(tmp_path, settings))

    assert model.read_text() == "the model before"
    assert not list(tmp_path.glob("work/*/state_*"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e26])
@pytest.mark.parametrize("family", ["lsd", "znn", "elektronn", "seamless"])
def test_a_model_that_diverged_is_not_loaded(tmp_path: Path, family: str, value: float) -> None:
    network = family_networks(tmp_path)[family]
    module = built(network)
    poison(module, value)
    path = save_model(tmp_path / "model.safetensors", module, {"network": network.plain()})

    with pytest.raises(DataError, match="the training diverged: train this network again"):
        load_model(path, built(network), network)


def test_training_on_raw_of_zeros_is_refused(tmp_path: Path) -> None:
    store = tiny.write_volume(tmp_path / "cube.zarr")
    zarr.open_group(store, mode="r+")["raw"][...] = 0

    with pytest.raises(DataError, match="raw is 0 in the whole requested box"):
        train.main(tiny.arguments(tmp_path, tiny.settings(store, 2)))


def test_an_alignment_that_compares_nothing_in_training_is_refused(tmp_path: Path) -> None:
    stacks = tiny_seamless.write_stacks(tmp_path / "stacks.h5")
    with h5py.File(stacks, "r+") as file:
        file["main/images"][...] = 0
    paths = {
        "--work": tmp_path / "work",
        "--runs": tmp_path / "runs",
        "--output": tmp_path / "model.safetensors",
        "--history": tmp_path / "training.json",
        "--stacks": stacks,
    }
    settings = as_json(tiny_seamless.training(iterations=2))

    with pytest.raises(StateError, match="nothing was compared in 2 iterations"):
        align_main(
            ["train", "--settings", settings, *(str(p) for pair in paths.items() for p in pair)]
        )

    assert not (tmp_path / "model.safetensors").exists()


# ---------------------------------------------------------------- prediction


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_predictions_that_are_no_numbers_are_refused(case: Case, dtype: str) -> None:
    """Each weight is allowed, but their products overflow to infinity minus infinity."""
    module = tiny_network()
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(1e8)
    save_model(case.model, module, {"network": NETWORK.plain()})

    with pytest.raises(DataError, match=r"predicts NaN or infinity \(.*\) in the tile at \["):
        predict.main(case.arguments(dtype=dtype))

    assert not case.output.exists()


def test_an_output_that_is_not_finite_is_named() -> None:
    tile = Tile(VoxelBox((4, 0, 0), (2, 2, 2)), VoxelBox((0, 0, 0), (10, 10, 10)))
    outputs = {"affs": torch.ones(3, 2, 2, 2), "lsds": torch.ones(10, 2, 2, 2)}
    check_finite(outputs, tile)
    outputs["affs"][0] = 3e38  # only their sum is infinite
    check_finite(outputs, tile)
    outputs["lsds"][0, 0, 0, 0] = torch.inf

    with pytest.raises(DataError, match=r"\(lsds\) in the tile at \[4, 0, 0\]\+\[2, 2, 2\]"):
        check_finite(outputs, tile)


def test_raw_of_zeros_is_not_predicted(case: Case) -> None:
    shape = (40, 60, 58)
    write_raw(case.folder / "empty.zarr", shape, np.zeros(shape, np.uint8))
    volume = {"raw": {"path": str(case.folder / "empty.zarr"), "array": "volumes/raw"}}

    with pytest.raises(DataError, match="there is no image"):
        predict.main(case.arguments(volume={**volume, "roi_nm": None}))

    assert not case.output.exists()


def test_an_empty_shard_of_an_image_is_predicted(case: Case) -> None:
    shape = (40, 60, 58)
    values = np.zeros(shape, np.uint8)
    values[-20:] = 100
    write_raw(case.folder / "half.zarr", shape, values)
    volume = {"raw": {"path": str(case.folder / "half.zarr"), "array": "volumes/raw"}}
    arguments = case.arguments(volume={**volume, "roi_nm": None})

    predict.main([*arguments, "--shard", "1-of-2"])

    assert case.output.exists()


def test_single_examples_whose_predictions_are_no_numbers_are_refused(tmp_path: Path) -> None:
    data = tiny_digits.dataset(tmp_path)
    network = tiny_digits.network(data, MLP_layers=[12, 12, 12, 12], activation_func="relu")
    module = built(network)
    with torch.no_grad():
        for weight in module.parameters():
            weight.fill_(1e9)
    metadata = {"network": network.plain(), "input_mean": 0.0, "iteration": 1}
    model = save_model(tmp_path / "model.safetensors", module, metadata)
    dataset = {"name": data.name, "examples": data.examples.plain()}
    settings = {"dataset": dataset, "network": network.plain(), "seed": 0, "device": "cpu"}
    output = tmp_path / "predictions.h5"
    paths = ["--model", str(model), "--output", str(output)]

    with pytest.raises(DataError, match="predicts NaN or infinity: its training diverged"):
        examples.main(["predict", "--settings", as_json(settings), *paths])
    assert not output.exists()


class NotANumber(DefectNet):
    """Stand-in for a network whose activations overflow."""

    def forward(self, sections: torch.Tensor) -> torch.Tensor:
        return torch.full((len(sections), 2, *sections.shape[2:]), torch.nan)


def test_a_detector_that_predicts_no_numbers_finds_no_defects() -> None:
    detector = Detector(NotANumber(1), threshold=0.4, smallest_px=4, near_px=3)
    section = np.arange(32 * 32, dtype=np.float32).reshape(1, 32, 32) / 1024

    with pytest.raises(DataError, match="predicts NaN: its training diverged"):
        detector(section)


def test_a_field_that_is_no_number_is_not_applied(tmp_path: Path) -> None:
    network = tiny_seamless.typed(tiny_seamless.network())
    module = built(network)
    poison(module, float("nan"))
    images = tiny_seamless.stack(2, 3, 96).images.mul(255).round().to(torch.uint8).numpy()
    sections = Volume(images, (40, 8, 8), (0, 0, 0), "sections")
    stack = AlignedStack(tmp_path / "a.zarr", tmp_path / "work", sections, None)
    plan = AlignmentPlan.of(network.align)

    with pytest.raises(DataError, match="the field of section 1 reaches nan px"):
        Aligner(module.eval(), plan, torch.device("cpu"), radius_px=None, fill=0.5).run(stack)


# ---------------------------------------------------------------- scores


def scored_volume(values: np.ndarray, name: str) -> Volume:
    """An array (Z, Y, X) or (C, Z, Y, X) as a volume."""
    return Volume(values, (40, 8, 8), (0, 0, 0), name)


def test_an_alignment_of_blank_sections_has_no_score() -> None:
    rng = np.random.default_rng(0)
    sections = scored_volume(rng.integers(1, 255, (3, 48, 48), np.uint8), "sections")
    blank = scored_volume(np.zeros((3, 48, 48), np.uint8), "aligned")
    field = scored_volume(np.zeros((2, 3, 48, 48), np.float32), "field")

    score_stack(Scorer(sections, sections, field, None), 2)
    with pytest.raises(DataError, match="nothing was compared in all sections of aligned"):
        score_stack(Scorer(sections, blank, field, None), 2)
    with pytest.raises(DataError, match="nothing was compared in all sections of aligned"):
        score_stack(Scorer(blank, blank, field, None), 2)


def test_class_probabilities_that_are_no_numbers_have_no_score() -> None:
    tally = ClassTally(2)
    probabilities = np.full((2, 1, 2, 2), np.nan)

    with pytest.raises(DataError, match="labels holds NaN"):
        tally.add(probabilities, np.zeros((1, 2, 2), np.int64), "labels")


def test_classes_without_a_labelled_voxel_have_no_score() -> None:
    tally = ClassTally(2)
    tally.add(np.full((2, 1, 2, 2), 0.5), np.full((1, 2, 2), -1), "labels")

    with pytest.raises(DataError, match="no voxel of the test entries has a label"):
        class_scores(tally)
