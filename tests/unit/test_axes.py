"""Arrays with their axes in any order, in either byte order, from every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from cloudvolume import CloudVolume

from array_files import FORMATS, write_zarr
from retrace.errors import DataError
from retrace.formats.source import Source
from retrace.geometry import VoxelBox
from retrace.planning.volume_layout import source_layout
from retrace.storage.volumes import open_source

SIZES = {"t": 1, "c": 2, "z": 5, "y": 7, "x": 9}
ORDERS = ["zyx", "xyz", "czyx", "zyxc", "cxyz", "tczyx", "zcyx", "xyzct"]
SIZE_NM = (40, 4, 4)
PART = VoxelBox((1, 2, 3), (3, 4, 5))


def stored(order: str, dtype: str = "<u2") -> np.ndarray:
    """Different values, with the axes in this order."""
    shape = [SIZES[letter] for letter in order]
    return np.arange(np.prod(shape), dtype=np.int64).reshape(shape).astype(dtype)


def expected(data: np.ndarray, order: str, channel: int) -> np.ndarray:
    """One channel of the data, (Z, Y, X)."""
    left_out = [letter for letter in order if letter not in "zyx"]
    for letter in left_out:
        index = channel if letter == "c" else 0
        data = np.take(data, index, order.index(letter))
        order = order.replace(letter, "")
    return data.transpose([order.index(letter) for letter in "zyx"])


def check(source: Source, data: np.ndarray) -> None:
    """Opened and planned alike, and each block has its voxels."""
    volume, layout = open_source(source), source_layout(source)
    read = volume.read(volume.box)
    assert volume.dtype.isnative and read.dtype.isnative and volume.array.dtype.isnative
    assert np.array_equal(read, data)
    assert np.array_equal(volume.read(PART), data[(..., *PART.slices())])
    assert layout is not None
    assert (layout.shape, layout.dtype) == (data.shape, volume.dtype.name)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", ">f4", "|u1"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", FORMATS)
def test_each_order_is_read(tmp_path: Path, name: str, order: str, dtype: str) -> None:
    data = stored(order, dtype)
    fields = {**FORMATS[name](tmp_path, data), "voxel_size_nm": SIZE_NM, "axes": order}
    channels = [0, 1] if "c" in order else [None]

    for channel in channels:
        check(Source(**fields, channel=channel), expected(data, order, channel or 0))
    if "c" in order:
        both = np.stack([expected(data, order, channel) for channel in (0, 1)])
        check(Source(**fields), both)


@pytest.mark.parametrize("name", FORMATS)
def test_axes_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    source = Source(**FORMATS[name](tmp_path, stored("czyx")), voxel_size_nm=SIZE_NM)

    for axes, message in (("zyx", "has 4 axes"), ("tzyx", "has 2 entries along its axis 't'")):
        with pytest.raises(DataError, match=message):
            open_source(source.with_(axes=axes))
        with pytest.raises(DataError, match=message):
            source_layout(source.with_(axes=axes))
    with pytest.raises(DataError, match="has 2 channels, numbered from 0; there is no 2"):
        open_source(source.with_(axes="czyx", channel=2))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("order", ["zyx", "xyz", "czyx", "cxyz", "tczyx"])
def test_an_ome_zarr_image_names_its_axes(tmp_path: Path, order: str, version: int) -> None:
    data = stored(order)
    write_zarr(tmp_path, data, zarr_format=version)
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": n, "type": kinds.get(n, "space")} for n in order]
    for axis in axes:
        if axis["type"] == "space":
            axis["unit"] = "nanometer"
    scale = [dict(zip("zyx", map(float, SIZE_NM), strict=True)).get(n, 1.0) for n in order]
    transforms = [{"type": "scale", "scale": scale}]
    image = {
        "version": "0.4" if version == 2 else "0.5",
        "axes": axes,
        "datasets": [{"path": "raw", "coordinateTransformations": transforms}],
    }
    content = {"multiscales": [image]}
    attributes = content if version == 2 else {"ome": {"version": "0.5", **content}}
    zarr.open_group(tmp_path / "a.zarr", mode="a", zarr_format=version).attrs.put(attributes)

    for path in (str(tmp_path / "a.zarr"), f"file://{tmp_path}/a.zarr"):
        source = Source(path=path, channel=1 if "c" in order else None)
        check(source, expected(data, order, 1))
        check(source.with_(axes=order), expected(data, order, 1))
        with pytest.raises(DataError, match="contradict each other"):
            open_source(source.with_(axes=order[::-1]))


@pytest.mark.parametrize("channels", [1, 2])
def test_a_layer_has_its_own_order(tmp_path: Path, channels: int) -> None:
    data = stored("cxyz")[:channels]
    layer = tmp_path / "layer"
    volume = CloudVolume.from_numpy(
        np.moveaxis(data, 0, -1),
        f"file://{layer}",
        resolution=SIZE_NM[::-1],
        chunk_size=(4, 4, 4),
        layer_type="image",
        progress=False,
    )
    assert volume.num_channels == channels
    source = Source(path=f"file://{layer}")

    for channel in range(channels):
        check(source.with_(channel=channel), expected(data, "cxyz", channel))
    with pytest.raises(DataError, match="contradict each other.*leave out `axes`"):
        open_source(source.with_(axes="xyz"))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("order", ["zyx", "xyz", "czyx", "zcyx", "tczyx", "cxyz"])
def test_tifs_of_either_byte_order(tmp_path: Path, order: str, byteorder: str) -> None:
    data = stored(order)
    tifffile.imwrite(tmp_path / "a.tif", data, byteorder=byteorder, photometric="minisblack")
    source = Source(path=str(tmp_path / "a.tif"), voxel_size_nm=SIZE_NM, axes=order)

    check(source.with_(channel=1 if "c" in order else None), expected(data, order, 1))


@pytest.mark.parametrize("order", ["zyx", "czyx", "zcyx", "tzcyx"])
@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_tifs_that_name_their_axes(tmp_path: Path, kind: str, order: str) -> None:
    data = stored(order)
    is_imagej = kind == "imagej"
    shown = order if order != "czyx" or not is_imagej else "zcyx"  # ImageJ has one order
    written = data if shown == order else data.swapaxes(0, 1)
    path = tmp_path / ("a.tif" if is_imagej else "a.ome.tif")
    tifffile.imwrite(
        path,
        written,
        imagej=is_imagej,
        ome=not is_imagej,
        metadata={"axes": shown.upper()},
        photometric="minisblack",
    )
    source = Source(path=str(path), voxel_size_nm=SIZE_NM, channel=1 if "c" in order else None)

    check(source, expected(data, order, 1))
