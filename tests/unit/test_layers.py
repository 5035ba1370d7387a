"""Precomputed layers and n5 datasets: positions, axis order, parts, and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrace.errors import DataError
from retrace.formats.headers import read_header
from retrace.formats.precomputed import check_local_layer
from retrace.formats.source import Region, Source
from retrace.geometry import VoxelBox
from retrace.remote.addresses import is_address, is_zarr, local_folder
from retrace.storage.volumes import open_volume
from tiny_n5 import write_n5

DATA = np.random.default_rng(3).integers(0, 255, (10, 70, 66), np.uint8)
SIZE = (20, 9, 9)


def write_with_cloudvolume(
    folder: Path,
    data: np.ndarray,
    offset: tuple[int, int, int],
    compress: str | bool = False,
    **scale: Any,
) -> None:
    """(Z, Y, X) or (C, Z, Y, X) by another program; `offset` in voxels, z, y, x."""
    from cloudvolume import CloudVolume

    channels = data.shape[0] if data.ndim == 4 else 1
    options: dict[str, Any] = {"layer_type": "image", "encoding": "raw"} | scale
    info = CloudVolume.create_new_info(
        num_channels=channels,
        data_type=str(data.dtype),
        resolution=SIZE[::-1],
        voxel_offset=offset[::-1],
        volume_size=data.shape[-3:][::-1],
        chunk_size=[64, 64, 32],
        **options,
    )
    volume = CloudVolume(
        f"precomputed://file://{folder}",
        info=info,
        compress=compress,
        progress=False,
        non_aligned_writes=True,
    )
    volume.commit_info()
    volume[:, :, :] = data.T if data.ndim == 4 else data.T[..., None]


@pytest.fixture
def layer(tmp_path: Path) -> str:
    write_with_cloudvolume(tmp_path / "layer", DATA, (2, 30, 400))
    return f"file://{tmp_path / 'layer'}"


def test_a_layer_is_placed_by_its_metadata_in_z_y_x(layer: str) -> None:
    volume = open_volume(layer, voxel_size_nm=SIZE)

    assert volume.box == VoxelBox((2, 30, 400), DATA.shape)
    assert volume.voxel_size_nm == SIZE
    np.testing.assert_array_equal(DATA, volume.read(volume.box))


def test_a_part_of_a_layer(layer: str) -> None:
    volume = open_volume(f"precomputed://{layer}")
    part = volume.read(VoxelBox((5, 90, 460), (3, 4, 6)))

    np.testing.assert_array_equal(DATA[3:6, 60:64, 60:66], part)
    around = volume.read(VoxelBox((0, 30, 400), (3, 1, 1)), fill=7)
    np.testing.assert_array_equal([7, 7, DATA[0, 0, 0]], around.ravel())
    with pytest.raises(DataError, match="leaves the volume"):
        volume.read(VoxelBox((0, 30, 400), (3, 1, 1)))


def test_a_malformed_layer_is_refused(layer: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no mip 2; it has 0: \[20, 9, 9\] nm"):
        open_volume(layer, mip=2)
    with pytest.raises(DataError, match=r"`resolution` \[20, 9, 9\] nm, and"):
        open_volume(layer, voxel_size_nm=(8, 8, 8))
    with pytest.raises(DataError, match="cannot be opened as a precomputed layer"):
        open_volume(f"file://{tmp_path / 'nothing'}")


def test_a_missing_chunk_is_an_error(layer: str, tmp_path: Path) -> None:
    chunks = sorted((tmp_path / "layer" / "9_9_20").iterdir())
    chunks[0].unlink()
    volume = open_volume(layer)
    with pytest.raises(DataError, match="is missing"):
        volume.read(volume.box)


def test_planning_looks_at_local_layers_only(layer: str) -> None:
    inside = Region(offset=(40, 270, 3600), shape=(200, 630, 594))
    check_local_layer(Source(path=layer), inside)
    check_local_layer(Source(path="gs://nobody/nothing", mip=9), inside)
    for box, mip, message in (
        (inside.with_(offset=(40, 270, 3609)), 0, r"leaves the volume \[40, 270, 3600\]"),
        (inside, 1, "has no mip 1"),
    ):
        with pytest.raises(DataError, match=message):
            check_local_layer(Source(path=layer, mip=mip), box)


def test_which_paths_are_addresses() -> None:
    assert is_address("gs://bucket/layer") and is_address("precomputed://https://host/layer")
    assert not is_address("data/a.zarr")
    assert is_zarr("s3://bucket/a.zarr/b") and is_zarr("zarr://https://host/a")
    assert not is_zarr("s3://bucket/a") and not is_zarr("precomputed://s3://bucket/a.zarr")
    assert local_folder("precomputed://file:///a/b") == Path("/a/b")
    assert local_folder("gs://bucket/layer") is None


# ---------------------------------------------------------------- n5


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 2**63, (7, 12, 9), np.uint64)


def test_n5_is_read_in_z_y_x_with_its_place(tmp_path: Path, labels: np.ndarray) -> None:
    path = write_n5(
        tmp_path / "ids", labels, (4, 5, 6), resolution=[9.0, 9.0, 20.0], offset=[27, 18, 40]
    )
    volume = open_volume(path)

    assert volume.box == VoxelBox((2, 2, 3), (7, 12, 9))
    np.testing.assert_array_equal(labels, volume.read(volume.box))
    part = volume.read(VoxelBox((5, 4, 8), (3, 8, 2)))
    np.testing.assert_array_equal(labels[3:6, 2:10, 5:7], part)


def test_n5_as_another_program_reads_it(tmp_path: Path) -> None:
    """CloudVolume's reader of multi-scale n5, which takes single bytes only to be in order."""
    from cloudvolume import CloudVolume

    write_n5(tmp_path / "all" / "s0", DATA, (4, 50, 60))
    root = {"resolution": [9, 9, 20], "downsamplingFactors": [[1, 1, 1]]}
    (tmp_path / "all" / "attributes.json").write_text(json.dumps(root))
    theirs = CloudVolume(f"n5://file://{tmp_path / 'all'}", progress=False)[:, :, :]
    ours = open_volume(tmp_path / "all" / "s0", voxel_size_nm=SIZE)

    np.testing.assert_array_equal(np.asarray(theirs)[..., 0].T, ours.read(ours.box))


