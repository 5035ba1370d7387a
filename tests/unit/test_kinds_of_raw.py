"""Raw of any type and byte order gives the results of the same raw in uint8, for all readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from cloudvolume import CloudVolume

import export
import legacy_arrays
import predict
import stacks
import tiny_elektronn
import tiny_training
import tiny_znn
import train
from array_files import FORMATS
from prediction_case import OFFSET_NM, VOXEL_SIZE_NM, Case, make_case
from retrace.alignment.section_tiles import read_section_window
from retrace.alignment.stack_files import StackDataset
from retrace.config.dataset_model import Dataset
from retrace.config.view_model import ViewLayerSource
from retrace.errors import DataError
from retrace.formats.examples import open_examples
from retrace.formats.examples_source import ExamplesSource
from retrace.formats.source import Source
from retrace.geometry import VoxelBox
from retrace.settings_model import as_json
from retrace.storage.images import open_image
from retrace.storage.normalised import UNIT, open_normalised
from retrace.storage.volumes import open_source
from retrace.viewing.layers import open_layers
from retrace.viewing.scene import LazyArray

pytestmark = pytest.mark.usefixtures("tiny_threads")


def scaled(factor: float, shift: float, dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    """Grey values on another scale."""
    return lambda grey: (grey.astype(np.float64) * factor + shift).astype(dtype)


KINDS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], dict[str, Any]]] = {
    "uint16": (scaled(257, 0, "<u2"), {"range": [0, 65535]}),
    "uint16 big-endian": (scaled(100, 50, ">u2"), {"range": [50, 25550]}),
    "int16": (scaled(7, -900, "<i2"), {"range": [-900, 885]}),
    "uint32": (scaled(1e6, 5, "<u4"), {"range": [5, 255e6 + 5]}),
    "float": (scaled(0.5, -3, "<f4"), {"range": [-3, 124.5]}),
    "float64 big-endian": (scaled(2.0, 1, ">f8"), {"range": [1, 511]}),
    "inverted": (scaled(-1, 255, "|u1"), {"invert": True}),
    "inverted uint16": (scaled(-257, 65535, "<u2"), {"range": [0, 65535], "invert": True}),
}
"""How grey values are stored, and the `normalize` that reads them."""


def store_as(kind: str, grey: np.ndarray, path: Path) -> dict[str, Any]:
    """Writes an image of a kind as an h5; its source."""
    store, normalize = KINDS[kind]
    with h5py.File(path, "w") as file:
        file["raw"] = store(grey)
    return {"path": str(path), "array": "raw", "normalize": normalize}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_read_as_the_same_grey_values(tmp_path: Path, kind: str) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (5, 30, 20), np.uint8)
    fields = store_as(kind, grey, tmp_path / "raw.h5") | {"voxel_size_nm": (1, 1, 1)}
    volume = open_image(Source.model_validate(fields))

    assert volume.dtype == np.uint8
    assert np.array_equal(volume.read(volume.box), grey)


# ---------------------------------------------------------------- training


def history(folder: Path, settings: Any) -> list[dict[str, float]]:
    """The losses of a training."""
    plain = settings if isinstance(settings, dict) else settings.plain()
    train.main(tiny_training.arguments(folder, plain))
    rows: list[dict[str, float]] = json.loads((folder / "training.json").read_text())["history"]
    for row in rows:
        for timing in [key for key in row if "second" in key or "time" in key]:
            del row[timing]
    return rows


@pytest.mark.parametrize("kind", ["uint16 big-endian", "float", "inverted uint16"])
def test_the_family_lsd_trains_on_it(tmp_path: Path, kind: str) -> None:
    store = tiny_training.write_volume(tmp_path / "cube.zarr")
    plain = tiny_training.settings(store, 2)
    other = tiny_training.settings(store, 2)
    raw = store_as(kind, tiny_training.blobs()[0], tmp_path / "raw.h5")
    size = {"voxel_size_nm": tiny_training.VOXEL_SIZE_NM}
    other["dataset"]["volumes"]["cube"]["raw"] = {**raw, **size}
    for name in ("plain", "other"):
        (tmp_path / name).mkdir()

    assert history(tmp_path / "other", other) == history(tmp_path / "plain", plain)


def with_kind(data: Dataset, kind: str, folder: Path) -> Dataset:
    """The dataset with raw of another kind in all volumes."""
    volumes = {}
    for name, volume in data.volumes.items():
        raw = volume.raw
        opened = open_source(raw)
        stored = store_as(kind, opened.read(opened.box), folder / f"{name}_{kind}.h5")
        source = Source.model_validate(raw.without("axes", "array").plain() | stored)
        changes: dict[str, Any] = {"raw": source}
        if volume.labels is not None and volume.labels.fit is not None:
            fit = volume.labels.fit.model_copy(update={"image": source})
            changes["labels"] = volume.labels.model_copy(update={"fit": fit})
        volumes[name] = volume.model_copy(update=changes)
    return data.model_copy(update={"volumes": volumes})


@pytest.mark.parametrize("kind", ["uint16", "float64 big-endian", "inverted"])
def test_the_family_elektronn_trains_on_it(tmp_path: Path, kind: str) -> None:
    tiny_elektronn.write_cubes(tmp_path)
    data, net = tiny_elektronn.dataset(tmp_path), tiny_elektronn.network()
    for name in ("plain", "other"):
        (tmp_path / name).mkdir()
    expected = history(tmp_path / "plain", tiny_training.training(data, net, 2))

    other = with_kind(data, kind, tmp_path)

    assert history(tmp_path / "other", tiny_training.training(other, net, 2)) == expected


@pytest.mark.parametrize("kind", ["uint16", "float64 big-endian", "inverted"])
def test_the_family_znn_trains_on_it(tmp_path: Path, kind: str) -> None:
    tiny_znn.write_stack(tmp_path)
    data = tiny_znn.dataset(tmp_path)
    net = tiny_znn.network(data)
    for name in ("plain", "other"):
        (tmp_path / name).mkdir()
    expected = history(tmp_path / "plain", tiny_training.training(data, net, 2))

    other = with_kind(data, kind, tmp_path)

    assert history(tmp_path / "other", tiny_training.training(other, net, 2)) == expected


def test_preprocess_follows_normalize(tmp_path: Path) -> None:
    grey = tiny_znn.cells()[0]
    fields = store_as("uint16", grey, tmp_path / "raw.h5") | {"voxel_size_nm": (1, 1, 1)}
    source = Source.model_validate(fields | {"preprocess": "symetric_rescale"})
    low, high = int(grey.min()), int(grey.max())

    image = open_normalised(source)

    expected = (grey.astype(float) - low) * 2 / (high - low) - 1
    assert np.allclose(image.read(image.volume.box), expected)


# ---------------------------------------------------------------- prediction


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return make_case(tmp_path)


def raw_of(case: Case) -> np.ndarray:
    return np.asarray(zarr.open(case.raw, mode="r")["volumes/raw"][...])


def kind_of_case(case: Case, kind: str) -> dict[str, Any]:
    """The `volume` of prediction settings with raw of another kind."""
    raw = store_as(kind, raw_of(case), case.folder / "raw.h5")
    place = {"voxel_size_nm": VOXEL_SIZE_NM, "offset_nm": OFFSET_NM}
    return {"raw": {**raw, **place}, "roi_nm": None}


@pytest.mark.parametrize("kind", ["uint16", "uint16 big-endian", "float", "inverted"])
def test_it_is_predicted(case: Case, kind: str) -> None:
    predict.main(case.arguments())
    expected = zarr.open(case.output, mode="r")["affs"][...]

    predict.main(case.arguments(volume=kind_of_case(case, kind)))

    assert np.array_equal(zarr.open(case.output, mode="r")["affs"][...], expected)


@pytest.mark.parametrize("kind", ["uint16 big-endian", "float"])
def test_the_legacy_engine_gets_the_same_arrays(case: Case, kind: str) -> None:
    output = case.folder / "input"
    legacy_arrays.main(["input", "--settings", as_json(case.settings()), "--output", str(output)])
    expected = np.load(output / "input.npy")
    settings = as_json(case.settings(volume=kind_of_case(case, kind)))

    legacy_arrays.main(["input", "--settings", settings, "--output", str(output)])

    written = np.load(output / "input.npy")
    assert written.dtype == np.uint8
    assert np.array_equal(written, expected)


def test_unfit_raw_ends_a_prediction_with_the_line_to_add(case: Case) -> None:
    volume = kind_of_case(case, "uint16")
    del volume["raw"]["normalize"]

    with pytest.raises(DataError, match=r"uint16; raw must be .*`normalize: \{range: \["):
        predict.main(case.arguments(volume=volume))


# ---------------------------------------------------------------- byte order


def write_tif(folder: Path, data: np.ndarray) -> dict[str, Any]:
    tifffile.imwrite(folder / "a.tif", data, byteorder=">", photometric="minisblack")
    return {"path": str(folder / "a.tif")}


BIG_ENDIAN = {**FORMATS, "tif": write_tif}


def big_endian(name: str, folder: Path, grey: np.ndarray) -> dict[str, Any]:
    """A source with the image as big-endian floats in [0, 1]; sharded zarr has no such form."""
    folder.mkdir()
    return BIG_ENDIAN[name](folder, (grey / 255).astype(">f4"))


@pytest.mark.parametrize("name", BIG_ENDIAN)
def test_big_endian_floats_are_trained_on(tmp_path: Path, name: str) -> None:
    grey, labels = tiny_training.blobs()
    store = tiny_training.write_volume(tmp_path / "cube.zarr")
    tiny_training.write_array(store, "soft", (grey / 255).astype("<f4"))
    plain, other = (tiny_training.settings(store, 1) for _ in range(2))
    plain["dataset"]["volumes"]["cube"]["raw"]["array"] = "soft"
    raw = big_endian(name, tmp_path / "big", grey)
    sources = {
        "raw": {**raw, "voxel_size_nm": tiny_training.VOXEL_SIZE_NM},
        "labels": store_labels(tmp_path / "labels.h5", labels),
    }
    other["dataset"]["volumes"]["cube"] = sources
    for part in ("plain", "other"):
        (tmp_path / part).mkdir()

    assert history(tmp_path / "other", other) == history(tmp_path / "plain", plain)


def store_labels(path: Path, labels: np.ndarray) -> dict[str, Any]:
    """Big-endian labels."""
    with h5py.File(path, "w") as file:
        file["labels"] = labels.astype(">u8")
    size = {"voxel_size_nm": tiny_training.VOXEL_SIZE_NM}
    return {"path": str(path), "array": "labels", **size}


@pytest.mark.parametrize("name", BIG_ENDIAN)
def test_big_endian_floats_are_predicted_exported_and_shown(case: Case, name: str) -> None:
    grey = raw_of(case)
    place = {"voxel_size_nm": VOXEL_SIZE_NM, "offset_nm": OFFSET_NM}
    raw = {**big_endian(name, case.folder / "big", grey), **place}
    predict.main(case.arguments(volume={"raw": raw, "roi_nm": None}))
    read = zarr.open(case.output, mode="r")["affs"][...]
    predict.main(case.arguments())
    expected = zarr.open(case.output, mode="r")["affs"][...]
    assert np.abs(read.astype(int) - expected).max() <= 1

    settings = {"format": "precomputed", "source": raw, "within": None, "labels": False}
    places = ["--work", str(case.folder / "export"), "--output", str(case.folder / "layer")]
    export.main(["--settings", json.dumps(settings), *places])
    layer = CloudVolume(f"precomputed://file://{case.folder}/layer", progress=False)
    assert np.array_equal(layer[:][..., 0].T, (grey / 255).astype("f4"))

    (shown,), _ = open_layers([ViewLayerSource(kind="raw", **raw)])
    lazy = LazyArray(shown.volume.array, labels=False)
    assert lazy.dtype == np.float32 and lazy.dtype.isnative
    assert np.array_equal(lazy[:, :9, :9], (grey / 255).astype("f4")[:, :9, :9])

    settings = as_json(case.settings(volume={"raw": raw, "roi_nm": None}))
    output = case.folder / "input"
    legacy_arrays.main(["input", "--settings", settings, "--output", str(output)])
    assert np.load(output / "input.npy").dtype == np.dtype("<f4")


# ---------------------------------------------------------------- refusals


def write_wide(folder: Path, dtype: str = "<f4") -> dict[str, Any]:
    """A source with values 0 to 1000."""
    data = np.random.default_rng(0).integers(0, 1000, (6, 64, 64)).astype(dtype)
    with h5py.File(folder / "wide.h5", "w") as file:
        file["raw"] = data
    return {"path": str(folder / "wide.h5"), "array": "raw", "voxel_size_nm": [40, 8, 8]}


@pytest.mark.parametrize("dtype", ["<f4", "<u2"])
def test_views_and_exports_of_unfit_raw_are_refused(tmp_path: Path, dtype: str) -> None:
    source = write_wide(tmp_path, dtype)
    settings = {"format": "ome_zarr", "source": source, "within": None, "labels": False}
    places = ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "raw.zarr")]

    with pytest.raises(DataError, match=r"raw must be .*`normalize: \{range: \[9, 991\]\}`"):
        open_layers([ViewLayerSource(kind="raw", **source)])
    with pytest.raises(DataError, match=r"raw must be .*`normalize: \{range: \["):
        export.main(["--settings", json.dumps(settings), *places])


def test_sections_of_floats_outside_0_to_1_are_not_aligned(tmp_path: Path) -> None:
    sections = open_image(Source.model_validate(write_wide(tmp_path)))

    with pytest.raises(DataError, match=r"raw must be .*`normalize: \{range: \["):
        read_section_window(sections, 1, (slice(0, 32), slice(0, 32)))


@pytest.mark.parametrize("dtype", ["<f4", "<u2"])
def test_further_inputs_of_elektronn_are_checked(tmp_path: Path, dtype: str) -> None:
    source = Source.model_validate(write_wide(tmp_path, dtype))

    with pytest.raises(DataError, match=r"raw must be .*`normalize: \{range: \["):
        image = open_normalised(source, UNIT)
        image.read(image.volume.box)


def test_stacks_and_examples_of_16_bits_are_refused(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (2, 3, 32, 32), np.uint16)
    with h5py.File(tmp_path / "stacks.h5", "w") as file:
        file["main/images"] = wide
        file["grey/images"] = (wide >> 8).astype(">f4")
    stacks = StackDataset([tmp_path / "stacks.h5"])
    np.save(tmp_path / "x.npy", wide.reshape(6, -1))
    np.save(tmp_path / "y.npy", np.arange(6))
    arrays = {part: {"path": str(tmp_path / f"{part[0]}.npy")} for part in ("x", "y")}
    examples = ExamplesSource.model_validate(
        {
            "train": {"values": arrays["x"], "labels": arrays["y"]},
            "held_out": 1,
            "classes": 6,
            "split_seed": 0,
        }
    )

    assert np.array_equal(stacks[0].images.numpy(), (wide[0] >> 8).astype("f4") / 255)
    with pytest.raises(DataError, match="'main' has images of uint16 with values"):
        stacks[2]
    with pytest.raises(DataError, match="examples are uint16 with values"):
        open_examples(examples, "train")


# ---------------------------------------------------------------- views, exports, alignment


def test_views_show_grey_values(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (4, 20, 20), np.uint8)
    fields = store_as("float64 big-endian", grey, tmp_path / "raw.h5")
    source = ViewLayerSource(kind="raw", voxel_size_nm=(1, 1, 1), **fields)

    (layer,), _ = open_layers([source])

    shown = LazyArray(layer.volume.array, labels=False)
    assert shown.dtype == np.uint8
    assert np.array_equal(shown[:], grey)


@pytest.mark.parametrize("format_name", ["precomputed", "ome_zarr"])
def test_exports_hold_grey_values(tmp_path: Path, format_name: str) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (4, 20, 20), np.uint8)
    fields = store_as("uint16 big-endian", grey, tmp_path / "raw.h5")
    fields |= {"voxel_size_nm": (10, 4, 4)}
    settings = {"format": format_name, "source": fields, "within": None, "labels": False}
    output = tmp_path / ("raw.zarr" if format_name == "ome_zarr" else "raw")

    places = ["--work", str(tmp_path / "work"), "--output", str(output)]
    export.main(["--settings", json.dumps(settings), *places])

    address = str(output) if format_name == "ome_zarr" else f"file://{output}"
    array = "0" if format_name == "ome_zarr" else ""
    volume = open_source(Source(path=address, array=array))
    assert volume.dtype == np.uint8
    assert np.array_equal(volume.read(VoxelBox((0, 0, 0), grey.shape)), grey)


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", ">f8"])
def test_exports_of_floats_have_32_bits_of_this_machine(tmp_path: Path, dtype: str) -> None:
    data = np.random.default_rng(0).random((4, 20, 20)).astype(dtype)
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["raw"] = data
    fields = {"path": str(tmp_path / "raw.h5"), "array": "raw", "voxel_size_nm": [10, 4, 4]}
    settings = {"format": "precomputed", "source": fields, "within": None, "labels": False}
    places = ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "raw")]

    export.main(["--settings", json.dumps(settings), *places])

    layer = CloudVolume(f"precomputed://file://{tmp_path}/raw", progress=False)
    assert layer.dtype == "float32"
    assert np.array_equal(layer[:][..., 0].T, data.astype(np.float32))


def test_sections_to_distort_are_grey_values(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (4, 64, 64), np.uint8)
    made = []
    for name in ("plain", "other"):
        stored = {"path": str(tmp_path / "plain.h5"), "array": "raw"}
        if name == "other":
            stored = store_as("uint16", grey, tmp_path / "other.h5")
        else:
            with h5py.File(tmp_path / "plain.h5", "w") as file:
                file["raw"] = grey
        settings = {
            "made": {"roi_nm": None, "phantom_shape": None},
            "raw": {**stored, "voxel_size_nm": [40, 8, 8]},
            "voxel_size_nm": [40, 8, 8],
            "seed": 3,
        }
        places = ["--layer", str(tmp_path / name), "--truth", str(tmp_path / f"{name}_truth.zarr")]
        stacks.main(["make", "--settings", json.dumps(settings), *places])
        volume = open_source(Source(path=f"file://{tmp_path / name}"))
        made.append(volume.read(volume.box))

    assert np.array_equal(*made)
