"""Every way into the library reads own volumes by the same contract: masks, scores, views."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from cloudvolume import CloudVolume

import evaluate
import mask
from file_server import served
from retrace.config.view_model import ViewLayerSource
from retrace.errors import DataError
from retrace.formats.source import Source
from retrace.storage.volumes import open_source, open_volume
from retrace.viewing.layers import open_layers
from stated_files import CFG, RAW, opened

IDS = np.kron(np.arange(1, 9, dtype=np.uint64).reshape(2, 2, 2), np.ones((4, 8, 16), np.uint64))
"""Labels (8, 16, 32) of 8 boxes, without their first box, which is background."""
IDS[IDS == 1] = 0


def xyz_image(path: Path) -> str:
    """The labels as an OME-Zarr whose axes are x, y, z."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    data = IDS.transpose()
    group.create_array("0", shape=data.shape, chunks=(16, 8, 4), dtype=data.dtype)[...] = data
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "xyz"]
    steps = [
        {"type": "scale", "scale": CFG[::-1]},
        {"type": "translation", "translation": [8, 4, 40]},
    ]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    return str(path)


def sparse_layer(path: Path) -> str:
    """The labels as a precomputed layer whose program leaves out chunks of 0."""
    info = CloudVolume.create_new_info(
        1, "segmentation", "uint64", "raw", CFG[::-1], (2, 1, 1), IDS.shape[::-1],
        chunk_size=(16, 8, 4),
    )  # fmt: skip
    options = {"delete_black_uploads": True, "compress": False, "progress": False}
    layer = CloudVolume(f"file://{path}", info=info, **options)
    layer.commit_info()
    layer[...] = IDS.transpose()[..., None]
    return f"file://{path}"


VOLUMES: dict[str, Callable[[Path], str]] = {"xyz": xyz_image, "layer": sparse_layer}


@pytest.fixture(params=VOLUMES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Labels of 40, 4, 4 nm from 40, 4, 8 nm on."""
    path = VOLUMES[request.param](tmp_path / request.param)
    return {"path": path} | ({"missing_chunks": "fill"} if request.param == "layer" else {})


def test_a_source_is_read(source: dict[str, Any]) -> None:
    volume = open_source(Source(**source))
    assert (volume.voxel_size_nm, volume.offset_nm) == ((40, 4, 4), (40, 4, 8))
    np.testing.assert_array_equal(volume.read(volume.box), IDS)


def test_a_mask_is_written(source: dict[str, Any], tmp_path: Path) -> None:
    settings = json.dumps({"background_ids": [0], "labels": source})
    mask.main(["--settings", settings, "--output", str(tmp_path / "mask.zarr")])

    volume = open_volume(tmp_path / "mask.zarr", "labels_mask")
    assert volume.offset_nm == (40, 4, 8)
    np.testing.assert_array_equal(volume.read(volume.box), IDS > 0)


@pytest.mark.parametrize("is_labels", [True, False])
def test_two_volumes_are_compared(source: dict[str, Any], tmp_path: Path, is_labels: bool) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["ids"] = IDS
        file["ids"].attrs.update({"resolution": CFG, "offset": [40, 4, 8]})
    pair = [source["path"], f"{tmp_path}/other.h5:ids"]
    labels, segments = pair if is_labels else pair[::-1]
    command = ["compare", "--labels", labels, "--segmentation", f"s={segments}"]
    output = tmp_path / "scores.json"
    fill = ["--missing-chunks", source.get("missing_chunks", "refuse")]
    evaluate.main([*command, *fill, "--output", str(output)])

    (row,) = json.loads(output.read_text())["segmentations"].values()
    assert (row["voi_split"], row["voi_merge"]) == (0, 0)


def test_a_view_shows_it(source: dict[str, Any]) -> None:
    layers, absent = open_layers([ViewLayerSource(kind="labels", **source)])
    assert not absent
    assert layers[0].volume.offset_nm == (40, 4, 8)
    np.testing.assert_array_equal(layers[0].volume.read(layers[0].volume.box), IDS)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("scheme", ["", "file://", "http://"])
def test_consolidated_metadata_that_are_out_of_date_are_not_used(
    tmp_path: Path, zarr_format: Any, scheme: str
) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    group.create_array("raw", shape=RAW.shape, dtype="u1", chunks=(2, 32, 40))[...] = RAW
    with warnings.catch_warnings(action="ignore"):  # format 3 does not specify them
        zarr.consolidate_metadata(tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+", use_consolidated=False)
    group.create_array("labels", shape=RAW.shape, dtype="u8")[...] = 1
    group["raw"].resize((14, 32, 40))
    group["raw"][12:] = 1
    group["raw"].attrs["resolution"] = [8, 8, 8]

    with served(tmp_path) as address:
        folder = {"": str(tmp_path), "file://": f"file://{tmp_path}", "http://": address}[scheme]
        read = opened if scheme != "http://" else _streamed
        assert read(f"{folder}/a.zarr", "labels", voxel_size_nm=CFG).box.shape == RAW.shape
        assert read(f"{folder}/a.zarr", "raw").box.shape == (14, 32, 40)
        with pytest.raises(DataError, match="contradict each other"):
            read(f"{folder}/a.zarr", "raw", voxel_size_nm=CFG)


def _streamed(path: str, array: str, **settings: Any) -> Any:
    """A source that planning does not know."""
    return open_source(Source(path=path, array=array, **settings))
