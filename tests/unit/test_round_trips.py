"""Volumes of fractional size go to independent programs and back, voxel by voxel.

Other programs write and this library reads: tensorstore, CloudVolume, h5py, zarr, tifffile. This
library writes and they read; ome-zarr-models parses the metadata of images.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorstore
import tifffile
import zarr
from cloudvolume import CloudVolume

import export
from retrace.formats.source import Source
from retrace.storage.precomputed_writer import LAST_MIP_EDGE
from retrace.storage.volumes import open_source
from retrace.storage.zarr_writer import create_volume
from stated_files import opened

SIZE = (45, 4.6, 4.6)
CORNER = (10, 50, -3)
"""The first voxel, counted from the world's origin (z, y, x)."""
OFFSET = (450, 230, -13.8)
SHAPE = (13, 35, 41)
IDS = np.random.default_rng(3).integers(0, 2**60, SHAPE, np.uint64)
WIDE = np.random.default_rng(5).integers(0, 2**60, (13, 35, LAST_MIP_EDGE + 9), np.uint64)
"""Ids of an exported layer with two levels."""
GREY = np.random.default_rng(4).integers(0, 2**16, SHAPE, np.uint16)


# ---------------------------------------------------------------- other programs write


def by_tensorstore(spec: dict[str, Any], data: np.ndarray, origin: Any = None) -> None:
    """Creates and writes an array; `origin`: of its first voxel, in its own order."""
    store = tensorstore.open({**spec, "create": True}).result()
    region = store if origin is None else store.translate_to[0]
    region[...] = data


def files(path: Path) -> dict[str, str]:
    return {"driver": "file", "path": f"{path}/"}


def tensorstore_zarr_2(path: Path) -> dict[str, Any]:
    metadata = {"shape": SHAPE, "chunks": [4, 16, 16], "dtype": ">u8", "order": "F"}
    metadata |= {"dimension_separator": "/", "compressor": {"id": "blosc", "cname": "zstd"}}
    by_tensorstore({"driver": "zarr", "kvstore": files(path), "metadata": metadata}, IDS)
    attributes = {"voxel_size": SIZE, "offset": OFFSET, "units": ["nm"] * 3}
    (path / ".zattrs").write_text(json.dumps(attributes))
    return {"path": str(path)}


def tensorstore_zarr_3(path: Path) -> dict[str, Any]:
    inner = [{"name": "transpose", "configuration": {"order": [2, 0, 1]}}, {"name": "bytes"}]
    codec = {"chunk_shape": [4, 8, 8], "codecs": [*inner, {"name": "zstd"}]}
    grid = {"name": "regular", "configuration": {"chunk_shape": [8, 16, 16]}}
    metadata = {
        "shape": SHAPE[::-1],
        "data_type": "uint64",
        "chunk_grid": {**grid, "configuration": {"chunk_shape": [16, 16, 8]}},
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {**codec, "chunk_shape": [8, 8, 4], "index_location": "start"},
            }
        ],
        "dimension_names": ["x", "y", "z"],
        "attributes": {"resolution": SIZE[::-1], "offset": OFFSET[::-1]},
    }
    spec = {"driver": "zarr3", "kvstore": files(path), "metadata": metadata}
    by_tensorstore(spec, IDS.transpose())
    return {"path": str(path)}


def tensorstore_n5(path: Path) -> dict[str, Any]:
    metadata = {"dimensions": SHAPE[::-1], "blockSize": [16, 16, 4], "dataType": "uint64"}
    metadata["compression"] = {"type": "xz"}
    spec = {"driver": "n5", "kvstore": files(path), "metadata": metadata}
    by_tensorstore(spec, IDS.transpose())
    file = path / "attributes.json"
    place = {"resolution": SIZE[::-1], "offset": OFFSET[::-1]}
    file.write_text(json.dumps(json.loads(file.read_text()) | place))
    return {"path": str(path)}


def precomputed_spec(path: Path, **scale: Any) -> dict[str, Any]:
    multiscale = {"data_type": "uint64", "num_channels": 1, "type": "segmentation"}
    metadata = {
        "size": SHAPE[::-1],
        "resolution": SIZE[::-1],
        "voxel_offset": CORNER[::-1],
        "chunk_size": [16, 16, 4],
        **scale,
    }
    return {
        "driver": "neuroglancer_precomputed",
        "kvstore": files(path),
        "multiscale_metadata": multiscale,
        "scale_metadata": metadata,
    }


