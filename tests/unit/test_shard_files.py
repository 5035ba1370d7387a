"""Stores of zarr format 3: each shard is written once, whole, and other programs read it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given
from hypothesis import strategies as st

from retrace.errors import DataError
from retrace.files import piece_name
from retrace.formats.shard_files import (
    pieces,
    read_document,
    read_index,
    shard_file,
    shard_layout,
)
from retrace.geometry import VoxelBox, blocks, chunk_count
from retrace.storage import store_check
from retrace.storage.block_journal import drop_damaged
from retrace.storage.chunk_index import chunk_digests, index_path
from retrace.storage.manifest import check_manifest, describe_arrays, manifest_path, write_manifest
from retrace.storage.shard_grid import shard_edges
from retrace.storage.unfinished import finish, open_unfinished, write_complete_shards
from retrace.storage.volumes import open_volume
from retrace.storage.zarr_writer import create_volume, publish, write_list

SHAPE, CHUNKS, SHARDS = (20, 50, 44), (4, 8, 10), (8, 32, 20)
SIZE, OFFSET = (20, 9, 9), (60, 45, -27)
DATA = np.random.default_rng(0).integers(0, 2**63, SHAPE, np.uint64)
DATA[:9, :9, :12] = 0  # whole chunks of the fill value


@pytest.fixture(autouse=True)
def new_job() -> None:
    """Each test is a job of its own: nothing was checked before."""
    store_check._CHECKS.clear()
    store_check._COMPLETE_SHARDS.clear()


def create(store: Path, data: np.ndarray = DATA, **changes: Any) -> zarr.Array:
    options: dict[str, Any] = {"chunks": (*data.shape[:-3], *CHUNKS), "shards": SHARDS}
    return create_volume(
        store,
        "ids",
        shape=data.shape,
        dtype=data.dtype,
        voxel_size_nm=SIZE,
        offset_nm=OFFSET,
        zarr_format=3,
        **options | changes,
    )


def write_blocks(store: Path, boxes: list[VoxelBox]) -> None:
    array: Any = open_unfinished(store)["ids"]
    for box in boxes:
        array[box.slices()] = DATA[box.slices()]
        write_complete_shards(array, box.slices())


BOXES = list(blocks(VoxelBox((0, 0, 0), SHAPE), (4, 8, 20)))


def written(store: Path, boxes: list[VoxelBox] = BOXES) -> Path:
    """The store, written block by block and finished."""
    create(store)
    write_blocks(store, boxes)
    finish(store)
    return store


def file_bytes(store: Path) -> dict[str, bytes]:
    files = (path for path in store.rglob("*") if path.is_file())
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


def layout_of(store: Path) -> Any:
    layout = shard_layout(read_document(store / "ids"))
    assert layout is not None
    return layout


def test_tensorstore_and_zarr_read_every_voxel(tmp_path: Path) -> None:
    store = written(tmp_path / "a.zarr")
    spec = {"driver": "zarr3", "kvstore": f"file://{store}/ids/"}
    theirs = tensorstore.open(spec, read=True).result()

    np.testing.assert_array_equal(theirs.read().result(), DATA)
    np.testing.assert_array_equal(np.asarray(zarr.open(store, mode="r")["ids"][...]), DATA)
    assert list(theirs.domain.labels) == ["z", "y", "x"]
    volume = open_volume(store, "ids")
    assert (volume.voxel_size_nm, volume.offset_nm) == (SIZE, OFFSET)
    np.testing.assert_array_equal(volume.read(volume.box), DATA)


def test_any_order_of_blocks_gives_the_same_files(tmp_path: Path) -> None:
    shuffled = random.sample(BOXES, len(BOXES))
    first, second = written(tmp_path / "a.zarr"), written(tmp_path / "b.zarr", shuffled)
    assert file_bytes(first) == file_bytes(second)
    assert len([name for name in file_bytes(first) if "/c/" in name]) == chunk_count(SHAPE, SHARDS)


def test_shards_appear_during_the_work_and_chunks_disappear(tmp_path: Path) -> None:
    create(tmp_path / "a.zarr")
    write_blocks(tmp_path / "a.zarr", BOXES[: len(BOXES) // 2])
    folder = tmp_path / "a.zarr/ids"
    shards = [path for path in (folder / "c").rglob("*") if path.is_file()]
    loose = [path for path in (folder / ".chunks").rglob("*") if path.is_file()]

    assert 0 < len(shards) < chunk_count(SHAPE, SHARDS)
    assert len(loose) < chunk_count(SHAPE, CHUNKS) / 3
    array: Any = open_unfinished(tmp_path / "a.zarr")["ids"]
    done = BOXES[0].slices()
    np.testing.assert_array_equal(array[done], DATA[done])


def test_chunks_of_the_fill_value_are_stored(tmp_path: Path) -> None:
    store = written(tmp_path / "a.zarr")
    layout = layout_of(store)
    assert len(read_index(shard_file(store / "ids", (0, 0, 0)), layout)) == 16
    for shard in layout.all_shards():
        index = read_index(shard_file(store / "ids", shard), layout)
        present = int((index[:, 1] < 2**63).sum())
        assert present == len(layout.chunks_in(shard))


def test_a_store_that_misses_a_chunk_is_not_published(tmp_path: Path) -> None:
    create(tmp_path / "a.partial")
    write_blocks(tmp_path / "a.partial", BOXES[:1])
    with pytest.raises(DataError, match=r"chunk \[0, 1, 0\] of shard \[0, 0, 0\] is not written"):
        publish(tmp_path / "a.partial", tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_a_chunk_that_is_written_again_replaces_the_one_in_its_shard(tmp_path: Path) -> None:
    expected = file_bytes(written(tmp_path / "a.zarr"))
    store = written(tmp_path / "b.zarr")
    array: Any = open_unfinished(store)["ids"]
    array[:4, :8, :10] = 7
    assert (array[:4, :8, :10] == 7).all()
    finish(store)
    changed = open_volume(store, "ids").array
    assert (changed[:4, :8, :10] == 7).all()
    np.testing.assert_array_equal(changed[4:], DATA[4:])
    write_blocks(store, BOXES)
    finish(store)
    assert file_bytes(store) == expected


def test_a_damaged_chunk_of_a_shard_is_dropped_alone(tmp_path: Path) -> None:
    store = written(tmp_path / "a.zarr")
    file, layout = shard_file(store / "ids", (0, 0, 0)), layout_of(store)
    offset, size = map(int, read_index(file, layout)[3])
    content = bytearray(file.read_bytes())
    content[offset + size - 2] ^= 1
    file.write_bytes(content)

    array: Any = open_unfinished(store)["ids"]
    drop_damaged(array, store / "ids", VoxelBox((0, 0, 0), SHARDS))
    index = np.unravel_index(3, layout.chunks_per_shard)
    stored = np.asarray(array[:8, :32, :20])
    begin = [i * c for i, c in zip(index, CHUNKS, strict=True)]
    hole = tuple(slice(b, b + c) for b, c in zip(begin, CHUNKS, strict=True))
    expected = DATA[:8, :32, :20].copy()
    expected[hole] = 0
    np.testing.assert_array_equal(stored, expected)


def test_a_shard_without_its_index_is_dropped(tmp_path: Path) -> None:
    store = written(tmp_path / "a.zarr")
    file = shard_file(store / "ids", (0, 0, 0))
    file.write_bytes(file.read_bytes()[:-1])
    array: Any = open_unfinished(store)["ids"]
    drop_damaged(array, store / "ids", VoxelBox((0, 0, 0), (1, 1, 1)))
    assert not file.exists()


def test_manifests_count_shards_and_describe_both_shapes(tmp_path: Path) -> None:
    store = written(tmp_path / "a.zarr")
    entry = describe_arrays(store)["ids"]
    assert (entry["chunks"], entry["shards"]) == (list(CHUNKS), list(SHARDS))
    assert (entry["dtype"], entry["shape"]) == ("uint64", list(SHAPE))
    assert (entry["voxel_size_nm"], entry["offset_nm"]) == (list(SIZE), list(OFFSET))
    assert entry["chunk_count"] == chunk_count(SHAPE, SHARDS)


def test_pieces_are_all_bytes_of_a_shard(tmp_path: Path) -> None:
    store = written(tmp_path / "a.zarr")
    layout = layout_of(store)
    for shard in layout.all_shards():
        file = shard_file(store / "ids", shard)
        found = list(pieces(file, layout))
        assert [begin for begin, _ in found] == [0, *(end for _, end in found[:-1])]
        assert found[-1][1] == file.stat().st_size
        assert len(found) == len(layout.chunks_in(shard)) + 1
    names = list(chunk_digests(store / "ids"))
    assert names[0] == piece_name("c/0/0/0", 0, list(pieces(store / "ids/c/0/0/0", layout))[0][1])


@pytest.mark.parametrize("position", [0.0, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_changed_byte_of_a_shard_is_noticed_when_it_is_read(
    tmp_path: Path, position: float, has_index: bool, prefix: str
) -> None:
    store = written(tmp_path / "a.zarr")
    write_manifest(store, inputs=[], settings={}, seconds=0)
    if not has_index:
        index_path(store).unlink()
    file = shard_file(store / "ids", (1, 0, 1))
    content = bytearray(file.read_bytes())
    content[int(position * len(content))] ^= 16
    file.write_bytes(content)
    volume = open_volume(f"{prefix}{store}", "ids")

    with pytest.raises(DataError, match="ids is damaged|its bytes changed"):
        volume.read(volume.box)
    assert not manifest_path(store).exists()


def test_parts_of_an_intact_store_are_read_next_to_a_damaged_one(tmp_path: Path) -> None:
    store = written(tmp_path / "a.zarr")
    write_manifest(store, inputs=[], settings={}, seconds=0)
    check_manifest(store, digests=True)
    file = shard_file(store / "ids", (1, 0, 1))
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    volume = open_volume(store, "ids")
    np.testing.assert_array_equal(volume.array[:8], DATA[:8])


def test_a_lost_shard_is_named(tmp_path: Path) -> None:
    store = written(tmp_path / "a.zarr")
    write_manifest(store, inputs=[], settings={}, seconds=0)
    volume = open_volume(store, "ids")
    shard_file(store / "ids", (1, 1, 1)).unlink()
    with pytest.raises(DataError, match="1 missing, such as c/1/1/1"):
        volume.read(volume.box)
    write_manifest(written(tmp_path / "b.zarr"), inputs=[], settings={}, seconds=0)
    shard_file(tmp_path / "b.zarr/ids", (0, 0, 0)).unlink()
    with pytest.raises(DataError, match="17 chunks, its manifest says 18: 1 missing, such as c/0"):
        open_volume(tmp_path / "b.zarr", "ids")


def test_a_chunk_that_an_own_shard_misses_is_refused(tmp_path: Path) -> None:
    """As zarr leaves out chunks of the fill value, unless `write_empty_chunks` is set."""
    for name, writes_empty in (("sparse", False), ("full", True)):
        zarr.create_array(
            tmp_path / f"{name}.zarr",
            shape=SHAPE,
            chunks=CHUNKS,
            shards=SHARDS,
            dtype=DATA.dtype,
            attributes={"resolution": list(SIZE), "offset": list(OFFSET)},
            config={"write_empty_chunks": writes_empty},
        )[...] = DATA
    full = open_volume(tmp_path / "full.zarr")
    np.testing.assert_array_equal(full.read(full.box), DATA)
    with pytest.raises(DataError, match=r"chunks are missing in shard \[0, 0, 0\].*missing_chunks"):
        open_volume(tmp_path / "sparse.zarr")
    filled = open_volume(tmp_path / "sparse.zarr", missing_chunks="fill")
    np.testing.assert_array_equal(filled.read(filled.box), DATA)


def test_lists_and_channels_have_the_same_format(tmp_path: Path) -> None:
    affs = np.random.default_rng(1).integers(0, 256, (3, *SHAPE), np.uint8)
    create(tmp_path / "a.zarr", affs)[...] = affs
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    write_list(group, "counts", np.arange(5))
    assert describe_arrays(tmp_path / "a.zarr")["ids"]["shards"] == [3, *SHARDS]
    assert group["counts"].metadata.zarr_format == 3
    assert group["counts"][...].tolist() == [0, 1, 2, 3, 4]
    attributes = dict(group["ids"].attrs)  # as gunpowder and funlib.persistence read them
    assert attributes["resolution"] == attributes["voxel_size"] == list(SIZE)
    assert (attributes["offset"], attributes["units"]) == (list(OFFSET), ["nm"] * 3)
    assert attributes["axis_names"] == ["c^", "z", "y", "x"]
    image = dict(group.attrs)["ome"]
    assert image["version"] == "0.5"
    assert [axis["name"] for axis in image["multiscales"][0]["axes"]] == ["c", "z", "y", "x"]


def test_both_formats_of_one_array_open_in_tensorstore(tmp_path: Path) -> None:
    """tensorstore refuses an array of format 2 whose metadata mention zstd's checksum."""
    for zarr_format, driver in ((2, "zarr"), (3, "zarr3")):
        store = tmp_path / f"{zarr_format}.zarr"
        created = create_volume(
            store,
            "ids",
            shape=SHAPE,
            chunks=CHUNKS,
            dtype=DATA.dtype,
            voxel_size_nm=SIZE,
            offset_nm=OFFSET,
            zarr_format=zarr_format,
        )
        created[:10] = DATA[:10]
        open_unfinished(store)["ids"][10:] = DATA[10:]
        finish(store)
        spec = {"driver": driver, "kvstore": f"file://{store}/ids/"}
        theirs = tensorstore.open(spec, read=True).result()
        np.testing.assert_array_equal(theirs.read().result(), DATA)


