"""Precomputed layers, read by another program."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import export
import verify
from kill import finish, interrupt
from prediction_case import store_bytes
from retrace.errors import DataError
from retrace.geometry import VoxelBox
from retrace.storage import chunk_index
from retrace.storage.chunk_index import file_digests
from retrace.storage.manifest import check_manifest, manifest_path
from retrace.storage.precomputed_writer import Mip, all_mips, coarser, most_frequent, rounded_mean
from retrace.storage.volumes import open_volume
from retrace.storage.zarr_writer import create_volume

SIZE = (20, 9, 9)
OFFSET = (3, 5, -7)
"""Voxels; odd, so that coarser voxels reach over the border."""
SHAPE = (20, 300, 270)


def write_zarr(folder: Path, array: str, data: np.ndarray) -> dict[str, Any]:
    lead = (data.shape[0],) if data.ndim == 4 else ()
    created = create_volume(
        folder,
        array,
        shape=data.shape,
        chunks=(*lead, 64, 128, 128),
        dtype=data.dtype,
        voxel_size_nm=SIZE,
        offset_nm=[o * s for o, s in zip(OFFSET, SIZE, strict=True)],
    )
    created[...] = data
    return {"path": str(folder), "array": array}


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    """Blobs of 5 x 30 x 30 voxels with large ids."""
    rng = np.random.default_rng(2)
    coarse = rng.integers(2**40, 2**63, (4, 10, 9), dtype=np.uint64)
    return np.kron(coarse, np.ones((5, 30, 30), np.uint64))


def arguments(folder: Path, source: dict[str, Any], **changes: Any) -> list[str]:
    settings = {
        **{"format": "precomputed", "source": source, "within": None},
        **{"labels": True, **changes},
    }
    places = {"--work": folder / "work", "--output": folder / "precomputed" / "segments"}
    flat = [str(part) for pair in places.items() for part in pair]
    return ["--settings", json.dumps(settings), "--threads", "1", *flat]


def run_export(folder: Path, source: dict[str, Any], **changes: Any) -> Path:
    export.main(arguments(folder, source, **changes))
    return folder / "precomputed" / "segments"


def theirs(layer: Path, mip: int) -> Any:
    from cloudvolume import CloudVolume

    return CloudVolume(f"precomputed://file://{layer}", mip=mip, progress=False)


@pytest.mark.parametrize("compress", [True, False])
def test_ids_as_cloud_volume_reads_them(tmp_path: Path, ids: np.ndarray, compress: bool) -> None:
    source = write_zarr(tmp_path / "s.zarr", "segments", ids)
    layer = run_export(tmp_path, source, gzip=compress)
    exported = theirs(layer, 0)

    assert exported.resolution.tolist() == [9, 9, 20]
    assert exported.voxel_offset.tolist() == [-7, 5, 3]
    assert (exported.layer_type, exported.encoding) == ("segmentation", "compressed_segmentation")
    np.testing.assert_array_equal(np.asarray(exported[:, :, :])[..., 0].T, ids)
    coarse = theirs(layer, 1)
    assert coarse.resolution.tolist() == [18, 18, 20]
    assert coarse.voxel_offset.tolist() == [-4, 2, 3]
    assert coarse.volume_size.tolist() == [136, 151, 20]
    # Voxel x of mip 1 covers 2x and 2x + 1 of mip 0: 36 = (2 * 16 + 7 - 1) -> id of 37 and 38.
    here = np.asarray(coarse[12:13, 20:21, 5:6])[0, 0, 0, 0]
    assert here == ids[5 - 3, 2 * 20 - 5, 2 * 12 + 7]


def test_each_mip_is_where_the_finest_is(tmp_path: Path, ids: np.ndarray) -> None:
    source = write_zarr(tmp_path / "s.zarr", "segments", ids)
    layer = run_export(tmp_path, source)
    volume = open_volume(f"file://{layer}", mip=1)

    assert volume.voxel_size_nm == (20, 18, 18)
    assert volume.box == VoxelBox((3, 2, -4), (20, 151, 136))
    data = volume.read(volume.box)
    inner = ids[:, 1:, 1:]
    expected = inner[:, : 298 // 2 * 2 : 2, : 268 // 2 * 2 : 2]
    # Blobs are 30 voxels wide: all four voxels agree but at their borders.
    assert (data[:, 1:150, 1:135] == expected).mean() > 0.9
    with pytest.raises(DataError, match="has no mip 2"):
        open_volume(f"file://{layer}", mip=2)


def test_affinities_keep_their_channels(tmp_path: Path) -> None:
    affs = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
    source = write_zarr(tmp_path / "p.zarr", "affs", affs)
    layer = run_export(tmp_path, source, labels=False)
    exported = np.asarray(theirs(layer, 0)[:, :, :])

    np.testing.assert_array_equal(exported.T, affs)
    ours = open_volume(f"file://{layer}")
    assert ours.channels == 3
    np.testing.assert_array_equal(ours.read(ours.box), affs)
    coarse = open_volume(f"file://{layer}", mip=1)
    z, y, x = 4, 30, 40
    box = VoxelBox((z + 3, y, x), (1, 1, 1))
    four = affs[:, z, 2 * y - 5 : 2 * y - 3, 2 * x + 7 : 2 * x + 9].reshape(3, -1)
    expected = np.floor(four.mean(axis=1) + 0.5)
    np.testing.assert_array_equal(coarse.read(box).ravel(), expected)


def test_raw_is_cut_to_what_was_predicted(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    source = write_zarr(tmp_path / "raw.zarr", "raw", raw)
    predicted = create_volume(
        tmp_path / "p.zarr",
        "affs",
        shape=(3, 10, 100, 90),
        chunks=(3, 10, 64, 64),
        dtype=np.uint8,
        voxel_size_nm=SIZE,
        offset_nm=[(o + 4) * s for o, s in zip(OFFSET, SIZE, strict=True)],
    )
    predicted[...] = 0
    within = {"path": str(tmp_path / "p.zarr"), "array": "affs"}
    layer = run_export(tmp_path, source, labels=False, within=within)
    exported = np.asarray(theirs(layer, 0)[:, :, :])[..., 0].T
    np.testing.assert_array_equal(exported, raw[4:14, 4:104, 4:94])


def test_an_interrupted_export_resumes_to_the_same_layer(tmp_path: Path, ids: np.ndarray) -> None:
    many = np.tile(ids, (4, 1, 1))
    source = write_zarr(tmp_path / "s.zarr", "segments", many)
    layer = run_export(tmp_path, source)
    expected = store_bytes(layer)

    def remove() -> None:
        manifest_path(layer).unlink()
        shutil.rmtree(layer)

    def some_blocks_are_done() -> bool:
        return any(f.stat().st_size for f in (tmp_path / "work").glob("*/mip_0.jsonl"))

    remove()
    interrupt("export.py", arguments(tmp_path, source), some_blocks_are_done, remove)
    assert not layer.exists()
    damaged = min((tmp_path / "precomputed").glob("segments.partial/9_9_20/[!.]*"))
    damaged.write_bytes(damaged.read_bytes()[:-3])
    finish("export.py", arguments(tmp_path, source))
    assert store_bytes(layer) == expected
    check_manifest(layer, digests=True)


@pytest.mark.parametrize("form", ["precomputed", "ome_zarr"])
def test_no_byte_of_a_written_chunk_is_read_for_its_manifest(
    tmp_path: Path, ids: np.ndarray, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    source = write_zarr(tmp_path / "s.zarr", "segments", ids)
    read: list[Path] = []

    def noted(file: Path, *arguments: Any) -> Any:
        read.append(file)
        return file_digests(file, *arguments)

    monkeypatch.setattr(chunk_index, "file_digests", noted)
    layer = run_export(tmp_path, source, format=form, zarr_format=2)

    assert read and all("s.zarr" in file.parts for file in read)
    monkeypatch.undo()
    check_manifest(layer, digests=True)


def test_a_damaged_layer_is_detected(
    tmp_path: Path, ids: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = run_export(tmp_path, write_zarr(tmp_path / "s.zarr", "segments", ids))
    verify.main([str(tmp_path / "precomputed")])
    chunk = min((layer / "18_18_20").iterdir())
    chunk.write_bytes(chunk.read_bytes() + b"x")
    with pytest.raises(SystemExit):
        verify.main([str(tmp_path / "precomputed")])
    assert "18_18_20: its bytes changed" in capsys.readouterr().err
    assert not manifest_path(layer).exists()


def test_a_layer_replaces_an_earlier_one(tmp_path: Path, ids: np.ndarray) -> None:
    """The manifest of the earlier one does not describe the mips that are being written."""
    run_export(tmp_path, write_zarr(tmp_path / "s.zarr", "segments", ids))
    layer = run_export(tmp_path, write_zarr(tmp_path / "t.zarr", "segments", ids + 1))

    np.testing.assert_array_equal(np.asarray(theirs(layer, 0)[:, :, :])[..., 0].T, ids + 1)
    check_manifest(layer, digests=True)


def test_a_layer_that_the_user_changed_is_not_replaced(tmp_path: Path, ids: np.ndarray) -> None:
    source = write_zarr(tmp_path / "s.zarr", "segments", ids)
    layer = run_export(tmp_path, source)
    run_export(tmp_path, source, gzip=True)

    (layer / "mesh").mkdir()
    with pytest.raises(DataError, match=r"changed after it was written \(mesh was added\)"):
        run_export(tmp_path, source)
    assert (layer / "mesh").is_dir()
    (layer / "mesh").rmdir()
    chunk = next(path for path in (layer / "9_9_20").iterdir())
    chunk.write_bytes(b"proofread")
    with pytest.raises(DataError, match="its bytes changed since they were written"):
        run_export(tmp_path, source)
    assert chunk.read_bytes() == b"proofread"


def test_types_that_neuroglancer_lacks_are_refused(tmp_path: Path) -> None:
    source = write_zarr(tmp_path / "s.zarr", "segments", np.zeros((4, 4, 4), np.int64))
    with pytest.raises(DataError, match="is int64; a layer of ids is one of uint32, uint64"):
        run_export(tmp_path, source)


@given(
    offset=st.tuples(*[st.integers(-9, 9)] * 3),
    shape=st.tuples(*[st.integers(1, 3000)] * 3),
    size=st.sampled_from([(20, 9, 9), (8, 8, 8), (40, 4, 4), (4, 40, 40)]),
)
def test_coarser_mips_cover_the_finest(
    offset: tuple[int, int, int], shape: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    mips = all_mips(size, VoxelBox(offset, shape))
    finest = mips[0].box.to_nm(size)
    for mip in mips:
        whole = mip.box.to_nm(mip.voxel_size_nm)
        assert whole.contains(finest)
        starts = zip(whole.offset, finest.offset, mip.voxel_size_nm, strict=True)
        assert all(b - a < v for a, b, v in starts)
    assert max(mips[-1].box.shape) <= 256
    assert len({mip.key for mip in mips}) == len(mips)


def test_edges_become_alike() -> None:
    sizes = [Mip((40, 4, 4), VoxelBox((0, 0, 0), (9, 9, 9)))]
    for _ in range(4):
        sizes.append(coarser(sizes[-1]))
    assert [m.voxel_size_nm for m in sizes] == [
        (40, 4, 4),
        (40, 8, 8),
        (40, 16, 16),
        (40, 32, 32),
        (80, 64, 64),
    ]


def test_coarser_voxels_are_the_majority_or_the_rounded_mean() -> None:
    parts = np.array([[7, 1, 5, 2**63], [7, 2, 5, 2**63], [0, 2, 9, 1], [3, 9, 9, 1]], np.uint64)
    assert most_frequent(parts).tolist() == [7, 2, 9, 2**63]
    assert rounded_mean(np.array([[1, 0], [2, 0]], np.uint8)).tolist() == [2, 0]
    assert rounded_mean(np.array([[0.5], [1.0]], np.float32)).tolist() == [0.75]
