"""Places of training patches, and refused volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import tiny_training as tiny
from retrace.errors import DataError
from retrace.geometry import VoxelBox
from retrace.planning.train_settings import TrainingDataset
from retrace.training import sampler as sampling
from retrace.training import volumes as training_volumes
from retrace.training.random_streams import batch_generator
from retrace.training.sampler import PatchSampler
from retrace.training.volumes import EXCLUDED, LABELLED, UNLABELLED

FIELD_OF_VIEW = (18, 18, 18)
MASK = VoxelBox((0, 0, 0), (10, 12, 14))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tiny.write_volume(tmp_path / "cube.zarr")


def open_tiny(store: Path, masks: dict[str, Path] | None = None, **changes: Any) -> PatchSampler:
    dataset = TrainingDataset.model_validate(tiny.dataset(store, **changes))
    return sampling.open_sampler(
        dataset,
        dataset.train,
        masks or {},
        padding_nm=[50, 60, 70],
        min_masked=0.5,
        field_of_view=FIELD_OF_VIEW,
    )


def entry(**changes: Any) -> dict[str, Any]:
    return {"volume": "cube", "roi_nm": None, "probability": 1.0} | changes


def rewrite(store: Path, array: str, data: np.ndarray, offset_nm: Any = (0, 0, 0)) -> None:
    del zarr.open_group(store, mode="a")[array]
    tiny.write_array(store, array, data, offset_nm)


def test_random_numbers_depend_on_seed_and_iteration_alone() -> None:
    draws = {(s, i): batch_generator(s, i).random() for s in (0, 1) for i in (0, 1, 399_999)}
    assert len(set(draws.values())) == 6
    assert batch_generator(1, 399_999).random() == draws[1, 399_999]


def test_places_have_enough_ground_truth_and_stay_inside_the_padding(store: Path) -> None:
    sampler = open_tiny(store)
    truth = np.zeros((200, 200, 200), bool)
    truth[80:120, 80:120, 80:120] = True
    places = []
    for iteration in range(300):
        shift = sampler.place(batch_generator(0, iteration), 0, MASK, MASK)
        box = MASK.shift(shift)
        assert truth[box.shift((80, 80, 80)).slices()].mean() >= 0.5
        assert VoxelBox((0, 0, 0), tiny.SHAPE).grow((5, 6, 7)).contains(box)
        places.append(shift)
    assert np.min(places, axis=0).tolist() == pytest.approx([-5, -6, -7], abs=1)
    assert np.max(places, axis=0).tolist() == pytest.approx([35, 34, 33], abs=1)


def test_min_masked_counts_the_mask_and_not_the_volume(store: Path) -> None:
    mask = np.zeros(tiny.SHAPE, np.uint8)
    mask[:, :, :20] = 1
    tiny.write_array(store.parent / "mask.zarr", "labels_mask", mask)
    sampler = open_tiny(store, {"cube": store.parent / "mask.zarr"})
    shifts = [sampler.place(batch_generator(0, i), 0, MASK, MASK) for i in range(200)]
    assert max(s[2] for s in shifts) == 13  # 7 of its 14 voxels are then still below 20


@pytest.mark.parametrize("max_cells", [1 << 26, 10_000])
def test_ground_truth_is_counted_exactly_on_whole_cells(
    store: Path, max_cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MAX_CELLS", max_cells)
    monkeypatch.setattr(sampling, "SLAB_VOXELS", 40 * 40 * 7)
    hole = {"offset": [0, 100, 0], "shape": [200, 200, 100]}
    sampler = open_tiny(store, train=[entry(exclude_nm=[hole])])
    count = sampler.counts[0]
    assert count.step == (1 if max_cells > 64_000 else 2)
    codes = sampler.volumes[0].read_codes(VoxelBox((0, 0, 0), tiny.SHAPE)) == LABELLED
    assert count.total == codes.sum() == 40**3 - 20 * 20 * 10
    begin = np.array([[0, 0, 0], [4, 8, 2], [-10, 2, 2], [38, 38, 38]])
    end = np.array([[40, 40, 40], [16, 30, 14], [10, 4, 80], [60, 60, 60]])
    expected = [
        codes[tuple(map(slice, b.clip(0), e))].sum() for b, e in zip(begin, end, strict=True)
    ]
    assert count.inside(begin, end).tolist() == expected


def test_memory_and_disk_give_the_same_voxels(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, labels = tiny.blobs()
    rewrite(store, "labels", np.where(labels == 3, np.uint64(2**64 - 3), labels))
    changes = {
        "background_ids": [2**64 - 3],
        "train": [
            entry(
                roi_nm={"offset": [0, 0, 0], "shape": [300, 400, 400]},
                exclude_nm=[{"offset": [0, 0, 0], "shape": [50, 400, 400]}],
            )
        ],
    }
    held = open_tiny(store, **changes).volumes[0]
    monkeypatch.setattr(training_volumes, "_memory_bytes", lambda: 0)
    on_disk = open_tiny(store, **changes).volumes[0]
    assert isinstance(held.raw.array, np.ndarray)
    assert not isinstance(on_disk.raw.array, np.ndarray)
    box = VoxelBox((-3, 2, 5), (45, 41, 30))
    for volume in (held, on_disk):
        got = volume.read_labels(box)
        codes, image = volume.read_codes(box), volume.read_raw(box)
        assert got.dtype == np.int32
        assert (got[8:33, :38] == np.where(labels == 3, 0, labels)[5:30, 2:, 5:35]).all()
        assert not got[:8].any() and not got[33:].any()
        assert (codes[3:8, :38] == EXCLUDED).all()
        expected = np.where(labels == 3, UNLABELLED, LABELLED)[5:30, 2:, 5:35]
        assert (codes[8:33, :38] == expected).all()
        assert not codes[33:].any() and not codes[:3].any()
        assert (image[3:33, :38] == raw[:30, 2:, 5:35]).all()
        assert not image[33:].any()


@pytest.mark.parametrize("free_bytes", [0, 2**40])
def test_labels_below_0_are_unlabelled(
    store: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int
) -> None:
    _, labels = tiny.blobs()
    signed = np.where(labels == 2, -1, labels.astype(np.int64))
    rewrite(store, "labels", signed)
    monkeypatch.setattr(training_volumes, "_memory_bytes", lambda: free_bytes)
    volume = open_tiny(store, background_ids=[3, -7, 2**64 - 1]).volumes[0]
    box = VoxelBox((0, 0, 0), tiny.SHAPE)
    known = (signed >= 0) & (signed != 3)
    assert (volume.read_codes(box) == np.where(known, LABELLED, UNLABELLED)).all()
    assert (volume.read_labels(box) == np.where(known, signed, 0)).all()


def test_big_ids_stay_apart(store: Path) -> None:
    _, labels = tiny.blobs()
    rewrite(store, "labels", labels + np.uint64(2**40))
    got = open_tiny(store).volumes[0].read_labels(VoxelBox((0, 0, 0), tiny.SHAPE))
    pairs = {(a, b) for a, b in zip(labels.ravel().tolist(), got.ravel().tolist(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert 0 not in {b for _, b in pairs}


def test_volumes_are_chosen_by_probability(store: Path) -> None:
    other = tiny.write_volume(store.parent / "other.zarr", seed=1)
    volumes = tiny.dataset(store)["volumes"] | {"more": tiny.dataset(other)["volumes"]["cube"]}
    train = [entry(probability=0.2), entry(volume="more", probability=0.8)]
    sampler = open_tiny(store, volumes=volumes, train=train)
    chosen = [sampler.choose(batch_generator(0, i)) for i in range(1000)]
    assert 740 < sum(chosen) < 860


def test_no_place_with_enough_ground_truth_is_an_error(store: Path) -> None:
    sampler = open_tiny(store)
    big = VoxelBox((0, 0, 0), (90, 90, 90))
    with pytest.raises(DataError, match="no place found.*lower `min_masked`"):
        sampler.place(batch_generator(0, 0), 0, big, big)


def refused(store: Path, match: str, masks: dict[str, Path] | None = None, **changes: Any) -> None:
    with pytest.raises(DataError, match=match):
        open_tiny(store, masks, **changes)


def test_labels_without_objects_are_refused(store: Path) -> None:
    rewrite(store, "labels", np.zeros(tiny.SHAPE, np.uint64))
    refused(store, "'cube': the labels are empty")


def test_wholly_masked_labels_are_refused(store: Path) -> None:
    rewrite(store, "labels", np.full(tiny.SHAPE, 2**64 - 3, np.uint64))
    refused(store, "'cube': the labels are wholly masked", background_ids=[2**64 - 3])
    tiny.write_array(store.parent / "m.zarr", "labels_mask", np.zeros(tiny.SHAPE, np.uint8))
    refused(store, "wholly masked", {"cube": store.parent / "m.zarr"})


def test_raw_and_labels_apart_are_refused(store: Path) -> None:
    rewrite(store, "labels", tiny.blobs()[1], offset_nm=(0, 1000, 0))
    refused(store, r"'cube': raw and labels do not overlap.*1000")


def test_a_volume_below_the_field_of_view_is_refused(store: Path) -> None:
    roi = {"offset": [0, 0, 0], "shape": [170, 400, 400]}
    refused(store, "smaller than the field of view", train=[entry(roi_nm=roi)])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda raw: np.where(raw == raw.max(), np.nan, raw), "NaN"),
        (lambda raw: raw * 2, r"raw must be uint8, or float in \[0, 1\]"),
        (lambda raw: (raw * 255).astype(np.uint16), "uint16"),
    ],
)
def test_unusable_raw_is_refused(store: Path, change: Any, match: str) -> None:
    raw = tiny.blobs()[0].astype(np.float32) / 255
    rewrite(store, "raw", np.asarray(change(raw)))
    refused(store, match)


def test_another_voxel_size_is_refused(store: Path) -> None:
    refused(store, "voxels of .10, 10, 10. nm", voxel_size_nm=[20, 10, 10])


def test_a_mask_that_does_not_cover_the_labels_is_refused(store: Path) -> None:
    tiny.write_array(store.parent / "m.zarr", "labels_mask", np.ones((40, 40, 30), np.uint8))
    refused(store, "does not cover the labels", {"cube": store.parent / "m.zarr"})
