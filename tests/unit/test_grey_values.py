"""`normalize`: values of any type become grey values, and images that need it are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import yaml

from array_files import FORMATS
from retrace.errors import DataError
from retrace.formats.normalize import Normalize, decimals
from retrace.formats.source import Source
from retrace.geometry import VoxelBox
from retrace.records import record
from retrace.storage import grey_range
from retrace.storage.grey_range import percentiles
from retrace.storage.images import open_image
from retrace.storage.precomputed_writer import write_layer
from retrace.storage.value_checks import check_not_blank, check_raw
from retrace.storage.volumes import Volume, open_source

SHAPE = (9, 40, 30)
TYPES = ["|b1", "|u1", "|i1", "<u2", ">u2", "<i2", ">i2", "<u4", "<i4", "<u8", ">i8"]
FLOATS = ["<f2", "<f4", ">f4", "<f8", ">f8"]


def values(dtype: str, seed: int = 0) -> np.ndarray:
    """Random values (Z, Y, X) over the range of a type, some of them equal."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (rng.normal(0, 300, SHAPE)).astype(dtype)
    if kind.kind == "b":
        return rng.random(SHAPE) < 0.3
    limits = np.iinfo(kind)
    spread = rng.normal(0.5, 0.2, SHAPE).clip(0.1, 0.9)
    return (limits.min + spread * (float(limits.max) - limits.min)).astype(dtype)


def source(folder: Path, data: np.ndarray, **settings: Any) -> Source:
    """A source whose h5 file holds `data`."""
    path = folder / "image.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=data, chunks=(4, 16, 16))
    fields = {"path": str(path), "array": "raw", "voxel_size_nm": (40, 4, 4), **settings}
    return Source.model_validate(fields)


def read(volume: Volume) -> np.ndarray:
    return volume.read(volume.box)


@pytest.mark.parametrize("invert", [None, True])
@pytest.mark.parametrize("dtype", TYPES + FLOATS)
def test_a_range_becomes_black_to_white(tmp_path: Path, dtype: str, invert: bool | None) -> None:
    data = values(dtype)
    low, high = (float(np.quantile(data.astype(float), q)) for q in (0.2, 0.8))
    low, high = (low, high) if low < high else (0.0, 1.0)
    settings = {"range": [low, high]} | ({} if invert is None else {"invert": invert})

    grey = read(open_image(source(tmp_path, data, normalize=settings)))

    fraction = ((data.astype(np.float64) - low) / (high - low)).clip(0, 1)
    expected = np.rint(255 * (1 - fraction if invert else fraction))
    assert grey.dtype == np.uint8
    # Halves may be rounded either way.
    assert (grey == expected).mean() > 0.999
    assert np.abs(grey - expected).max() <= 1


@pytest.mark.parametrize("wanted", [(1, 99), (0, 100), (0.1, 50), (12.5, 99.9)])
@pytest.mark.parametrize("dtype", TYPES + FLOATS)
def test_percentiles_are_exact(
    dtype: str, wanted: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grey_range, "READ_VOXELS", 500)  # many reads
    data = values(dtype, seed=1)
    ordered = np.sort(data, axis=None)
    ranks = [max(1, int(np.ceil(round(p * data.size / 100, 6)))) for p in wanted]

    assert percentiles("a", data, wanted) == tuple(ordered[rank - 1] for rank in ranks)


def test_percentiles_of_large_and_special_values() -> None:
    large = np.array([0, 1, 2**63 + 5, 2**64 - 1], np.uint64).reshape(1, 2, 2)
    signed = np.array([-0.0, 0.0, -1e300, 1e300]).reshape(1, 2, 2)

    assert percentiles("a", large, (75, 100)) == (2**63 + 5, 2**64 - 1)
    assert percentiles("a", signed, (0, 100)) == (-1e300, 1e300)
    with pytest.raises(DataError, match="contains NaN"):
        percentiles("a", np.full((1, 1, 2), np.nan), (0, 100))


