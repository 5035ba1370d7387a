"""OME-Zarr images, checked with the format's own models and our reader."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr

import export
from kill import finish, interrupt
from prediction_case import store_bytes
from retrace.storage.manifest import check_manifest, manifest_path
from retrace.storage.volumes import open_volume
from retrace.storage.zarr_writer import create_volume

SIZE = (20, 9, 9)
OFFSET = (60, 45, 27)
SHAPE = (10, 300, 270)


def write_zarr(folder: Path, array: str, data: np.ndarray) -> dict[str, Any]:
    created = create_volume(
        folder,
        array,
        shape=data.shape,
        chunks=(*data.shape[:-3], 64, 128, 128),
        dtype=data.dtype,
        voxel_size_nm=SIZE,
        offset_nm=OFFSET,
    )
    created[...] = data
    return {"path": str(folder), "array": array}


def arguments(folder: Path, source: dict[str, Any], **changes: Any) -> list[str]:
    settings = {"format": "ome_zarr", "source": source, "within": None, "labels": True, **changes}
    paths = ["--work", str(folder / "work"), "--output", str(folder / "ome_zarr" / "segments.zarr")]
    return ["--settings", json.dumps(settings), "--threads", "1", *paths]


def run_export(folder: Path, source: dict[str, Any], **changes: Any) -> Path:
    export.main(arguments(folder, source, **changes))
    return folder / "ome_zarr" / "segments.zarr"


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    """Blobs of 5 x 30 x 30 voxels with large ids."""
    coarse = np.random.default_rng(2).integers(2**40, 2**63, (2, 10, 9), dtype=np.uint64)
    return np.kron(coarse, np.ones((5, 30, 30), np.uint64))


FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])


def images(store: Path, name: str, zarr_format: int) -> Any:
    """The images of a store, as ome-zarr-models reads them; its last version that takes our
    pydantic leaves two types to be resolved."""
    if zarr_format == 2:
        import ome_zarr_models.v04 as models
        from pydantic_zarr.v2 import ArraySpec, GroupSpec
    else:
        import ome_zarr_models.v05 as models
        from pydantic_zarr.v3 import ArraySpec, GroupSpec

    types = {"ArraySpec": ArraySpec, "GroupSpec": GroupSpec}
    for each in (models.Image, models.ImageLabel):
        each.model_rebuild(_types_namespace=types)
    read = getattr(models, name).from_zarr(zarr.open_group(store, mode="r")).attributes
    return read.multiscales if zarr_format == 2 else read.ome.multiscales


@FORMATS
def test_ids_are_a_valid_image_of_labels(tmp_path: Path, ids: np.ndarray, zarr_format: int) -> None:
    source = write_zarr(tmp_path / "s.zarr", "segments", ids)
    store = run_export(tmp_path, source, zarr_format=zarr_format)
    (image,) = images(store, "ImageLabel", zarr_format)
    assert [axis.unit for axis in image.axes] == ["nanometer"] * 3
    assert [d.path for d in image.datasets] == ["0", "1"]
    first, second = (
        [
            tuple(t.scale if t.type == "scale" else t.translation)
            for t in d.coordinateTransformations
        ]
        for d in image.datasets
    )
    assert first == [(20, 9, 9), (60, 45, 27)]
    # The centre of the first voxel: half of what an edge grew by further.
    assert second == [(20, 18, 18), (60, 49.5, 31.5)]
    check_manifest(store, digests=True)


@FORMATS
def test_our_reader_puts_every_level_where_it_was(
    tmp_path: Path, ids: np.ndarray, zarr_format: int
) -> None:
    source = write_zarr(tmp_path / "s.zarr", "segments", ids)
    store = run_export(tmp_path, source, zarr_format=zarr_format)
    finest, coarse = (open_volume(store, mip=level) for level in (0, 1))

    assert (finest.voxel_size_nm, finest.offset_nm) == (SIZE, OFFSET)
    np.testing.assert_array_equal(finest.read(finest.box), ids)
    assert (coarse.voxel_size_nm, coarse.offset_nm) == ((20, 18, 18), OFFSET)
    # Blobs are 30 voxels wide and begin at even voxels: all four voxels of each agree.
    np.testing.assert_array_equal(np.asarray(coarse.array[:]), ids[:, ::2, ::2])


@FORMATS
def test_tensorstore_reads_every_voxel_of_every_level(
    tmp_path: Path, ids: np.ndarray, zarr_format: int
) -> None:
    source = write_zarr(tmp_path / "s.zarr", "segments", ids)
    store = run_export(tmp_path, source, zarr_format=zarr_format)
    driver = "zarr" if zarr_format == 2 else "zarr3"
    for level in (0, 1):
        spec = {"driver": driver, "kvstore": f"file://{store}/{level}/"}
        theirs = tensorstore.open(spec, read=True).result().read().result()
        expected = ids if level == 0 else ids[:, ::2, ::2]
        np.testing.assert_array_equal(theirs, expected)
    files = [path for path in store.rglob("*") if path.is_file() and path.name.isdecimal()]
    assert len(files) == (25 + 9 if zarr_format == 2 else 2)


@FORMATS
def test_channels_are_an_axis_of_their_own(tmp_path: Path, zarr_format: int) -> None:
    affs = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
    source = write_zarr(tmp_path / "p.zarr", "affs", affs)
    store = run_export(tmp_path, source, labels=False, zarr_format=zarr_format)
    image = images(store, "Image", zarr_format)[0]

    assert [axis.name for axis in image.axes] == ["c", "z", "y", "x"]
    levels = [open_volume(store, mip=level) for level in range(len(image.datasets))]
    np.testing.assert_array_equal(np.asarray(levels[0].array[:]), affs)
    four = affs.reshape(3, 10, 150, 2, 135, 2).mean(axis=(3, 5))
    np.testing.assert_array_equal(np.asarray(levels[1].array[:]), np.floor(four + 0.5))


def test_an_image_without_a_level_is_refused_by_the_models(tmp_path: Path, ids: np.ndarray) -> None:
    store = run_export(tmp_path, write_zarr(tmp_path / "s.zarr", "segments", ids))
    shutil.rmtree(store / "1")
    with pytest.raises(ValueError, match="Expected to find an array at 1"):
        images(store, "ImageLabel", 2)


@FORMATS
def test_an_interrupted_export_resumes_to_the_same_image(
    tmp_path: Path, ids: np.ndarray, zarr_format: int
) -> None:
    source = write_zarr(tmp_path / "s.zarr", "segments", np.tile(ids, (8, 2, 1)))
    store = run_export(tmp_path, source, zarr_format=zarr_format)
    expected = store_bytes(store)

    def remove() -> None:
        manifest_path(store).unlink()
        shutil.rmtree(store)

    def some_blocks_are_done() -> bool:
        return any(f.stat().st_size for f in (tmp_path / "work").glob("*/mip_0.jsonl"))

    again = arguments(tmp_path, source, zarr_format=zarr_format)
    remove()
    interrupt("export.py", again, some_blocks_are_done, remove)
    assert not store.exists()
    finish("export.py", again)
    assert store_bytes(store) == expected
    check_manifest(store, digests=True)