def test_absent_n5_blocks_are_0_and_damaged_ones_an_error(
    tmp_path: Path, labels: np.ndarray
) -> None:
    path = write_n5(tmp_path / "ids", labels, (4, 5, 6))
    (path / "0" / "0" / "0").unlink()
    with pytest.raises(
        DataError, match=r"1 of 12 chunks are missing or empty files, such as 0/0/0; .*`missing_c"
    ):
        open_volume(path, voxel_size_nm=SIZE)
    volume = open_volume(path, voxel_size_nm=SIZE, missing_chunks="fill")
    values = volume.read(volume.box)

    assert not values[:4, :5, :6].any()
    np.testing.assert_array_equal(labels[4:], values[4:])
    block = path / "1" / "1" / "1"
    block.write_bytes(block.read_bytes()[:30])
    with pytest.raises(DataError, match=r"1/1/1 cannot be read"):
        volume.read(volume.box)


@pytest.mark.parametrize(
    "compression",
    [{"type": "gzip", "useZlib": True}, {"type": "bzip2"}, {"type": "xz"}, {"type": "raw"}],
)
def test_n5_in_every_compression(
    tmp_path: Path, labels: np.ndarray, compression: dict[str, Any]
) -> None:
    path = write_n5(tmp_path / "ids", labels, (4, 5, 6), compression=compression)
    volume = open_volume(path, voxel_size_nm=SIZE)

    np.testing.assert_array_equal(labels, volume.read(volume.box))
    block = path / "1" / "1" / "1"
    whole = block.read_bytes()
    for damaged in (whole[:-3], whole[:16], whole[:5], b"", b"<!DOCTYPE html><html>log in</html>"):
        block.write_bytes(damaged)
        with pytest.raises(DataError, match=r"1/1/1 (cannot be read \(|is a web page).*fetch"):
            volume.read(volume.box)


def test_a_damaged_stream_of_an_n5_block_is_named(tmp_path: Path, labels: np.ndarray) -> None:
    path = write_n5(tmp_path / "ids", labels, (4, 5, 6))
    volume = open_volume(path, voxel_size_nm=SIZE)
    block = path / "0" / "0" / "0"
    content = bytearray(block.read_bytes())
    for at in range(28, len(content), 7):  # in the deflate stream and its checksum
        block.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        with pytest.raises(DataError, match=r"0/0/0 cannot be read \(.*fetch the volume again"):
            volume.read(volume.box)


def test_an_n5_that_cannot_be_read(tmp_path: Path, labels: np.ndarray) -> None:
    odd = write_n5(tmp_path / "odd", labels, (4, 5, 6), compression={"type": "zstd"})
    with pytest.raises(DataError, match="compressed with 'zstd'; allowed: raw, gzip, bzip2, xz"):
        open_volume(odd, voxel_size_nm=SIZE)
    with pytest.raises(DataError, match=r"no.n5 does not exist; correct `path`"):
        open_volume(tmp_path / "no.n5", "a")