def test_percentiles_are_those_of_the_whole_volume_and_its_channel(tmp_path: Path) -> None:
    data = np.stack([values("<u2", 3), values("<u2", 4)], -1)
    two = source(tmp_path, data[..., 0])
    with h5py.File(tmp_path / "image.h5", "w") as file:
        file["raw"] = data
    fields = {"axes": "zyxc", "channel": 1, "normalize": {"percentiles": [5, 95]}}
    volume = open_image(Source.model_validate(two.plain() | fields))
    low, high = np.percentile(data[..., 1], [5, 95], method="inverted_cdf")

    part = VoxelBox((2, 3, 4), (3, 20, 10))
    expected = ((data[..., 1].astype(float) - low) / (high - low)).clip(0, 1) * 255
    assert np.abs(volume.read(part) - expected[part.slices()]).max() <= 0.5


def test_measured_percentiles_are_in_the_record_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = record.Running(record.Planned("out.manifest.json"), {})
    monkeypatch.setattr(record, "_running", [job])
    data = values("<u2")
    image = source(tmp_path, data, normalize={"percentiles": [1, 99], "invert": True})

    for _ in range(2):  # remembered for the second volume
        read(open_image(image))

    low, high = np.percentile(data, [1, 99], method="inverted_cdf").tolist()
    content = {"percentiles": [1, 99], "range": [low, high], "invert": True}
    assert job.resolved == {f"normalize of {tmp_path}/image.h5/raw": content}
    assert json.loads(json.dumps(job.content()))["resolved"] == job.resolved