def tensorstore_sharded_layer(path: Path) -> dict[str, Any]:
    sharding = {
        "@type": "neuroglancer_uint64_sharded_v1",
        "hash": "murmurhash3_x86_128",
        "preshift_bits": 1,
        "minishard_bits": 2,
        "shard_bits": 1,
        "data_encoding": "gzip",
        "minishard_index_encoding": "gzip",
    }
    spec = precomputed_spec(path, encoding="raw", sharding=sharding)
    store = tensorstore.open({**spec, "create": True}).result()
    store[...] = IDS.transpose()[..., None]
    return {"path": f"file://{path}"}


def cloudvolume_layer(path: Path) -> dict[str, Any]:
    info = CloudVolume.create_new_info(
        num_channels=1,
        layer_type="segmentation",
        data_type="uint64",
        encoding="compressed_segmentation",
        resolution=SIZE[::-1],
        voxel_offset=CORNER[::-1],
        volume_size=SHAPE[::-1],
        chunk_size=(16, 16, 4),
    )
    layer = CloudVolume(f"file://{path}", info=info, progress=False)
    layer.commit_info()
    layer[...] = IDS.transpose()[..., None]
    return {"path": f"file://{path}"}


def h5(path: Path) -> dict[str, Any]:
    with h5py.File(path, "w") as file:
        options: dict[str, Any] = {"chunks": (4, 16, 16), "compression": "gzip", "shuffle": True}
        dataset = file.create_dataset("volumes/labels/ids", data=IDS.astype(">u8"), **options)
        dataset.attrs["resolution"] = np.array(SIZE, np.float32)
        dataset.attrs["offset"] = np.array(OFFSET)
    return {"path": str(path), "array": "volumes/labels/ids"}


def ome_image(path: Path, zarr_format: Any, axes: str, unit: str, per_nm: int) -> dict[str, Any]:
    data = IDS if axes == "zyx" else IDS.transpose()
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.create_array("s0", shape=data.shape, chunks=(8, 8, 8), dtype="u8")[...] = data
    size, start = ([value / per_nm for value in values] for values in (SIZE, OFFSET))
    size, start = (size, start) if axes == "zyx" else (size[::-1], start[::-1])
    steps = [{"type": "scale", "scale": size}, {"type": "translation", "translation": start}]
    image = {
        "version": "0.4" if zarr_format == 2 else "0.5",
        "axes": [{"name": axis, "type": "space", "unit": unit} for axis in axes],
        "datasets": [{"path": "s0", "coordinateTransformations": steps}],
    }
    group.attrs.put({"multiscales": [image]} if zarr_format == 2 else {"ome": multi(image)})
    return {"path": str(path)}


def multi(image: dict[str, Any]) -> dict[str, Any]:
    return {"version": image.pop("version"), "multiscales": [image]}


def imagej(path: Path) -> dict[str, Any]:
    origin = {f"{axis}origin": -voxel for axis, voxel in zip("zyx", CORNER, strict=True)}
    metadata = {"axes": "ZYX", "unit": "nm", "spacing": 45.0, **origin}
    tifffile.imwrite(path, GREY, imagej=True, resolution=(1 / 4.6, 1 / 4.6), metadata=metadata)
    return {"path": str(path)}


def ome_tiff(path: Path) -> dict[str, Any]:
    size = {f"PhysicalSize{a}": v for a, v in zip("ZYX", SIZE, strict=True)}
    units = {f"PhysicalSize{a}Unit": "nm" for a in "ZYX"}
    start = {f"Position{a}": [v] * SHAPE[0] for a, v in zip("ZYX", OFFSET, strict=True)}
    start["PositionZ"] = [OFFSET[0] + SIZE[0] * z for z in range(SHAPE[0])]
    plane = {**start, **{f"Position{a}Unit": ["nm"] * SHAPE[0] for a in "ZYX"}}
    tifffile.imwrite(
        path, GREY, ome=True, metadata={"axes": "ZYX", **size, **units, "Plane": plane}
    )
    return {"path": str(path)}


