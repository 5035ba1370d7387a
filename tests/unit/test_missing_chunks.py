"""A missing or changed chunk is an error everywhere, and never counts as zeros."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from cloudvolume import CloudVolume

import fetch
import mask
import tiny_training as tiny
import train
from file_server import served
from prediction_case import VOXEL_SIZE_NM
from retrace.errors import DataError
from retrace.formats.source import Source
from retrace.geometry import VoxelBox
from retrace.storage import manifest as manifests
from retrace.storage.chunk_index import index_path
from retrace.storage.manifest import check_manifest, manifest_path, write_manifest
from retrace.storage.store_check import _CHECKS, _COMPLETE
from retrace.storage.volumes import open_group, open_source, open_volume
from retrace.storage.zarr_writer import create_volume
from tiny_n5 import write_n5

PREFIX = "training/v.zarr"
SHAPE = (8, 40, 40)
RAW, LABELS = "volumes/raw", "volumes/labels"


@pytest.fixture(autouse=True)
def new_job() -> None:
    """Each test is a job of its own: nothing was checked before."""
    _CHECKS.clear()


def written(store: Path, seed: int = 1, sparse: bool = False) -> Path:
    """A store with raw and labels of 8 chunks each; `sparse`: labels have no chunk 0.0.0."""
    rng = np.random.default_rng(seed)
    for array, dtype in ((RAW, np.uint8), (LABELS, np.uint64)):
        group = zarr.open_group(store, mode="a", zarr_format=2)
        created = group.create_array(array, shape=SHAPE, chunks=(4, 20, 20), dtype=dtype)
        created.attrs.update({"resolution": list(VOXEL_SIZE_NM), "offset": [0, 0, 0]})
        created[...] = rng.integers(1, 200, SHAPE).astype(dtype)
    if sparse:
        (store / LABELS / "0.0.0").unlink()
    return store


def fetched(folder: Path, **options: Any) -> Path:
    """Such a store, fetched from a mirror of a bucket."""
    if not (folder / "mirror").exists():
        written(folder / "mirror" / PREFIX, **options)
    settings = {"bucket": "b", "prefix": PREFIX, "arrays": [RAW, LABELS], "threads": 2}
    output = folder / "data/v.zarr"
    mirror = ["--mirror", str(folder / "mirror")]
    fetch.main(["--settings", json.dumps(settings), "--output", str(output), *mirror])
    return output


def change(chunk: Path) -> None:
    """Changes a byte of a file, which keeps its size."""
    data = bytearray(chunk.read_bytes())
    data[-1] ^= 1
    chunk.write_bytes(bytes(data))


# ---------------------------------------------------------------- stores with a manifest


def test_a_lost_chunk_of_a_fetched_store_is_named_and_fetched_again(tmp_path: Path) -> None:
    store = fetched(tmp_path)
    for name in ("0.1.0", "1.1.1"):
        (store / LABELS / name).unlink()

    with pytest.raises(DataError) as error:
        open_volume(store, RAW)

    assert "v.zarr/volumes/labels has 6 chunks, its manifest says 8" in str(error.value)
    assert "2 missing, such as 0.1.0" in str(error.value)
    assert "run the same command again to fetch what is missing" in str(error.value)
    assert not manifest_path(store).exists()
    before = (store / RAW / "0.0.0").stat().st_ino
    fetched(tmp_path)
    assert (store / RAW / "0.0.0").stat().st_ino == before, "verified chunks are kept"
    check_manifest(store, digests=True)


def test_a_changed_chunk_of_a_fetched_store_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    store = fetched(tmp_path)
    change(store / RAW / "1.0.1")
    volume = open_volume(store, RAW)

    assert volume.array[:4].any(), "other chunks can be read"
    with pytest.raises(DataError, match=r"raw is damaged: .*of 8 chunks .*1.0.1.* to fetch"):
        volume.read(volume.box)
    assert not manifest_path(store).exists()


def test_a_chunk_that_vanishes_during_a_job_is_not_zero(tmp_path: Path) -> None:
    store = fetched(tmp_path)
    volume = open_volume(store, RAW)
    (store / RAW / "0.0.0").unlink()

    with pytest.raises(DataError, match="7 chunks, its manifest says 8: 1 missing, such as 0.0.0"):
        volume.read(volume.box)


def test_chunks_that_the_bucket_does_not_have_stay_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = fetched(tmp_path, sparse=True)
    assert f"{LABELS}: 1 of 8 chunks are not in mirror" in capsys.readouterr().out
    volume = open_volume(store, LABELS)

    assert not volume.read(volume.box)[:4, :20, :20].any()
    (store / LABELS / "0.0.1").unlink()
    _CHECKS.clear()
    with pytest.raises(DataError, match="1 missing, such as 0.0.1"):
        open_volume(store, LABELS)


def test_changed_metadata_are_noticed(tmp_path: Path) -> None:
    store = fetched(tmp_path)
    attributes = store / RAW / ".zattrs"
    attributes.write_text(attributes.read_text().replace("20", "40"))

    with pytest.raises(DataError, match=r"raw has voxel_size_nm \[40, .*its manifest says \[20,"):
        open_volume(store, RAW)


def test_a_store_without_an_index_is_checked_too(tmp_path: Path) -> None:
    """As those that an earlier version of this tool has fetched."""
    store = fetched(tmp_path)
    index_path(store).unlink()
    open_volume(store, RAW).array[...]
    assert index_path(store).exists(), "the next job needs no second pass"

    index_path(store).unlink()
    (store / RAW / "1.1.0").unlink()
    _CHECKS.clear()
    with pytest.raises(DataError, match="1 missing, such as 1.1.0"):
        open_volume(store, RAW)


def test_each_chunk_is_checked_once_per_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fetched(tmp_path)
    listings = []
    listed = manifests.chunk_files
    monkeypatch.setattr(manifests, "chunk_files", lambda f: listings.append(f) or listed(f))
    for _ in range(3):
        volume = open_volume(store, RAW)
        volume.read(volume.box)

    assert len(listings) == 2, "two arrays, once"


def test_made_stores_are_checked_by_every_reader(tmp_path: Path) -> None:
    store = tmp_path / "fragments.zarr"
    create_volume(
        store,
        "fragments",
        shape=SHAPE,
        chunks=(4, 20, 20),
        dtype="uint64",
        voxel_size_nm=VOXEL_SIZE_NM,
        offset_nm=(0, 0, 0),
    )[...] = 1
    write_manifest(store, inputs=[], settings={}, seconds=0)
    change(store / "fragments/1/1/1")

    with pytest.raises(DataError, match=r"fragments is damaged.*1/1/1.*to recompute it"):
        open_group(store)["fragments"][...]


def test_a_mask_of_a_purged_volume_is_not_made(tmp_path: Path) -> None:
    store = fetched(tmp_path)
    (store / LABELS / "0.0.0").unlink()
    settings = {"labels": {"path": str(store), "array": LABELS}, "background_ids": []}
    output = tmp_path / "mask.zarr"

    with pytest.raises(DataError, match="1 missing, such as 0.0.0"):
        mask.main(["--settings", json.dumps(settings), "--output", str(output)])
    assert not output.exists()


def test_training_on_a_purged_volume_is_refused(tmp_path: Path) -> None:
    store = tiny.write_volume(tmp_path / "cube.zarr")
    write_manifest(store, inputs=[], settings={}, seconds=0)
    (store / "raw/0/0/0").unlink()

    with pytest.raises(DataError, match="raw has 0 chunks, its manifest says 1"):
        train.main(tiny.arguments(tmp_path, tiny.settings(store, 2)))


# ---------------------------------------------------------------- own volumes


def test_a_missing_chunk_of_an_own_zarr_is_refused_unless_the_source_allows_it(
    tmp_path: Path,
) -> None:
    store = written(tmp_path / "own.zarr", sparse=True)
    source = Source(path=str(store), array=LABELS)

    open_source(source.with_(array=RAW))
    with pytest.raises(
        DataError,
        match="1 of 8 chunks are missing or empty files, .* 0.0.0; .*`missing_chunks: fill`",
    ):
        open_source(source)
    volume = open_source(source.with_(missing_chunks="fill"))
    assert not volume.read(volume.box)[:4, :20, :20].any()
    assert volume.read(volume.box).any()


def test_a_shard_that_is_an_empty_file_is_refused(tmp_path: Path) -> None:
    data = np.ones((8, 8, 8), np.uint8)
    array = zarr.create_array(
        tmp_path / "own.zarr",
        shape=data.shape,
        shards=(4, 8, 8),
        chunks=(2, 4, 4),
        dtype=data.dtype,
    )
    array[...] = data
    volume = open_volume(tmp_path / "own.zarr", "", VOXEL_SIZE_NM)
    assert volume.read(volume.box).all()
    (tmp_path / "own.zarr/c/1/0/0").write_bytes(b"")
    _COMPLETE.clear()
    with pytest.raises(
        DataError, match="1 of 2 chunks are missing or empty files, such as c/1/0/0"
    ):
        open_volume(tmp_path / "own.zarr", "", VOXEL_SIZE_NM)


def test_a_chunk_of_an_own_zarr_that_vanishes_during_a_job_is_refused(tmp_path: Path) -> None:
    volume = open_volume(written(tmp_path / "own.zarr"), RAW)
    (tmp_path / "own.zarr" / RAW / "0.1.0").unlink()

    with pytest.raises(DataError, match="chunk volumes/raw/0.1.0 is missing"):
        volume.read(volume.box)


def test_a_zarr_whose_chunks_are_nested_against_its_metadata_is_refused(tmp_path: Path) -> None:
    """A11: dimension_separator is taken out of .zarray, as before zarr 2.8."""
    store = tiny.write_volume(tmp_path / "own.zarr")
    file = store / "raw/.zarray"
    metadata = json.loads(file.read_text())
    del metadata["dimension_separator"]
    file.write_text(json.dumps(metadata))

    with pytest.raises(DataError, match=r"named with '/' instead: set `\"dimension_separator\""):
        open_volume(store, "raw")


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("scheme", ["", "file://", "http://"])
def test_chunks_that_no_key_reaches_are_not_empty(
    tmp_path: Path, nested: bool, scheme: str
) -> None:
    """A11, where missing chunks are allowed: all of them would read as 0."""
    data = np.ones((4, 6, 8), np.uint8)
    array = zarr.create_array(
        tmp_path / "own.zarr",
        shape=data.shape,
        chunks=(2, 3, 4),
        dtype=data.dtype,
        zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": "/" if nested else "."},
        attributes={"resolution": [4, 4, 4]},
    )
    array[...] = data
    file = tmp_path / "own.zarr/.zarray"
    right = json.loads(file.read_text())

    with served(tmp_path) as address:
        path = {"": str(tmp_path), "file://": f"file://{tmp_path}", "http://": address}[scheme]
        source = Source(path=f"{path}/own.zarr", missing_chunks="fill")
        assert open_source(source).read(VoxelBox((0, 0, 0), data.shape)).all()
        file.write_text(json.dumps({**right, "dimension_separator": "." if nested else "/"}))
        with pytest.raises(DataError, match="its metadata name chunks as .*dimension_separator"):
            open_source(source)


def test_missing_blocks_of_an_n5_are_refused(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 9, (8, 10, 12)).astype(np.uint64)
    path = write_n5(tmp_path / "ids", values, (4, 5, 6))
    volume = open_volume(path, voxel_size_nm=(4, 4, 4))
    (path / "1/0/0").unlink()

    with pytest.raises(DataError, match="chunk 1/0/0 is missing"):
        volume.read(volume.box)


def test_chunks_of_an_h5_that_were_never_written_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "own.h5", "w") as file:
        chunked = file.create_dataset("ids", SHAPE, np.uint64, chunks=(4, 20, 20))
        chunked[:4] = 7
        file.create_dataset("raw", SHAPE, np.uint8)  # one block, which is never written
    path, size = tmp_path / "own.h5", VOXEL_SIZE_NM

    with pytest.raises(DataError, match=r"'ids' \(4 of 8 chunks\) is missing; .*chunks: fill`"):
        open_volume(path, "ids", size)
    with pytest.raises(DataError, match=r"'raw' \(1 of 1 chunks\) is missing"):
        open_volume(path, "raw", size)
    volume = open_volume(path, "ids", size, missing_chunks="fill")
    assert volume.read(volume.box).sum() == 7 * np.prod(SHAPE) // 2
    with h5py.File(path, "a") as file:
        file["ids"][4:] = 0
    assert open_volume(path, "ids", size).read(volume.box).sum() == 7 * np.prod(SHAPE) // 2


def test_values_in_other_files_than_the_h5_are_refused(tmp_path: Path) -> None:
    """Edited or lost, they would be stale, or 0, and nothing would notice."""
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["x"] = np.ones(SHAPE, np.uint8)
    layout = h5py.VirtualLayout(SHAPE, np.uint8)
    layout[...] = h5py.VirtualSource(tmp_path / "part.h5", "x", SHAPE)
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file.create_virtual_dataset("virtual", layout)
        file["link"] = h5py.ExternalLink("part.h5", "/x")
        file["groups"] = h5py.ExternalLink("part.h5", "/")
        file.create_dataset(
            "outside", SHAPE, np.uint8, external=[(str(tmp_path / "v.bin"), 0, 99999)]
        )
        file["inside"] = np.ones(SHAPE, np.uint8)
        file["soft"] = h5py.SoftLink("/inside")

    for array in ("link", "groups/x"):
        with pytest.raises(DataError, match=r"is a link to '/x' in .*part.h5; name that file"):
            open_volume(tmp_path / "own.h5", array, VOXEL_SIZE_NM)
    for array in ("virtual", "outside"):
        with pytest.raises(DataError, match="are in other files .*copy them into one file"):
            open_volume(tmp_path / "own.h5", array, VOXEL_SIZE_NM)
    volume = open_volume(tmp_path / "own.h5", "soft", VOXEL_SIZE_NM)
    assert volume.read(volume.box).all()


def test_strips_of_a_tif_that_were_never_written_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.tif"
    tifffile.imwrite(path, np.full(SHAPE, 9, np.uint8), photometric="minisblack", tile=(16, 16))
    with tifffile.TiffFile(path) as tif:
        tif.pages.useframes = False
        tag = tif.pages[1].tags["TileByteCounts"]
        where = tag.valueoffset
    content = bytearray(path.read_bytes())
    content[where : where + tag.valuebytecount] = bytes(tag.valuebytecount)
    path.write_bytes(bytes(content))

    volume = open_volume(path, voxel_size_nm=VOXEL_SIZE_NM)
    assert volume.read(volume.box.intersect(volume.box.shift((-7, 0, 0)))).all()
    with pytest.raises(DataError, match="page 1 in own.tif is missing"):
        volume.read(volume.box)
    filled = open_volume(path, voxel_size_nm=VOXEL_SIZE_NM, missing_chunks="fill")
    assert not filled.read(filled.box)[1].any()


@pytest.mark.parametrize("scheme", ["zarr://file://", ""])
def test_a_streamed_zarr_is_refused_too(tmp_path: Path, scheme: str) -> None:
    store = written(tmp_path / "own.zarr")
    (store / RAW / "0.1.0").unlink()

    with pytest.raises(DataError, match="0.1.0"):
        volume = open_volume(f"{scheme}{store}", RAW)
        volume.read(volume.box)
    volume = open_volume(f"{scheme}{store}", RAW, missing_chunks="fill")
    assert not volume.read(volume.box)[:4, 20:, :20].any()


def test_layers_whose_black_chunks_were_left_out_can_be_read(tmp_path: Path) -> None:
    """A17: cloud-volume's delete_black_uploads."""
    info = CloudVolume.create_new_info(
        1, "image", "uint8", "raw", (8, 8, 8), (0, 0, 0), (32, 32, 16), chunk_size=(16, 16, 8)
    )
    address = f"file://{tmp_path / 'layer'}"
    layer = CloudVolume(address, info=info, delete_black_uploads=True, progress=False)
    layer.commit_info()
    image = np.full((32, 32, 16), 7, np.uint8)
    image[:16, :16, :8] = 0
    layer[...] = image[..., None]
    source = Source(path=address)

    with pytest.raises(DataError, match="is missing.*`missing_chunks: fill`"):
        volume = open_source(source)
        volume.read(volume.box)
    volume = open_source(source.with_(missing_chunks="fill"))
    assert not volume.read(volume.box)[:8, :16, :16].any()
    assert volume.read(volume.box)[8:].all()
    lost = next((tmp_path / "layer").rglob("16-32_16-32_8-16*"))
    lost.write_bytes(b"" if lost.suffix != ".gz" else gzip.compress(b""))
    with pytest.raises(DataError, match="16-32_16-32_8-16 is an empty file"):
        volume = open_source(source.with_(missing_chunks="fill"))
        volume.read(volume.box)