def test_a_volume_is_measured_again_after_a_change(tmp_path: Path) -> None:
    settings = {"normalize": {"percentiles": [0, 100]}}
    dark = values("<u2")
    image = source(tmp_path, dark, **settings)
    read(open_image(image))
    bright = (dark // 2 + 30000).astype(np.uint16)
    source(tmp_path, bright)

    grey = read(open_image(image))

    assert (grey.min(), grey.max()) == (0, 255)


def test_inverting_alone_keeps_the_type(tmp_path: Path) -> None:
    whole = values("|u1")
    soft = np.random.default_rng(0).random(SHAPE).astype(np.float32)

    assert np.array_equal(
        read(open_image(source(tmp_path, whole, normalize={"invert": True}))), 255 - whole
    )
    assert np.array_equal(
        read(open_image(source(tmp_path, soft, normalize={"invert": True}))), 1 - soft
    )
    assert np.array_equal(
        read(open_image(source(tmp_path, whole, normalize={"invert": False}))), whole
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "is empty"),
        ({"range": [1, 2], "percentiles": [1, 99]}, "keep one of them"),
        ({"range": [5, 5]}, "the lower one first"),
        ({"percentiles": [99, 1]}, "the lower one first"),
        ({"percentiles": [1, 101]}, "less than or equal to 100"),
        ({"range": [1]}, "Field required|at least"),
        ({"rnge": [1, 2]}, "rnge"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Normalize.model_validate(settings)


@pytest.mark.parametrize("dtype", ["<u2", ">i2", "<u4", "<f4", ">f8"])
def test_the_line_of_the_refusal_reads_the_volume(tmp_path: Path, dtype: str) -> None:
    data = values(dtype)
    image = source(tmp_path, data)

    with pytest.raises(DataError, match=r"raw must be uint8, or float in \[0, 1\]") as refused:
        check_raw(open_image(image))

    lines = re.findall(r"`(normalize: \{.*?\})`", str(refused.value))
    low, high = np.percentile(data, [1, 99], method="inverted_cdf").astype(float)
    settings = [yaml.safe_load(line)["normalize"] for line in lines]
    assert settings[0]["range"] == pytest.approx([low, high], rel=1e-3, abs=abs(high - low) / 1e3)
    assert settings[1] == {"percentiles": [1, 99]}
    for setting in settings:
        grey = read(open_image(image.with_(normalize=setting)))
        assert (grey.min(), grey.max()) == (0, 255)


def test_numbers_in_messages_are_numbers_of_yaml() -> None:
    for value in (0.0, -3, 1e-5, 1.23456e-7, 123456.7, 1e20, 40960, 0.001234567):
        written = yaml.safe_load(decimals(value))
        assert written == pytest.approx(value, rel=1e-3, abs=1e-12)


def test_what_only_inverts_is_refused_with_the_same_polarity(tmp_path: Path) -> None:
    image = source(tmp_path, values("<u2"), normalize={"invert": True})

    with pytest.raises(DataError, match=r"range: \[\d+, \d+\], invert: true\}"):
        open_image(image)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_files_in_which_0_is_white_need_a_decision(tmp_path: Path, dtype: str) -> None:
    data = values(dtype)
    tifffile.imwrite(tmp_path / "white.tif", data, photometric="miniswhite")
    image = Source(path=str(tmp_path / "white.tif"), voxel_size_nm=(40, 4, 4))

    with pytest.raises(DataError, match="says that 0 is white") as refused:
        open_image(image)
    with pytest.raises(DataError, match=r"range: \[0, 9\], invert: true"):
        open_image(image.with_(normalize={"range": [0, 9]}))
    open_source(image)  # labels are numbers
    lines = re.findall(r"`(normalize: \{.*?\})`", str(refused.value))
    shown, as_stored = (read(open_image(image.with_(**yaml.safe_load(line)))) for line in lines)
    brightest, darkest = data == data.max(), data == data.min()
    assert (as_stored[brightest].min(), as_stored[darkest].max()) == (
        as_stored.max(),
        as_stored.min(),
    )
    assert np.abs(shown - (255.0 - as_stored)).max() <= 1


@pytest.mark.parametrize("name", [*FORMATS, "layer", "tif"])
def test_every_format_is_normalised(tmp_path: Path, name: str) -> None:
    data = values("<u2")
    if name == "tif":
        tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack")
        fields = {"path": str(tmp_path / "a.tif")}
    elif name == "layer":
        write_layer(tmp_path / "layer", data, (40, 4, 4), (0, 0, 0))
        fields = {"path": f"file://{tmp_path}/layer"}
    else:
        fields = FORMATS[name](tmp_path, data)
    low, high = np.percentile(data, [1, 99], method="inverted_cdf").astype(float)

    image = Source(**fields, voxel_size_nm=(40, 4, 4))
    with pytest.raises(DataError, match=rf"range: \[{low:.0f}, {high:.0f}\]"):
        open_image(image)
    grey = read(open_image(image.with_(normalize={"percentiles": [1, 99]})))

    assert np.abs(grey - ((data - low) / (high - low)).clip(0, 1) * 255).max() <= 0.5


def test_an_empty_image_is_refused_although_it_becomes_white(tmp_path: Path) -> None:
    settings = {"normalize": {"range": [10, 20], "invert": True}}
    volume = open_image(source(tmp_path, np.zeros(SHAPE, np.uint16), **settings))

    with pytest.raises(DataError, match="is 0 in the whole requested box"):
        check_not_blank(volume, volume.box)


def test_a_range_outside_the_values_is_refused_with_one_that_fits(tmp_path: Path) -> None:
    data = values("<u2")
    volume = open_image(source(tmp_path, data, normalize={"range": [0, 5]}))
    low, high = np.percentile(data, [1, 99], method="inverted_cdf").tolist()

    with pytest.raises(DataError, match=rf"black or white .*range: \[{low}, {high}\]"):
        check_not_blank(volume, volume.box)


def test_a_constant_image_has_no_percentiles(tmp_path: Path) -> None:
    settings = {"normalize": {"percentiles": [1, 99]}}
    volume = open_image(source(tmp_path, np.full(SHAPE, 7, np.uint16), **settings))

    with pytest.raises(DataError, match="give `range"):
        read(volume)


def test_nan_is_refused(tmp_path: Path) -> None:
    data = values("<f4")
    data[1, 2, 3] = np.nan

    for settings in ({"range": [0, 5]}, {"percentiles": [1, 99]}):
        volume = open_image(source(tmp_path, data, normalize=settings))
        with pytest.raises(DataError, match="contains NaN"):
            read(volume)
