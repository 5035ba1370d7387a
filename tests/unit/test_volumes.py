"""Volumes, stacks and manifests on real files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from retrace.errors import DataError, nearest
from retrace.files import atomic_write, digest
from retrace.formats.readers import open_array
from retrace.geometry import VoxelBox
from retrace.storage.manifest import check_manifest, manifest_path, write_manifest
from retrace.storage.value_checks import check_labels, check_raw
from retrace.storage.volumes import open_volume
from retrace.storage.zarr_writer import create_volume, writing

DATA = np.arange(6 * 7 * 8, dtype=np.uint8).reshape(6, 7, 8)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    final = tmp_path / "a.zarr"
    with writing(final) as partial:
        place = {"voxel_size_nm": (20, 9, 9), "offset_nm": (40, 9, 0)}
        array = create_volume(
            partial, "volumes/raw", shape=DATA.shape, chunks=(4, 4, 4), dtype="u1", **place
        )
        array[:] = DATA
    write_manifest(final, inputs=[], settings={"seed": 1}, seconds=0.1)
    return final


def test_box_is_in_voxels_of_the_world(store: Path) -> None:
    assert open_volume(store, "volumes/raw").box == VoxelBox((2, 1, 0), (6, 7, 8))


def test_read_fills_only_outside(store: Path) -> None:
    volume = open_volume(store, "volumes/raw")

    block = volume.read(VoxelBox((1, 1, 0), (3, 7, 8)), fill=9)

    assert (block[0] == 9).all()
    np.testing.assert_array_equal(block[1:], DATA[:2])


def test_read_outside_without_fill_is_refused(store: Path) -> None:
    with pytest.raises(DataError, match="leaves the volume"):
        open_volume(store, "volumes/raw").read(VoxelBox((0, 0, 0), (1, 1, 1)))


def test_unknown_array_offers_the_nearest(store: Path) -> None:
    with pytest.raises(DataError, match=r"did you mean 'volumes/raw'"):
        open_volume(store, "volumes/row")


def test_contradicting_voxel_size_is_refused(store: Path) -> None:
    with pytest.raises(DataError, match=r"`resolution` \[20, 9, 9\] nm, and .*\[10, 9, 9\]"):
        open_volume(store, "volumes/raw", voxel_size_nm=(10, 9, 9))


def test_missing_voxel_size_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", DATA)

    with pytest.raises(DataError, match="has no voxel size"):
        open_volume(tmp_path / "a.tif")


def test_h5_and_tifs_read_like_zarr(tmp_path: Path, store: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["volumes/raw"] = DATA
    (tmp_path / "tifs").mkdir()
    for z, page in enumerate(DATA):
        tifffile.imwrite(tmp_path / "tifs" / f"{z:03d}.tif", page)
    tifffile.imwrite(tmp_path / "multi.tif", DATA)
    box = VoxelBox((1, 2, 3), (4, 3, 2))

    blocks = [
        open_volume(tmp_path / "a.h5", "volumes/raw", (20, 9, 9)).read(box),
        open_volume(tmp_path / "tifs", "", (20, 9, 9)).read(box),
        open_volume(tmp_path / "multi.tif", "", (20, 9, 9)).read(box),
        replace(open_volume(store, "volumes/raw"), offset_nm=(0, 0, 0)).read(box),
    ]

    for block in blocks:
        np.testing.assert_array_equal(block, DATA[1:5, 2:5, 3:5])


def test_ngff_transform_is_the_voxel_grid(store: Path) -> None:
    image = json.loads((store / ".zattrs").read_text())["multiscales"][0]

    scale, move = image["datasets"][0]["coordinateTransformations"]
    assert (scale["scale"], move["translation"]) == ([20.0, 9.0, 9.0], [40.0, 9.0, 0.0])


def test_a_failed_writer_leaves_the_old_store(store: Path) -> None:
    with pytest.raises(ZeroDivisionError), writing(store) as partial:
        (partial / "x").write_text("half")
        raise ZeroDivisionError

    check_manifest(store, digests=True)


def test_a_lost_chunk_is_detected(store: Path) -> None:
    (store / "volumes/raw/0/0/0").unlink()

    with pytest.raises(DataError, match="7 chunks, its manifest says 8"):
        check_manifest(store)


def test_a_changed_byte_is_detected(store: Path) -> None:
    chunk = store / "volumes/raw/0/0/0"
    content = bytearray(chunk.read_bytes())
    content[-1] ^= 1
    chunk.write_bytes(bytes(content))

    check_manifest(store)
    with pytest.raises(DataError, match="changed since they were written"):
        check_manifest(store, digests=True)


def test_another_version_is_refused(store: Path) -> None:
    path = manifest_path(store)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "format_version": 99}))

    with pytest.raises(DataError, match="another version"):
        check_manifest(store)


def test_digest_ignores_key_order() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})


def test_atomic_write_leaves_no_partial(tmp_path: Path) -> None:
    atomic_write(tmp_path / "x.json", "{}")

    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((2, 2, 2), np.nan, np.float32), "contains NaN"),
        (
            np.full((2, 2, 2), 200, np.float32),
            r"200 to 200; raw must be uint8",
        ),
        (np.zeros((2, 2, 2), np.int16), "raw must be uint8"),
    ],
)
def test_bad_raw_is_refused(tmp_path: Path, values: np.ndarray, message: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = values

    with pytest.raises(DataError, match=message):
        check_raw(open_volume(tmp_path / "a.h5", "raw", (1, 1, 1)))


def test_float_labels_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["labels"] = np.zeros((2, 2, 2), np.float32)

    with pytest.raises(DataError, match="integer type"):
        check_labels(open_volume(tmp_path / "a.h5", "labels", (1, 1, 1)))


def test_nearest_names_the_closest() -> None:
    assert nearest("zfinsh", ["zfinch", "hemi"]).startswith("did you mean 'zfinch'?")


def test_a_store_is_on_disk_before_its_manifest(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut leaves a manifest of files that are empty."""
    flushed: list[int] = []
    flush = os.fsync

    def recorded(handle: int) -> None:
        flush(handle)
        flushed.append(os.fstat(handle).st_ino)

    monkeypatch.setattr(os, "fsync", recorded)
    write_manifest(store, inputs=[], settings={}, seconds=0)
    before = flushed[: flushed.index(manifest_path(store).stat().st_ino)]
    assert {path.stat().st_ino for path in (store, *store.rglob("*"))} <= set(before)


def test_a_result_that_is_gone_names_the_command_that_computes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Path("results/slices/sections/truth.zarr")
    with pytest.raises(DataError, match=r"truth\.zarr does not exist; fetch it, or correct `path`"):
        open_array(store, "field", 0)
    store.parent.mkdir(parents=True)
    store.with_name("truth.manifest.json").write_text("{}")
    with pytest.raises(DataError, match=r"`snakemake --force results.*truth\.manifest\.json`"):
        open_array(store, "field", 0)
