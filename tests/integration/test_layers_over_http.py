"""Exported layers, read by CloudVolume and tensorstore from `python -m http.server`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore

import export
from retrace.storage.volumes import open_volume
from retrace.storage.zarr_writer import create_volume

SIZE = (20, 9, 9)
OFFSET = (3, 5, -7)
"""Voxels; odd, so that coarser voxels reach over the border."""
SHAPE = (20, 300, 270)
IDS = np.random.default_rng(1).choice(np.array([0, 3, 2**40, 2**63], np.uint64), (5, 20, 18))
VALUES = {
    "segments": np.kron(IDS, np.ones((4, 15, 15), np.uint64)),
    "raw": np.random.default_rng(2).integers(1, 256, SHAPE, np.uint8),
    "affinities": np.random.default_rng(3).integers(1, 256, (3, *SHAPE), np.uint8),
}
"""Each layer's voxels: segments and raw (Z, Y, X), affinities (C, Z, Y, X)."""


@pytest.fixture(scope="module", params=VALUES)
def layer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer, exported with the default settings."""
    name, folder = request.param, tmp_path_factory.mktemp("layers")
    data = VALUES[name]
    created = create_volume(
        folder / "a.zarr",
        name,
        shape=data.shape,
        chunks=(*data.shape[:-3], 64, 128, 128),
        dtype=data.dtype,
        voxel_size_nm=SIZE,
        offset_nm=[o * s for o, s in zip(OFFSET, SIZE, strict=True)],
    )
    created[...] = data
    source = {"path": str(folder / "a.zarr"), "array": name}
    settings = {"format": "precomputed", "source": source, "labels": name == "segments"}
    places = ["--work", str(folder / "work"), "--output", str(folder / "served" / name)]
    export.main(["--settings", json.dumps(settings), *places])
    return folder / "served" / name


@pytest.fixture
def address(layer: Path) -> Iterator[str]:
    """The layer's address on a plain web server: no gzip, no byte ranges, no extra headers."""
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]
    server = subprocess.Popen(
        command, cwd=layer.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert server.stdout is not None
    try:
        port = server.stdout.readline().split(" port ")[1].split()[0]
        yield f"http://127.0.0.1:{port}/{layer.name}"
    finally:
        server.kill()
        server.stdout.close()
        server.wait()


def expected(layer: Path, mip: int) -> tuple[np.ndarray, tuple[int, int, int], Any]:
    """Voxels (X, Y, Z, C), the first voxel and the voxel size in nm (x, y, z) of a mip."""
    data, start, size = VALUES[layer.name], OFFSET, SIZE
    if mip:
        volume = open_volume(f"file://{layer}", mip=mip)
        data, start, size = volume.read(volume.box), volume.box.offset, volume.voxel_size_nm
    return data.T if data.ndim == 4 else data.T[..., None], start[::-1], size[::-1]


@pytest.mark.parametrize("mip", [0, 1])
@pytest.mark.parametrize("on_disk", [False, True], ids=["web server", "disk"])
def test_cloud_volume_reads_every_voxel(layer: Path, address: str, mip: int, on_disk: bool) -> None:
    from cloudvolume import CloudVolume

    place = f"file://{layer}" if on_disk else address
    read = CloudVolume(f"precomputed://{place}", mip=mip, progress=False)
    data, start, size = expected(layer, mip)
    assert tuple(read.voxel_offset) == start
    assert tuple(read.resolution) == size
    np.testing.assert_array_equal(np.asarray(read[:, :, :]), data)


@pytest.mark.parametrize("mip", [0, 1])
@pytest.mark.parametrize("on_disk", [False, True], ids=["web server", "disk"])
def test_tensorstore_reads_every_voxel(layer: Path, address: str, mip: int, on_disk: bool) -> None:
    place = f"file://{layer}/" if on_disk else f"{address}/"
    spec = {"driver": "neuroglancer_precomputed", "kvstore": place, "scale_index": mip}
    read = tensorstore.open(spec, read=True).result()
    data, start, size = expected(layer, mip)
    assert read.domain.origin[:3] == start
    units = read.dimension_units[:3]
    assert [(unit.multiplier, unit.base_unit) for unit in units] == [(edge, "nm") for edge in size]
    np.testing.assert_array_equal(read.read().result(), data)