@pytest.mark.parametrize("open_one", [open_volume, read_header])
def test_a_dataset_that_an_n5_does_not_have(
    tmp_path: Path, labels: np.ndarray, open_one: Callable[..., Any]
) -> None:
    for name in ("raw/s0", "labels"):
        write_n5(tmp_path / "a.n5" / name, labels, (4, 5, 6))

    with pytest.raises(DataError, match=r"no array 'label'; did you mean 'labels'\? allowed: lab"):
        open_one(tmp_path / "a.n5", "label")
    with pytest.raises(DataError, match=r"set `array` to one of: labels, raw/s0"):
        open_one(tmp_path / "a.n5")
    (tmp_path / "empty.n5").mkdir()
    with pytest.raises(DataError, match=r"has no `dimensions`; nor has .* Correct `path`"):
        open_one(tmp_path / "empty.n5", "raw")


@pytest.mark.parametrize("name", ["raw", "em/s0"])
@pytest.mark.parametrize("order", ["xyz", "zyx", "yzx"])
def test_an_image_in_an_n5_is_in_the_order_of_its_own_axes(
    tmp_path: Path, labels: np.ndarray, order: str, name: str
) -> None:
    """`name`: also a dataset in a group that has no attributes.json of its own."""
    size, place = (
        dict(zip("zyx", (40, 8, 4), strict=True)),
        dict(zip("zyx", (400, 80, 8), strict=True)),
    )
    steps = [
        {"type": "scale", "scale": [size[a] for a in order]},
        {"type": "translation", "translation": [place[a] for a in order]},
    ]
    image = {
        "version": "0.4",
        "axes": [{"name": a, "type": "space", "unit": "nanometer"} for a in order],
        "datasets": [{"path": name, "coordinateTransformations": steps}],
    }
    write_n5(tmp_path / "a.n5" / name, labels, (4, 5, 6))
    (tmp_path / "a.n5" / "attributes.json").write_text(json.dumps({"multiscales": [image]}))
    volume = open_volume(tmp_path / "a.n5", name)

    assert volume.voxel_size_nm == (40, 8, 4)
    assert volume.box.offset == (10, 10, 2)


@pytest.mark.parametrize("key", ["axes", "axis_names"])
@pytest.mark.parametrize("names", ["xyz", ["x", "y", "z"]])
def test_letters_of_axes_in_an_n5_are_the_files(
    tmp_path: Path, labels: np.ndarray, key: str, names: Any
) -> None:
    write_n5(tmp_path / "a.n5", labels, (4, 5, 6), **{key: names})
    volume = open_volume(tmp_path / "a.n5", voxel_size_nm=SIZE)

    assert np.array_equal(volume.read(volume.box), labels)


# ---------------------------------------------------------------- layers of other programs


def test_ids_and_channels_of_another_writer_are_read(tmp_path: Path) -> None:
    ids = np.random.default_rng(4).integers(0, 2**60, (10, 70, 66), np.uint64)
    kind = {"layer_type": "segmentation", "encoding": "compressed_segmentation", "compress": "gzip"}
    write_with_cloudvolume(tmp_path / "ids", ids, (0, 0, 0), **kind)
    volume = open_volume(f"file://{tmp_path / 'ids'}")
    np.testing.assert_array_equal(volume.read(volume.box), ids)

    three = np.stack([DATA, DATA[::-1], DATA[:, ::-1]])
    write_with_cloudvolume(tmp_path / "three", three, (1, 2, 3))
    volume = open_volume(f"file://{tmp_path / 'three'}")
    assert (volume.channels, volume.box.offset) == (3, (1, 2, 3))
    np.testing.assert_array_equal(volume.read(volume.box), three)


