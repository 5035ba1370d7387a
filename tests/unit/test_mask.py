"""The labels mask: exact ids, bounded memory, other formats, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mask
from file_server import served
from retrace.errors import ConfigError, DataError
from retrace.formats.label_ids import background_values, is_known
from retrace.storage.labels_mask import mask_chunk_shape, write_mask
from retrace.storage.manifest import check_manifest, manifest_path
from retrace.storage.volumes import open_volume
from retrace.storage.zarr_writer import create_volume
from retrace.synthetic.phantom_files import HEMI_BACKGROUND_ID, write_phantom_store

SIZE = (20, 9, 9)
LABELS = "volumes/labels/neuron_ids"


def store_labels(path: Path, labels: np.ndarray, offset_nm: tuple[int, int, int]) -> Path:
    array = create_volume(
        path,
        LABELS,
        shape=labels.shape,
        chunks=(4, 8, 8),
        dtype=labels.dtype,
        voxel_size_nm=SIZE,
        offset_nm=offset_nm,
    )
    array[:] = labels
    return path


def run_mask(output: Path, background_ids: list[int], **labels: Any) -> np.ndarray:
    settings = {"background_ids": background_ids, "labels": labels}
    mask.main(["--settings", json.dumps(settings), "--output", str(output)])
    return np.asarray(open_volume(output, "labels_mask").array)


@given(
    labels=hnp.arrays(
        np.uint64, (2, 3, 4), elements=st.sampled_from([0, 1, 2**53, *range(2**64 - 6, 2**64)])
    )
)
def test_ids_near_2_to_64_stay_distinct(labels: np.ndarray) -> None:
    result = is_known(labels, background_values([HEMI_BACKGROUND_ID], labels.dtype))
    exact = [[[int(v) != 2**64 - 3 for v in row] for row in plane] for plane in labels.tolist()]
    assert np.array_equal(result, np.array(exact, np.uint8))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_an_id_the_type_cannot_hold_masks_nothing_else(dtype: Any) -> None:
    labels = np.array([0, 1, 2], dtype)
    known = [is_known(labels, background_values([value], labels.dtype)) for value in (2**64 - 3, 0)]
    assert [part.tolist() for part in known] == [[True, True, True], [False, True, True]]


@pytest.mark.parametrize("bad", [-(2**63) - 1, 2**64, 1.0, True, "3"])
def test_impossible_background_ids_are_refused(bad: Any) -> None:
    with pytest.raises(ConfigError, match="background id"):
        background_values([bad], np.dtype(np.uint64))


def test_14_hemi_layout_masks_exactly_the_context(tmp_path: Path) -> None:
    store = tmp_path / "hemi.zarr"
    write_phantom_store(store, (10, 12, 14), (3, 4, 5), (8, 8, 8), seed=2, layout="hemi")
    result = run_mask(tmp_path / "m.zarr", [HEMI_BACKGROUND_ID], path=str(store), array=LABELS)
    expected = np.zeros((16, 20, 24), np.uint8)
    expected[3:-3, 4:-4, 5:-5] = 1
    assert np.array_equal(result, expected)


def test_without_background_ids_all_is_inside_and_zero_counts(tmp_path: Path) -> None:
    labels = np.zeros((4, 5, 6), np.uint64)
    labels[1] = 7
    store = store_labels(tmp_path / "a.zarr", labels, (40, 90, 900))
    result = run_mask(tmp_path / "m.zarr", [], path=str(store), array=LABELS)
    assert result.all()
    volume = open_volume(tmp_path / "m.zarr", "labels_mask")
    assert volume.dtype == np.uint8
    assert (volume.voxel_size_nm, volume.offset_nm) == (SIZE, (40, 90, 900))
    manifest = check_manifest(tmp_path / "m.zarr", digests=True)
    assert manifest["counts"] == {"voxels": 120, "inside": 120, "neurons": 30}


@pytest.mark.parametrize("suffix", ["h5", "tif"])
def test_other_formats(tmp_path: Path, suffix: str) -> None:
    labels = np.arange(60, dtype=np.uint16).reshape(3, 4, 5) // 20
    path = tmp_path / f"labels.{suffix}"
    if suffix == "h5":
        with h5py.File(path, "w") as file:
            file["a/labels"] = labels
    else:
        tifffile.imwrite(path, labels, photometric="minisblack")
    result = run_mask(
        tmp_path / "m.zarr", [0], path=str(path), array="a/labels", voxel_size_nm=[10, 10, 10]
    )
    assert np.array_equal(result, labels != 0)


@pytest.mark.parametrize(
    ("labels", "background", "message"),
    [
        (np.full((3, 4, 5), 9, np.uint64), [9], "only background"),
        (np.zeros((3, 4, 5), np.uint64), [], "no neuron"),
        (np.zeros((3, 4, 5), np.float32), [], "integer"),
    ],
)
def test_uninformative_labels_are_refused_and_files_are_kept(
    tmp_path: Path, labels: np.ndarray, background: list[int], message: str
) -> None:
    good = store_labels(tmp_path / "good.zarr", np.ones((3, 4, 5), np.uint64), (0, 0, 0))
    output = tmp_path / "m.zarr"
    run_mask(output, [], path=str(good), array=LABELS)
    before = manifest_path(output).read_bytes()
    bad = store_labels(tmp_path / "bad.zarr", labels, (0, 0, 0))
    with pytest.raises(DataError, match=message):
        run_mask(output, background, path=str(bad), array=LABELS)
    assert manifest_path(output).read_bytes() == before
    check_manifest(output, digests=True)


def test_the_same_labels_give_the_same_bytes(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (9, 17, 11)).astype(np.uint64)
    store = store_labels(tmp_path / "a.zarr", labels, (0, 0, 0))
    for name in ("x", "y"):
        run_mask(tmp_path / f"{name}.zarr", [0], path=str(store), array=LABELS)
    first, second = (
        {p.relative_to(s): p.read_bytes() for p in s.rglob("*") if p.is_file()}
        for s in (tmp_path / "x.zarr", tmp_path / "y.zarr")
    )
    assert first == second
    assert len(first) >= 5


def test_no_read_is_larger_than_a_chunk(tmp_path: Path) -> None:
    labels = np.ones((40, 70, 90), np.uint64)
    volume = open_volume(store_labels(tmp_path / "a.zarr", labels, (0, 0, 0)), LABELS)
    largest = 0

    class Watched:
        shape, dtype, chunks = volume.array.shape, volume.array.dtype, (32, 32, 32)

        def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
            nonlocal largest
            data = np.asarray(volume.array[key])
            largest = max(largest, data.size)
            return data

    watched = type(volume)(Watched(), SIZE, (0, 0, 0), "watched")
    assert write_mask(watched, [], tmp_path / "m.zarr").inside == labels.size
    assert 0 < largest <= int(np.prod(mask_chunk_shape(watched)))


def test_unknown_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="background"):
        mask.main(["--settings", '{"labels": {}}', "--output", str(tmp_path / "m.zarr")])


def test_streamed_labels_of_another_shape_need_a_position(tmp_path: Path) -> None:
    """A20: without one, they would be at the first corner of their image."""
    for name, shape in (("raw", (8, 18, 18)), ("labels", (8, 9, 9))):
        data = np.ones(shape, np.uint8 if name == "raw" else np.uint64)
        data.flat[0] = 0
        array = zarr.create_array(tmp_path / "a.zarr", name=name, shape=shape, dtype=data.dtype)
        array[...] = data
        array.attrs["resolution"] = list(SIZE)
    with served(tmp_path) as address:
        labels = {"path": f"{address}/a.zarr", "array": "labels"}
        image = {**labels, "array": "raw"}
        settings = {"background_ids": [], "labels": labels, "image": image}
        output = ["--output", str(tmp_path / "mask.zarr")]
        with pytest.raises(DataError, match="nothing states where the smaller one is"):
            mask.main(["--settings", json.dumps(settings), *output])
        settings["labels"] = {**labels, "offset_nm": [0, 81, 81]}
        mask.main(["--settings", json.dumps(settings), *output])
        own = {**settings, "labels_mask": labels}
        with pytest.raises(DataError, match="labels states no position, and .* begins at"):
            mask.main(["--settings", json.dumps(own), *output])
    assert open_volume(tmp_path / "mask.zarr", "labels_mask").offset_nm == (0, 81, 81)
