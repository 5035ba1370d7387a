"""Generated volumes: content, reproducibility, and layout on disk."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from scipy import ndimage

import phantom
from retrace.errors import ConfigError
from retrace.evaluation.skeleton_files import read_dump, read_masked
from retrace.geometry import VoxelBox
from retrace.storage.volumes import open_volume
from retrace.synthetic.neurites import centre_lines, generate_neurites
from retrace.synthetic.phantom_files import (
    HEMI_BACKGROUND_ID,
    TESTING,
    write_paper_phantom,
    write_phantom_store,
)

SHAPE = (20, 60, 60)
SIZE = (20, 9, 9)


@pytest.fixture(scope="module")
def neurites() -> tuple[np.ndarray, np.ndarray]:
    return generate_neurites(SHAPE, SIZE, seed=3)


def test_types_and_shapes(neurites: tuple[np.ndarray, np.ndarray]) -> None:
    raw, labels = neurites
    assert raw.shape == labels.shape == SHAPE
    assert raw.dtype == np.uint8
    assert labels.dtype == np.uint64


def test_labels_are_gapless_connected_and_many(neurites: tuple[np.ndarray, np.ndarray]) -> None:
    labels = neurites[1]
    ids = np.unique(labels)
    assert ids.tolist() == list(range(1, len(ids) + 1))
    assert len(ids) >= 5
    for neuron in ids:
        assert ndimage.label(labels == neuron)[1] == 1


def test_same_seed_same_bytes_other_seed_other_bytes(
    neurites: tuple[np.ndarray, np.ndarray],
) -> None:
    again, other = generate_neurites(SHAPE, SIZE, seed=3), generate_neurites(SHAPE, SIZE, seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(neurites, again, strict=True))
    assert not np.array_equal(neurites[1], other[1])


def test_membranes_are_darker_than_cytoplasm(neurites: tuple[np.ndarray, np.ndarray]) -> None:
    raw, labels = neurites
    edge = ndimage.grey_dilation(labels, size=(1, 3, 3)) != ndimage.grey_erosion(
        labels, size=(1, 3, 3)
    )
    inside = ~ndimage.binary_dilation(edge, iterations=3)
    assert raw[edge].mean() + 25 < raw[inside].mean()


def test_thin_background_lies_between_neurites_only() -> None:
    _, labels = generate_neurites(SHAPE, SIZE, seed=3, thin_background=True)
    assert 0 < (labels == 0).mean() < 0.6
    left, right = labels[:, :, :-1], labels[:, :, 1:]
    both = (left != 0) & (right != 0)
    assert (left[both] == right[both]).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 40), (40, 3, 5)])
def test_odd_shapes_work(shape: tuple[int, int, int]) -> None:
    raw, labels = generate_neurites(shape, (8, 8, 8), seed=1)
    assert raw.shape == labels.shape == shape
    assert labels.min() >= 1


def test_a_shape_without_voxels_is_refused() -> None:
    with pytest.raises(ConfigError, match="is empty; all lengths"):
        generate_neurites((0, 10, 10), SIZE, seed=1)


def test_store_has_the_bucket_layout(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    write_phantom_store(store, (8, 30, 30), (4, 10, 12), SIZE, seed=1, chunks=(8, 32, 32))
    raw = open_volume(store, "volumes/raw")
    labels = open_volume(store, "volumes/labels/neuron_ids")
    assert raw.array.shape == (16, 50, 54)
    assert labels.array.shape == (8, 30, 30)
    assert (labels.offset_nm, raw.offset_nm) == ((80, 90, 108), (0, 0, 0))
    assert raw.box.contains(labels.box)
    meta = json.loads((store / "volumes/raw/.zarray").read_text())
    assert (meta["zarr_format"], meta["dtype"]) == (2, "|u1")
    assert (store / "volumes/raw/0.0.0").is_file()
    assert (store / "volumes/labels/.zgroup").is_file()


def test_hemi_layout_fills_the_context_with_the_background_id(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    write_phantom_store(store, (12, 12, 12), (4, 4, 4), (8, 8, 8), seed=1, layout="hemi")
    labels = np.asarray(zarr.open_group(store, mode="r")["volumes/labels/neuron_ids"])
    raw = zarr.open_group(store, mode="r")["volumes/raw"]
    assert labels.shape == raw.shape == (20, 20, 20)
    assert int(labels[0, 0, 0]) == HEMI_BACKGROUND_ID == 18446744073709551613
    assert (labels == np.uint64(HEMI_BACKGROUND_ID)).sum() == 20**3 - 12**3


def test_generate_command_makes_every_volume(tmp_path: Path) -> None:
    phantom.main(
        ["generate", "--output", str(tmp_path), "--volumes", "a", "b", "--shape", "6", "20", "20"]
        + ["--margin", "2", "4", "4"]
    )
    stores = [tmp_path / "funke/phantom/training" / f"{name}.zarr" for name in "ab"]
    first, second = (np.asarray(open_volume(s, "volumes/raw").array) for s in stores)
    assert first.shape == (10, 28, 28)
    assert not np.array_equal(first, second)


def test_cubes_in_the_layout_of_elektronn(tmp_path: Path) -> None:
    """Axes x, y, z; labels in the middle of the image, 1 where darker membranes are."""
    small = ["--shape", "8", "40", "44", "--margin", "2", "10", "12", "--volumes", "a", "b"]
    phantom.main(["generate", "--layout", "elektronn", "--output", str(tmp_path), *small])
    for number in (0, 1):
        with h5py.File(tmp_path / f"raw_{number}.h5") as file:
            raw = file["raw"][:]
        with h5py.File(tmp_path / f"barrier_int16_{number}.h5") as file:
            labels = file["lab"][:]
        assert (raw.shape, raw.dtype) == ((68, 60, 12), np.uint8)
        assert (labels.shape, labels.dtype) == ((44, 40, 8), np.uint16)
        inner = raw[12:-12, 10:-10, 2:-2].astype(float)
        assert set(np.unique(labels)) == {0, 1}
        assert inner[labels == 1].mean() < inner[labels == 0].mean() - 10


def test_commands_report_missing_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        phantom.main(["upload"])
    assert "--endpoint" in capsys.readouterr().err


def test_a_region_with_the_shape_of_the_papers(tmp_path: Path) -> None:
    """Layer and labels at one position; dumps whose masked parts are the connected components."""
    shape, margin = (24, 80, 80), (12, 24, 24)
    write_paper_phantom(tmp_path / "layer", tmp_path / "bucket", shape, margin, SIZE, 2)
    truth = tmp_path / "bucket" / TESTING
    raw = open_volume(f"file://{tmp_path / 'layer'}")
    labels = open_volume(truth / "data.zarr", "volumes/roi_1/consolidated_ids")

    assert raw.box == VoxelBox((0, 0, 0), (48, 128, 128))
    assert labels.box == VoxelBox(margin, shape)
    np.testing.assert_array_equal(generate_neurites((48, 128, 128), SIZE, 2)[0], raw.read(raw.box))
    nodes: list[set[tuple[float, ...]]] = []
    for split in ("testing", "validation"):
        ids, whole = read_dump(truth / split, "phantom")
        masked = read_masked(truth / split, "phantom", "roi_1")
        box = labels.box.to_nm(SIZE)
        again = masked.within(box)
        assert len(ids) == len(whole.skeleton) > len(masked.skeleton) > 0
        assert len(again.skeleton) == len(masked.skeleton)
        assert len(np.unique(again.skeleton)) == len(np.unique(masked.skeleton))
        assert not (whole.position_nm % SIZE).any()
        nodes.append(set(map(tuple, whole.position_nm.tolist())))
    assert len(nodes[0] & nodes[1]) == 0


def test_neurites_run_inside_their_cells() -> None:
    voxels, edges = centre_lines(SHAPE, SIZE, seed=3)
    labels = generate_neurites(SHAPE, SIZE, seed=3)[1]
    ends = labels[tuple(voxels.T)][edges]

    assert len(edges) > 20
    assert (ends[:, 0] == ends[:, 1]).mean() > 0.9