@pytest.mark.parametrize("hashed", ["identity", "murmurhash3_x86_128"])
@pytest.mark.parametrize("packed", ["raw", "gzip"])
def test_sharded_layers(tmp_path: Path, hashed: str, packed: str) -> None:
    """Shards that cloud-volume makes of chunks, by its own numbers of them."""
    from cloudvolume.datasource.precomputed.common import compressed_morton_code
    from cloudvolume.datasource.precomputed.sharding import ShardingSpecification

    spec = ShardingSpecification(
        type="neuroglancer_uint64_sharded_v1",
        preshift_bits=1,
        hash=hashed,  # type: ignore[arg-type]
        minishard_bits=2,
        shard_bits=1,
        minishard_index_encoding=packed,  # type: ignore[arg-type]
        data_encoding=packed,  # type: ignore[arg-type]
    )
    chunk, size = (8, 16, 16), DATA.shape
    grid = [-(-s // c) for s, c in zip(size, chunk, strict=True)]
    chunks = {}
    for index in np.ndindex(*grid):
        part = DATA[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunk, strict=True))]
        code = compressed_morton_code(np.array([index[::-1]]), grid[::-1])
        chunks[int(np.ravel(code)[0])] = part.T.tobytes("F")
    assert len(chunks) == np.prod(grid)
    scale = {
        "key": "9_9_20",
        "resolution": SIZE[::-1],
        "voxel_offset": [400, 30, 2],
        "size": size[::-1],
        "chunk_sizes": [chunk[::-1]],
        "encoding": "raw",
        "sharding": {k: v if isinstance(v, str) else int(v) for k, v in spec.to_dict().items()},
    }
    folder = tmp_path / "9_9_20"
    folder.mkdir()
    for name, body in spec.synthesize_shards(chunks).items():
        (folder / name).write_bytes(body)
    info = {"data_type": "uint8", "num_channels": 1, "type": "image", "scales": [scale]}
    (tmp_path / "info").write_text(json.dumps(info))
    volume = open_volume(f"file://{tmp_path}")

    assert volume.box == VoxelBox((2, 30, 400), size)
    np.testing.assert_array_equal(volume.read(volume.box), DATA)
    part = VoxelBox((9, 60, 410), (2, 30, 20))
    np.testing.assert_array_equal(volume.read(part), DATA[7:9, 30:60, 10:30])
    assert volume.reader
    assert volume.reader.record.summary()["blocks"] > len(chunks)


# ---------------------------------------------------------------- OME-Zarr


def write_ome(folder: Path, data: np.ndarray, unit: str, zarr_format: int, lead: int) -> Path:
    """Two levels, the second every other voxel in y and x, with leading axes of size 1."""
    import zarr

    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)  # type: ignore[arg-type]
    levels = [data, data[:, ::2, ::2]]
    for name, level in zip("01", levels, strict=True):
        shaped = level.reshape((1,) * lead + level.shape)
        chunks = (1,) * lead + (4, 16, 16)
        group.create_array(name, data=shaped, chunks=chunks)
    axes = [{"name": n, "type": "other"} for n in "tc"[:lead]]
    axes += [{"name": n, "type": "space", "unit": unit} for n in "zyx"]
    sizes = [(0.02, 0.009, 0.009), (0.02, 0.018, 0.018)]
    moves = [(0.04, 0.09, 0.0), (0.04, 0.0945, 0.0045)]  # centres of the first voxels
    datasets = [
        {
            "path": name,
            "coordinateTransformations": [
                {"type": "scale", "scale": [1] * lead + list(scale)},
                {"type": "translation", "translation": [0] * lead + list(move)},
            ],
        }
        for name, scale, move in zip("01", sizes, moves, strict=True)
    ]
    image = {"version": "0.4", "axes": axes, "datasets": datasets}
    if zarr_format == 2:
        group.attrs["multiscales"] = [image]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    return folder


@pytest.mark.parametrize(("zarr_format", "lead"), [(2, 0), (2, 2), (3, 1)])
@pytest.mark.parametrize("place", ["{}", "zarr://file://{}"])
def test_a_level_of_an_ome_zarr_image(
    tmp_path: Path, zarr_format: int, lead: int, place: str
) -> None:
    folder = write_ome(tmp_path / "a.zarr", DATA, "micrometer", zarr_format, lead)
    fine = open_volume(place.format(folder), voxel_size_nm=SIZE)
    coarse = open_volume(place.format(folder), mip=1)

    assert fine.box == VoxelBox((2, 10, 0), DATA.shape)
    np.testing.assert_array_equal(fine.read(fine.box), DATA)
    assert (coarse.voxel_size_nm, coarse.offset_nm) == ((20, 18, 18), (40, 90, 0))
    np.testing.assert_array_equal(coarse.read(coarse.box), DATA[:, ::2, ::2])
    with pytest.raises(DataError, match="has no level 2; it has 0: 0, 1: 1"):
        open_volume(place.format(folder), mip=2)


def test_an_ome_zarr_image_without_a_unit_has_no_voxel_size(tmp_path: Path) -> None:
    for unit, message in (("parsec", "'parsec' is no unit"), ("", "without a unit, and the con")):
        folder = write_ome(tmp_path / f"{unit}.zarr", DATA, unit, 2, 0)
        for size in (None, SIZE):
            with pytest.raises(DataError, match=message):
                open_volume(folder, voxel_size_nm=size)