WRITERS: dict[str, tuple[Callable[[Path], dict[str, Any]], np.ndarray]] = {
    "tensorstore_2.zarr": (tensorstore_zarr_2, IDS),
    "tensorstore_3.zarr": (tensorstore_zarr_3, IDS),
    "tensorstore.n5": (tensorstore_n5, IDS),
    "tensorstore_layer": (tensorstore_sharded_layer, IDS),
    "cloudvolume_layer": (cloudvolume_layer, IDS),
    "h5py.h5": (h5, IDS),
    "ome_0.4.zarr": (lambda path: ome_image(path, 2, "zyx", "micrometer", 1000), IDS),
    "ome_0.5.zarr": (lambda path: ome_image(path, 3, "xyz", "nanometer", 1), IDS),
    "imagej.tif": (imagej, GREY),
    "tifffile.ome.tif": (ome_tiff, GREY),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_other_programs_write_is_read(tmp_path: Path, name: str) -> None:
    write, data = WRITERS[name]
    source = write(tmp_path / name)
    path = source.pop("path")
    volume = opened(path, source.pop("array", ""), **source)

    assert (volume.voxel_size_nm, volume.offset_nm) == (SIZE, OFFSET)
    assert (volume.box.offset, volume.box.shape) == (CORNER, SHAPE)
    assert volume.dtype == data.dtype
    np.testing.assert_array_equal(volume.read(volume.box), data)


# ---------------------------------------------------------------- this library writes


@pytest.fixture(scope="module", params=[2, 3])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as the programs of the workflow write it, in both formats of zarr."""
    path = tmp_path_factory.mktemp("store") / "a.zarr"
    created = create_volume(
        path,
        "ids",
        shape=WIDE.shape,
        chunks=(8, 16, 16),
        dtype=WIDE.dtype,
        voxel_size_nm=SIZE,
        offset_nm=OFFSET,
        zarr_format=request.param,
    )
    created[...] = WIDE
    return path


def exported(store: Path, folder: Path, name: str) -> Path:
    """A layer, or an image in the store's format of zarr, that the workflow exports."""
    source = {"path": str(store), "array": "ids"}
    chosen = {"zarr_format": 3 if (store / "zarr.json").is_file() else 2}
    settings = json.dumps({"format": name, "source": source, "labels": True, **chosen})
    output = folder / name / ("ids.zarr" if name == "ome_zarr" else "ids")
    paths = ["--work", str(folder / "work"), "--output", str(output)]
    export.main(["--settings", settings, "--threads", "1", *paths])
    return output


def zarr_values(path: Path) -> np.ndarray:
    """An array as tensorstore reads it."""
    driver = "zarr3" if (path / "zarr.json").is_file() else "zarr"
    spec = {"driver": driver, "kvstore": files(path)}
    return np.asarray(tensorstore.open(spec).result().read().result())


def level_places(image: Any, level: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scale and translation of a level, as ome-zarr-models parses them."""
    scale, move = image.multiscales[0].datasets[level].coordinateTransformations
    return tuple(scale.scale), tuple(move.translation)


def parsed_image(path: Path) -> Any:
    """The metadata of an image, checked by ome-zarr-models."""
    attributes = zarr.open_group(path, mode="r").attrs.asdict()
    if "ome" in attributes:
        from ome_zarr_models.v05.image import ImageAttrs

        return ImageAttrs.model_validate(attributes["ome"])
    from ome_zarr_models.v04.image import ImageAttrs as ImageAttrs4

    return ImageAttrs4.model_validate(attributes)


def test_other_programs_read_a_store(store: Path) -> None:
    np.testing.assert_array_equal(zarr_values(store / "ids"), WIDE)
    array = zarr.open_group(store, mode="r")["ids"]
    assert tuple(array.attrs["resolution"]) == SIZE
    assert tuple(array.attrs["offset"]) == OFFSET
    assert level_places(parsed_image(store), 0) == (SIZE, OFFSET)


def test_other_programs_read_an_exported_image(store: Path, tmp_path: Path) -> None:
    image = exported(store, tmp_path, "ome_zarr")
    np.testing.assert_array_equal(zarr_values(image / "0"), WIDE)
    assert level_places(parsed_image(image), 0) == (SIZE, OFFSET)
    size, start = level_places(parsed_image(image), 1)
    assert size == (45, 9.2, 9.2)
    assert start == pytest.approx((450, 232.3, -11.5)), "the first voxel's centre"

    for mip, edge in ((0, 4.6), (1, 9.2)):
        volume = open_source(Source(path=str(image), mip=mip))
        assert (volume.voxel_size_nm, volume.offset_nm) == ((45, edge, edge), OFFSET)


def test_other_programs_read_an_exported_layer(store: Path, tmp_path: Path) -> None:
    layer = exported(store, tmp_path, "precomputed")
    spec = {"driver": "neuroglancer_precomputed", "kvstore": files(layer)}
    read = tensorstore.open(spec).result()
    assert read.domain.origin[:3] == CORNER[::-1]
    assert [unit.multiplier for unit in read.dimension_units[:3]] == list(SIZE[::-1])
    np.testing.assert_array_equal(read[..., 0].read().result().transpose(), WIDE)

    volume = CloudVolume(f"file://{layer}", progress=False)
    assert tuple(volume.resolution) == SIZE[::-1]
    assert tuple(volume.bounds.minpt) == CORNER[::-1]
    np.testing.assert_array_equal(np.asarray(volume[...])[..., 0].transpose(), WIDE)
    ours = open_source(Source(path=f"file://{layer}"))
    assert (ours.voxel_size_nm, ours.offset_nm) == (SIZE, OFFSET)
