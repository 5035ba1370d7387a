"""The defect network: its masks, its training, and masks of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import defects
from retrace.alignment.defect_training import (
    DefectPatches,
    area_under_curve,
    is_missing,
    score_detector,
    scores_text,
    with_artificial_defects,
)
from retrace.alignment.detector import CENTRE, CORNER, EDGE, Detector, standardise, without_specks
from retrace.alignment.stack_files import StackDataset
from retrace.augment.artificial_defects import DRAW
from retrace.errors import DataError
from retrace.networks.defect_unet import REACH, DefectNet

DETECTOR: dict[str, Any] = {"threshold": 0.4, "smallest_px": 4, "near_px": 3}
TRAINING: dict[str, Any] = {
    "labelled": [],
    "iterations": 6,
    "batch_size": 1,
    "side": 32,
    "learning_rate": 1e-3,
    "fmaps": 1,
    **DETECTOR,
}


class Bright(DefectNet):
    """Stand-in for a trained network: pixels brighter than the mean are defects of class 1."""

    def forward(self, sections: torch.Tensor) -> torch.Tensor:
        return torch.cat((torch.full_like(sections, -20), sections.sign() * 20), 1)


def test_the_network_has_the_published_number_of_parameters() -> None:
    network = DefectNet()

    assert sum(p.numel() for p in network.parameters()) == 2_923_330
    assert network(torch.zeros(1, 1, 32, 48)).shape == (1, 2, 32, 48)


def test_the_blur_sums_to_1_and_sections_are_standardised_each() -> None:
    stack = torch.rand(3, 16, 16) * torch.tensor([1.0, 50.0, 255.0])[:, None, None]
    standardised = standardise(stack)

    assert pytest.approx(1) == CENTRE + 4 * EDGE + 4 * CORNER
    assert torch.allclose(standardised.mean((2, 3)), torch.zeros(3, 1), atol=1e-5)
    assert torch.allclose(standardised.std((2, 3)), torch.ones(3, 1), atol=1e-4)


def test_small_pieces_go_and_diagonal_neighbours_are_one_piece() -> None:
    mask = np.zeros((9, 9), bool)
    mask[0, 0] = mask[1, 1] = mask[2, 2] = True
    mask[7, 7] = mask[7, 8] = True

    assert without_specks(mask, 3).sum() == 3
    assert without_specks(mask, 4).sum() == 0
    assert without_specks(mask, 0).sum() == 5


@pytest.mark.parametrize("sections", [1, 2, 7])
def test_masks_are_ternary_whatever_the_height(sections: int) -> None:
    """A bright square of 6 px: grown by the maximum of 3 x 3, then 3 px of its surroundings."""
    stack = np.full((sections, 40, 50), 20, np.uint8)
    stack[:, 10:16, 20:26] = 220
    masks = Detector(Bright(1), **DETECTOR)(stack)

    assert masks.shape == stack.shape
    assert masks.dtype == np.uint8
    rows, columns = np.nonzero(masks[0] == 2)
    assert (rows.min(), columns.min()) in [(8, 18), (9, 19)]
    near = np.nonzero(masks[0] == 1)[0]
    assert near.min() == rows.min() - 3
    assert (masks == masks[:1]).all()


def test_a_section_of_one_value_is_a_defect_as_a_whole() -> None:
    stack = np.zeros((2, 32, 32), np.uint8)
    stack[1] = np.arange(32)
    masks = Detector(Bright(1), **DETECTOR)(stack)

    assert (masks[0] == 2).all()
    assert not (masks[1] == 2).all()
    with pytest.raises(DataError, match="is needed"):
        Detector(Bright(1), **DETECTOR)(np.zeros((0, 32, 32), np.uint8))


def test_tiles_give_the_same_result_as_the_whole() -> None:
    side = 2 * REACH + 96
    section = torch.rand(side, side, generator=torch.Generator().manual_seed(0))
    network = DefectNet(1, seed=3)
    whole = Detector(network, **DETECTOR, tile=side).logits(section)
    tiled = Detector(network, **DETECTOR, tile=48).logits(section[:, : side // 2 + 40])
    whole_part = Detector(network, **DETECTOR, tile=side).logits(section[:, : side // 2 + 40])

    assert whole.shape == (2, side, side)
    assert torch.allclose(tiled, whole_part, atol=1e-4)


def test_missing_areas_are_detected_and_dark_pixels_are_not() -> None:
    image = torch.ones(20, 20)
    image[3, 3] = 0
    image[10:16, 10:16] = 0
    missing = is_missing(image)

    assert int(missing.sum()) == 36
    assert not missing[3, 3]


def test_artificial_defects_agree_with_their_labels() -> None:
    """The labels are the filled pixels: no class outside the defect, no defect without one."""
    image = torch.full((64, 64), 0.5)
    kinds = set()
    for seed in range(12):
        patch = with_artificial_defects(
            image, torch.zeros(64, 64, dtype=torch.bool), np.random.default_rng(seed)
        )
        assert patch.known
        assert torch.equal(patch.classes.any(0), patch.defect)
        kinds |= {tuple(patch.classes.any((1, 2)).tolist())}

    assert {(True, True), (False, False)} <= kinds


def test_patches_depend_on_their_number_alone(tmp_path: Path) -> None:
    data = StackDataset([stacks_file(tmp_path / "a.h5")])
    patches = DefectPatches(data, TRAINING["side"], 3)
    one, again, other = (patches.patch(n) for n in (5, 5, 6))

    assert torch.equal(one.image, again.image)
    assert not torch.equal(one.image, other.image)
    assert not set(patches.train) & set(patches.test)
    with pytest.raises(DataError, match="smaller than the patches"):
        DefectPatches(data, 64, 3)


def test_each_kind_is_scored_by_itself_on_stacks_that_are_held_out(tmp_path: Path) -> None:
    """A perfect detector scores 1; a random one has half the area under the curve."""
    data = StackDataset([stacks_file(tmp_path / "a.h5")])
    held_out = StackDataset([stacks_file(tmp_path / "b.h5")])
    patches = DefectPatches(data, TRAINING["side"], 3, held_out)
    answers = {}
    for number in range(6):
        for kinds in (None, (), *((kind,) for kind in DRAW)):
            patch = patches.patch(number, test=True, kinds=kinds)
            answers[patch.image.numpy().tobytes()] = patch.defect

    class Knows(Detector):
        def smoothed(self, section: torch.Tensor) -> torch.Tensor:
            return answers[section.numpy().tobytes()].float()

    settings: dict[str, Any] = {"threshold": 0.4, "smallest_px": 1, "near_px": 2}
    scores = score_detector(Knows(DefectNet(2), **settings), patches, 6)

    assert list(patches.train) == list(range(4)) == list(patches.test)
    assert set(scores) == {"all", *DRAW}
    for one in scores.values():
        assert [one[name] for name in ("precision", "recall", "iou", "auc")] == [1, 1, 1, 1]
        assert 0 < float(one["defect_share"] or 0) < 1
    assert len(scores_text(scores).splitlines()) == 5


def test_the_area_under_the_curve_counts_pairs() -> None:
    assert area_under_curve(np.array([[0, 0, 3], [2, 0, 0]])) == 1
    assert area_under_curve(np.array([[1, 1], [1, 1]])) == 0.5
    assert area_under_curve(np.array([[1, 0, 1], [0, 1, 0]])) == 0.5
    assert area_under_curve(np.array([[0, 0], [1, 1]])) is None


def stacks_file(path: Path, **more: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["made/images"] = rng.integers(1, 255, (4, 2, 40, 40), np.uint8)
        for name, data in more.items():
            file[f"made/{name}"] = data
    return path


def train(folder: Path, stacks: Path, iterations: int = 6, **changes: Any) -> Path:
    settings = {
        "defects": TRAINING | {"iterations": iterations} | changes,
        "seed": 1,
        "device": "cpu",
    }
    model = folder / "defects.safetensors"
    arguments = ["train", "--settings", json.dumps(settings), "--stacks", str(stacks)]
    arguments += ["--work", str(folder / "work"), "--history", str(folder / "history.json")]
    defects.main([*arguments, "--output", str(model)])
    return model


def test_an_interrupted_training_ends_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrace.alignment import defect_training

    monkeypatch.setattr(defect_training, "CHECKPOINT_EVERY", 2)
    stacks = stacks_file(tmp_path / "a.h5")
    whole = train(tmp_path / "whole", stacks)
    step = defect_training.DefectTraining._step

    def killed(self: Any, iteration: int) -> torch.Tensor:
        if iteration == 4:
            raise KeyboardInterrupt
        return step(self, iteration)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(defect_training.DefectTraining, "_step", killed)
        train(tmp_path / "cut", stacks)
    resumed = train(tmp_path / "cut", stacks)
    histories = [json.loads((tmp_path / n / "history.json").read_text()) for n in ("whole", "cut")]

    assert whole.read_bytes() == resumed.read_bytes()
    assert histories[0]["losses"] == histories[1]["losses"]
    assert len(histories[0]["losses"]) == 6
    assert not list(tmp_path.glob("*/work_*"))


def test_masks_of_a_file_have_its_sets_and_keep_existing_masks(tmp_path: Path) -> None:
    own_masks = np.zeros((4, 2, 40, 40), np.uint8)
    own_masks[0, 0, 0, 0] = 2
    stacks = stacks_file(tmp_path / "a.h5", masks=own_masks)
    model = train(tmp_path, stacks, iterations=1)
    written = {}
    for keep in (True, False):
        settings = {**DETECTOR, "threshold": 1.0, "keep_given": keep, "device": "cpu"}
        output = tmp_path / f"masks_{keep}.h5"
        arguments = ["mask", "--settings", json.dumps(settings), "--model", str(model)]
        defects.main([*arguments, "--stacks", str(stacks), "--output", str(output)])
        written[keep] = StackDataset([stacks], [output])[0].masks

    assert int(written[True][0, 0, 0]) == 2
    assert not written[False].any()
    assert (tmp_path / "masks_True.manifest.json").is_file()


def test_labelled_files_without_labels_are_refused(tmp_path: Path) -> None:
    stacks = stacks_file(tmp_path / "a.h5")
    other = stacks_file(tmp_path / "b.h5")
    settings = {"defects": TRAINING, "seed": 1, "device": "cpu"}
    arguments = ["train", "--settings", json.dumps(settings), "--stacks", str(stacks)]
    arguments += ["--labelled", str(other), "--work", str(tmp_path / "w")]
    arguments += ["--history", str(tmp_path / "h.json"), "--output", str(tmp_path / "m")]
    with pytest.raises(DataError, match="no array 'masks'"):
        defects.main(arguments)
