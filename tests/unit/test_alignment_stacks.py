"""Stacks in files, and the generated ones: shapes, names, lazy reading, known displacements."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import zarr
from torch.utils.data import DataLoader

from retrace.alignment.stack_files import Stack, StackDataset, stack_sets
from retrace.augment.artificial_defects import DRAW, apply_defect, pull
from retrace.errors import ConfigError, DataError
from retrace.synthetic.distorted_sections import Distortion, distort_sections, phantom_stack


def write(path: Path, **groups: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for name, arrays in groups.items():
            for array, data in arrays.items():
                file.create_dataset(f"{name}/{array}", data=data)
    return path


def numbered(samples: int, first: int = 0) -> np.ndarray:
    """(N, 3, 8, 8) uint8, each sample of one value."""
    return np.repeat(np.arange(first, first + samples, dtype=np.uint8), 192).reshape(-1, 3, 8, 8)


def first_value(stack: Stack) -> int:
    return round(float(stack.images[0, 0, 0]) * 255)


def test_samples_of_several_files_and_sets_follow_each_other(tmp_path: Path) -> None:
    one = write(tmp_path / "a.h5", b={"images": numbered(2)}, a={"images": numbered(3, 10)})
    with h5py.File(tmp_path / "old.h5", "w") as file:  # as SEAMLeSS wrote it
        file["pinky"] = numbered(1, 50) / 1.0
    data = StackDataset([one, tmp_path / "old.h5"])
    values = [first_value(data[index]) for index in range(len(data))]

    assert len(data) == 6
    assert values == [10, 11, 12, 0, 1, 50]
    assert [data[i].name for i in (0, 3, 5)] == ["a[0]", "b[0]", "pinky[0]"]
    assert data[0].images.dtype == torch.float32
    assert data[0].masks.dtype == torch.uint8
    assert not data[0].masks.any()


def test_workers_read_what_one_process_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", a={"images": numbered(5)})
    data = StackDataset([path])
    copy = pickle.loads(pickle.dumps(data))
    loader = DataLoader(data, batch_size=None, num_workers=2)

    assert [first_value(s) for s in loader] == [0, 1, 2, 3, 4]
    assert first_value(copy[4]) == 4


def test_zarr_and_h5_hold_the_same(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_group("x").create_array("images", data=numbered(2, 7), chunks=(1, 1, 8, 8))
    data = StackDataset([tmp_path / "a.zarr"])

    assert [first_value(s) for s in (data[0], data[1])] == [7, 8]


def test_masks_of_another_file_belong_to_the_set_of_their_name(tmp_path: Path) -> None:
    stacks = write(tmp_path / "a.h5", a={"images": numbered(1)}, b={"images": numbered(2)})
    labels = np.full((2, 3, 8, 8), 2, np.uint8)
    masks = write(tmp_path / "m.h5", b={"masks": labels})
    data = StackDataset([stacks], [masks])

    assert [int(data[i].masks.max()) for i in range(3)] == [0, 2, 2]


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"images": np.zeros((1, 1, 8, 8), np.uint8)}, "a pair needs 2"),
        ({"images": np.zeros((0, 2, 8, 8), np.uint8)}, "without 0"),
        (
            {
                "images": np.zeros((1, 2, 8, 8), np.uint8),
                "masks": np.zeros((1, 2, 8, 9), np.uint8),
            },
            "masks have shape",
        ),
        ({"other": np.zeros((1, 2, 8, 8), np.uint8)}, "holds no stacks"),
    ],
)
def test_files_that_cannot_be_trained_on_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], word: str
) -> None:
    path = write(tmp_path / "a.h5", a=arrays)
    with pytest.raises(DataError, match=word):
        stack_sets(path)


def test_absent_and_damaged_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b.h5").write_bytes(b"no h5")
    with pytest.raises(DataError, match="does not exist"):
        StackDataset([tmp_path / "a.h5"])
    with pytest.raises(DataError, match="cannot be read"):
        StackDataset([tmp_path / "b.h5"])


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    stacks = write(tmp_path / "a.h5", a={"images": numbered(1)})
    other = write(tmp_path / "m.h5", a={"masks": np.zeros((1, 3, 8, 16), np.uint8)})
    unknown = write(tmp_path / "u.h5", c={"masks": np.zeros((1, 3, 8, 8), np.uint8)})
    with pytest.raises(DataError, match="masks have shape"):
        StackDataset([stacks], [other])
    with pytest.raises(DataError, match="there are no such stacks"):
        StackDataset([stacks], [unknown])


def test_known_displacement_leads_back_to_the_undistorted_section() -> None:
    """A ramp shows where every pixel came from."""
    distortion = Distortion(contrast=0)
    far = distortion.reach_px
    side = 48 + 2 * far
    rows = np.broadcast_to(np.arange(side, dtype=np.float32)[:, None], (side, side))
    section = torch.from_numpy(np.ascontiguousarray(rows)) / 255 + 0.1
    from retrace.synthetic.distorted_sections import distort

    image, labels, field = distort(section, np.random.default_rng(3), distortion)
    inner = slice(4, -4)
    came_from = torch.arange(48.0)[:, None] + far + field[0]

    assert field.abs().max() > 2
    assert torch.allclose(((image - 0.1) * 255)[inner, inner], came_from[inner, inner], atol=0.02)
    assert not labels.any()


def test_sections_are_distorted_each_for_itself_and_by_the_seed() -> None:
    raw = np.random.default_rng(0).integers(1, 255, (3, 64, 64), np.uint8)
    distortion = Distortion(crack=0.5, fold=0.5, missing=0.5)
    whole = distort_sections(raw, 5, distortion)
    again = distort_sections(raw[:2], 5, distortion)
    other = distort_sections(raw, 6, distortion)

    assert whole.fields is not None and again.fields is not None and other.fields is not None
    assert torch.equal(whole.images[:2], again.images)
    assert torch.equal(whole.fields[:2], again.fields)
    assert not torch.equal(whole.fields, other.fields)
    assert not torch.equal(whole.fields[0], whole.fields[1])


def test_phantoms_have_pairs_and_masks() -> None:
    stack = phantom_stack((2, 64, 64), 1, Distortion(crack=1.0))

    assert stack.images.shape == (2, 64, 64)
    assert 0 < float(stack.images.std()) < 0.5
    assert set(torch.unique(stack.masks).tolist()) == {0, 1, 2}
    with pytest.raises(ConfigError, match="no pair"):
        phantom_stack((1, 64, 64), 1)
    with pytest.raises(ConfigError, match="smaller than the margin"):
        distort_sections(np.zeros((2, 12, 12), np.uint8), 1, Distortion())


@pytest.mark.parametrize("kind", sorted(DRAW))
def test_artificial_defects_label_their_own_pixels_only(kind: str) -> None:
    """A ramp shows that pixels outside the defect are those at the displacement."""
    image = (torch.arange(96.0)[:, None] + torch.zeros(96)) / 255 + 0.2
    for seed in range(5):
        defect = DRAW[kind](np.random.default_rng(seed), (96, 96))
        shown, labels = apply_defect(image, torch.zeros(96, 96, dtype=torch.uint8), defect)
        expected = pull(image, defect.displacement)

        assert torch.equal(labels == 2, defect.inside)
        assert torch.equal(shown[~defect.inside], expected[~defect.inside])
        assert 0 < int(defect.inside.sum()) < 96 * 96 * 0.75


def test_a_crack_moves_one_side_by_its_width_and_a_fold_does_not_tear() -> None:
    for seed in range(8):
        crack = DRAW["crack"](np.random.default_rng(seed), (96, 96))
        moved = crack.displacement.abs().sum(0)
        width = float(moved.max())
        across = crack.inside.sum(1) if crack.displacement[1].any() else crack.inside.sum(0)
        fold = DRAW["fold"](np.random.default_rng(seed), (96, 96)).displacement
        steep = torch.diff(fold, dim=2)[1], torch.diff(fold, dim=1)[0]

        assert set(torch.unique(moved).tolist()) == {0.0, width}
        assert float(across.float().median()) == width
        # Steps of less than -1 px a pixel would turn tissue over.
        assert min(float(s.min()) for s in steep) > -1