@pytest.mark.parametrize("begin", [0, 10])
def test_chunks_of_format_2_have_checksums_that_readers_compare(tmp_path: Path, begin: int) -> None:
    store = tmp_path / "a.zarr"
    create_volume(
        store,
        "ids",
        shape=SHAPE,
        chunks=(10, 50, 44),
        dtype=DATA.dtype,
        voxel_size_nm=SIZE,
        offset_nm=OFFSET,
        zarr_format=2,
    )
    open_unfinished(store)["ids"][...] = DATA
    file = store / f"ids/{begin // 10}/0/0"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # of the checksum, at the end of a zstd frame
    file.write_bytes(content)
    with pytest.raises(RuntimeError, match="Zstd decompression error"):
        zarr.open(store, mode="r")["ids"][begin : begin + 1]


def test_a_large_volume_has_few_files() -> None:
    """The zebra finch's benchmark region: tiles of (63, 270, 270) voxels in 512 jobs."""
    region = (5300, 9300, 9700)
    predicted = chunk_count(region, shard_edges(region, (63, 270, 270), fewest=4 * 512))
    segmented = chunk_count(region, (256, 512, 512))
    assert 2 * predicted + 2 * segmented == 29418


@given(
    shape=st.tuples(*[st.integers(1, 3000)] * 3),
    unit=st.tuples(*[st.integers(1, 200)] * 3),
    fewest=st.integers(1, 50),
)
def test_shards_are_whole_units_and_as_many_as_wanted(
    shape: tuple[int, int, int], unit: tuple[int, int, int], fewest: int
) -> None:
    edges = shard_edges(shape, unit, fewest)
    assert all(edge % step == 0 for edge, step in zip(edges, unit, strict=True))
    assert chunk_count(shape, edges) >= min(fewest, chunk_count(shape, unit))
    assert all(
        edge <= max(step, 1.5 * most)
        for edge, step, most in zip(edges, unit, (256, 512, 512), strict=True)
    )
