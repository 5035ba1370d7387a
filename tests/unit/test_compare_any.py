"""`evaluate.py compare` on what users bring: signed ids, byte orders, parts, axes, addresses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.metrics import adapted_rand_error, variation_of_information

import evaluate
from retrace.errors import ConfigError, DataError, explain
from retrace.evaluation.any_segmentation import named_arrays
from retrace.evaluation.counting import count_volumes
from retrace.evaluation.fill_unassigned import fill_unassigned
from retrace.evaluation.ground_truth import GroundTruth
from retrace.evaluation.scores import score
from retrace.remote.addresses import path_and_array
from retrace.storage.volumes import Volume

SIZE = (40, 4, 4)
RNG = np.random.default_rng(0)


def voi(labels: np.ndarray, segments: np.ndarray, keep: np.ndarray) -> tuple[float, float]:
    """VOI split and merge of the kept voxels, by counting pairs of Python numbers."""
    pairs = list(zip(labels[keep].tolist(), segments[keep].tolist(), strict=True))
    joint = {pair: pairs.count(pair) for pair in set(pairs)}
    truths, parts = [a for a, _ in pairs], [b for _, b in pairs]
    split = sum(n * np.log2(truths.count(a) / n) for (a, _), n in joint.items())
    merge = sum(n * np.log2(parts.count(b) / n) for (_, b), n in joint.items())
    return split / len(pairs), merge / len(pairs)


def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Labels and segments (8, 24, 24): a grid of objects, and another grid across it."""
    z, y, x = np.indices((8, 24, 24))
    return (1 + y // 8 + 3 * (x // 8)).astype(np.uint64), (1 + (x + z) // 6).astype(np.uint64)


def write(path: Path, **arrays: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, data in arrays.items():
            file[name] = data
    return path


def compare(
    folder: Path, labels: str, *segmentations: str, more: tuple[str, ...] = ()
) -> dict[str, Any]:
    output = folder / "compare.json"
    command = ["compare", "--labels", labels, "--segmentation", *segmentations]
    evaluate.main([*command, "--voxel-size-nm", "40,4,4", "--output", str(output), *more])
    result: dict[str, Any] = json.loads(output.read_text())["segmentations"]
    return result


def scores_of(row: dict[str, Any]) -> tuple[float, float]:
    return row["voi_split"], row["voi_merge"]


@pytest.mark.parametrize("dtype", ["<i2", ">i4", "<i8", ">i8"])
def test_labels_below_0_are_background(tmp_path: Path, dtype: str) -> None:
    labels, segments = blobs()
    signed = labels.astype(dtype)
    signed[:, :10] = -1
    file = write(
        tmp_path / "e.h5", signed=signed, zeros=np.where(signed < 0, 0, signed), s=segments
    )

    below = compare(tmp_path, f"{file}:signed", f"s={file}:s")["s"]

    assert below == compare(tmp_path, f"{file}:zeros", f"s={file}:s")["s"]
    assert scores_of(below) == pytest.approx(voi(labels, segments, signed > 0))
    named = ("--background-id", "-1", "--background-id=3", "--background-id", str(2**64 - 1))
    without = compare(tmp_path, f"{file}:signed", f"s={file}:s", more=named)["s"]
    assert scores_of(without) == pytest.approx(voi(labels, segments, (signed > 0) & (signed != 3)))


def test_background_ids_of_other_types_are_nothing(tmp_path: Path) -> None:
    labels, segments = blobs()
    far = np.where(labels == 1, np.uint64(2**64 - 1), labels)
    file = write(tmp_path / "e.h5", far=far, s=segments)
    plain = compare(tmp_path, f"{file}:far", f"s={file}:s")["s"]

    assert compare(tmp_path, f"{file}:far", f"s={file}:s", more=("--background-id=-1",)) == {
        "s": plain
    }
    without = compare(
        tmp_path, f"{file}:far", f"s={file}:s", more=(f"--background-id={2**64 - 1}",)
    )["s"]
    assert without["label_voxels"] == np.count_nonzero(labels != 1) < plain["label_voxels"]
    for wrong in (2**64, -(2**63) - 1):
        with pytest.raises(ConfigError, match="background id"):
            compare(tmp_path, f"{file}:far", f"s={file}:s", more=(f"--background-id={wrong}",))


DTYPES = [f"{order}{kind}{size}" for order in "<>" for kind in "iu" for size in (1, 2, 4, 8)]
EDGES = [0, 1, 2, 3, -1, -2, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1]


@st.composite
def label_arrays(draw: st.DrawFn) -> np.ndarray:
    """Labels (2, 3, 4) of any integer type and byte order, with ids at its limits."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    limits = np.iinfo(dtype)
    held = [value for value in EDGES if limits.min <= value <= limits.max]
    return draw(hnp.arrays(dtype, (2, 3, 4), elements=st.sampled_from(held)))


@settings(max_examples=150, deadline=None)
@given(label_arrays(), label_arrays(), st.lists(st.sampled_from(EDGES), max_size=2))
def test_any_type_scores_as_python_counts(
    labels: np.ndarray, segments: np.ndarray, background: list[int]
) -> None:
    kept = [value > 0 and value not in background for value in labels.ravel().tolist()]
    keep = np.array(kept).reshape(labels.shape)
    volumes = [Volume(data, SIZE, (0, 0, 0), "v") for data in (labels, segments)]
    ground_truth = GroundTruth(volumes[0], ignored_ids=tuple(background))
    if not keep.any():
        with pytest.raises(DataError, match="no label left"):
            count_volumes(volumes[1], ground_truth)
        return

    counted = count_volumes(volumes[1], ground_truth, block_shape=(1, 2, 3))

    assert counted.label_voxels == counted.scored_voxels == keep.sum()
    expected = score(counted.table)
    assert (expected["voi_split"], expected["voi_merge"]) == pytest.approx(
        voi(labels, segments, keep), abs=1e-9
    )
    ids = [np.unique(data[keep], return_inverse=True)[1] for data in (labels, segments)]
    merge, split = variation_of_information(ids[1], ids[0])
    assert (expected["voi_split"], expected["voi_merge"]) == pytest.approx((split, merge), abs=1e-9)
    many = [np.tile(part, 500) for part in ids]
    error, _, _ = adapted_rand_error(*many, ignore_labels=())
    assert expected["adapted_rand_error"] == pytest.approx(error, abs=2e-3)


def test_unassigned_voxels_are_grown_into_whatever_their_sign() -> None:
    data = np.array([[[5, -1, 0, 0, 0, 7]]], np.int32)

    filled = fill_unassigned(Volume(data, SIZE, (0, 0, 0), "s"))

    assert filled.array.tolist() == [[[5, 5, 5, 7, 7, 7]]]
    with pytest.raises(DataError, match="no id above 0"):
        fill_unassigned(Volume(data.clip(max=0), SIZE, (0, 0, 0), "s"))


# ---------------------------------------------------------------- parts


def test_a_part_is_marked_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = RNG.integers(1, 5, (8, 48, 48)).astype(np.uint64)
    full = np.where(np.arange(8)[:, None, None] >= 4, 9, labels).astype(np.uint64)
    file = write(tmp_path / "e.h5", l=labels, full=full, part=labels[:2])
    rows = compare(tmp_path, f"{file}:l", f"full={file}:full", f"part={file}:part")
    out, err = capsys.readouterr()
    lines = {line.split()[0]: line for line in out.splitlines()[1:]}

    assert (rows["part"]["scored_voxels"], rows["part"]["label_voxels"]) == (4608, 18432)
    assert "scored voxels" in out.splitlines()[0]
    assert lines["full"].endswith("  all 18,432")
    assert lines["part"].endswith("  4,608 of 18,432 (25.0 %), ONLY A PART")
    place, part = err.splitlines()
    assert "nothing states the position of" in place and place.count("e.h5/part") == 2
    assert part.startswith("warning: part covers only a part")
    region = err.partition("--roi-nm=")[2].strip()
    assert region == "0:80,0:192,0:192"

    compare(
        tmp_path, f"{file}:l", f"full={file}:full", f"part={file}:part", more=("--roi-nm", region)
    )
    out, err = capsys.readouterr()
    assert out.count("all 4,608") == 2 and "PART" not in out
    assert err.splitlines() == [place]  # still not known


def test_what_the_options_can_mend_is_said_with_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, segments = blobs()
    file = write(tmp_path / "e.h5", l=labels, s=segments)
    command = ["compare", "--labels", f"{file}:l", "--segmentation", f"s={file}:s"]
    with pytest.raises(DataError, match=r"e.h5/l states no voxel size.*--voxel-size-nm Z,Y,X"):
        evaluate.main(command)
    with pytest.raises(SystemExit):
        evaluate.main([*command, "--voxel-size-nm", "40,4,4", "--output", str(tmp_path)])
    assert f"--output: {tmp_path} is a folder; name a file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["e.h5"]


@pytest.mark.parametrize("other", ["segmentation", "mask"])
def test_it_is_said_that_nothing_states_where_a_larger_volume_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    large = RNG.integers(1, 50, (12, 32, 40)).astype(np.uint64)
    file = write(tmp_path / "e.h5", l=large[2:10, 4:28, 4:36], same=large[2:10, 4:28, 4:36])
    with h5py.File(file, "a") as content:
        content["large"] = large
    names = ("large", ()) if other == "segmentation" else ("same", ("--mask", f"{file}:large"))
    compare(tmp_path, f"{file}:l", f"s={file}:{names[0]}", more=names[1])
    (line,) = capsys.readouterr().err.splitlines()

    assert f"nothing states the position of {file}/l, {file}/large, taken as 0" in line
    assert "attribute `offset`" in line

    with h5py.File(file, "a") as content:  # z, y, x: 2, 4 and 4 voxels
        for name, offset in (
            ("l", np.multiply(SIZE, (2, 4, 4))),
            ("large", (0, 0, 0)),
            ("same", np.multiply(SIZE, (2, 4, 4))),
        ):
            content[name].attrs.update(resolution=SIZE, offset=offset)
    scores = compare(tmp_path, f"{file}:l", f"s={file}:{names[0]}", more=names[1])["s"]
    assert not capsys.readouterr().err
    assert (scores["voi_split"], scores["voi_merge"]) == (0, 0)


def test_one_missing_voxel_is_not_100_percent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.ones((1, 1, 10001), np.uint8)
    file = write(tmp_path / "e.h5", l=labels, s=labels[:, :, 1:])
    compare(tmp_path, f"{file}:l", f"s={file}:s")
    assert "10,000 of 10,001 (99.9 %), ONLY A PART" in capsys.readouterr().out


def test_a_segmentation_elsewhere_is_refused(tmp_path: Path) -> None:
    labels, segments = blobs()
    file = write(tmp_path / "e.h5", l=labels, s=segments, far=segments)
    with h5py.File(file, "a") as content:
        content["far"].attrs.update(resolution=SIZE, offset=(4000, 0, 0))
    with pytest.raises(DataError, match="far covers .* no labelled voxel lies in both"):
        compare(tmp_path, f"{file}:l", f"s={file}:s", f"far={file}:far")


# ---------------------------------------------------------------- axes and addresses


@pytest.mark.parametrize("place", [0, 3])
def test_an_axis_of_length_1_is_left_out(tmp_path: Path, place: int) -> None:
    labels, segments = blobs()
    arrays = {name: np.expand_dims(data, place) for name, data in (("l", labels), ("s", segments))}
    mask = np.expand_dims((labels != 2).astype(np.uint8), place)
    file = write(tmp_path / "e.h5", l3=labels, s3=segments, mask=mask, **arrays)
    options = ("--mask", f"{file}:mask")
    plain = compare(tmp_path, f"{file}:l3", f"s={file}:s3", more=options)

    assert compare(tmp_path, f"{file}:l", f"s={file}:s", more=options) == plain
    assert compare(tmp_path, f"{file}:l3", f"s={file}:s", more=options) == plain


def test_axes_of_length_1_around_four_are_left_out(tmp_path: Path) -> None:
    labels, segments = blobs()
    file = write(tmp_path / "e.h5", l=labels[None, None], s=segments[None, ..., None], s3=segments)
    plain = compare(tmp_path, f"{file}:l", f"s={file}:s3")

    assert compare(tmp_path, f"{file}:l", f"s={file}:s") == plain


def test_a_mask_of_a_part_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels, segments = blobs()
    file = write(tmp_path / "e.h5", l=labels, s=segments, m=np.ones((2, 24, 24), np.uint8))
    row = compare(tmp_path, f"{file}:l", f"s={file}:s", more=("--mask", f"{file}:m"))["s"]

    assert row["label_voxels"] == 2 * 24 * 24
    assert "covers only [0, 0, 0] to [80, 96, 96] nm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((8, 24, 24), np.nan), "has NaN; write 0"),
        (np.array([[["a"]]], "S1"), "holds bytes8; allowed: whole numbers"),
    ],
)
def test_masks_without_a_clear_value_are_refused(
    tmp_path: Path, mask: np.ndarray, message: str
) -> None:
    labels, segments = blobs()
    file = write(tmp_path / "e.h5", l=labels, s=segments, m=mask)
    with pytest.raises(DataError, match=message):
        compare(tmp_path, f"{file}:l", f"s={file}:s", more=("--mask", f"{file}:m"))


def test_sizes_of_32_and_64_bits_are_the_same_size(tmp_path: Path) -> None:
    labels, segments = blobs()
    file = write(tmp_path / "e.h5", l=labels, s=segments)
    with h5py.File(file, "a") as content:
        content["l"].attrs["resolution"] = np.array([40, 4.6, 4.6], np.float32)
        content["s"].attrs["resolution"] = np.array([40, 4.6, 4.6])
    evaluate.main(["compare", "--labels", f"{file}:l", "--segmentation", f"{file}:s"])


@pytest.mark.parametrize("size", ["0,4,4", "-40,4,4", "nan,4,4", "inf,4,4", "1e308,4,4", "40,4"])
def test_impossible_voxel_sizes_are_refused(tmp_path: Path, size: str) -> None:
    labels, segments = blobs()
    file = write(tmp_path / "e.h5", l=labels, s=segments)
    with pytest.raises(DataError, match="is no voxel size|is not a"):
        compare(tmp_path, f"{file}:l", f"s={file}:s", more=(f"--voxel-size-nm={size}",))


@pytest.mark.parametrize(
    "option", ["--roi-nm=80:0,0:48,0:48", "--roi-nm=0:80", "--voxel-size-nm=a,b,c"]
)
def test_options_that_are_no_numbers_print_the_usage(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        compare(tmp_path, "a.h5:l", "a.h5:s", more=(option,))
    assert option.partition("=")[2] in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("shape", [(2, 4, 24, 24), (8, 1, 24, 24), (24, 24)])
def test_other_axes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    labels, segments = blobs()
    file = write(tmp_path / "e.h5", l=labels, s=segments, odd=np.ones(shape, np.uint8))
    for command in ((f"{file}:odd", f"s={file}:s"), (f"{file}:l", f"s={file}:odd")):
        with pytest.raises(DataError, match=r"has shape .*z, y, x"):
            compare(tmp_path, *command)


def test_an_array_may_be_named_in_an_address(tmp_path: Path) -> None:
    labels, segments = blobs()
    store = tmp_path / "run:2" / "e.zarr"
    for name, data in (("l", labels), ("v/s", segments)):
        zarr.create_array(store, name=name, data=data, chunks=(4, 8, 8), zarr_format=2)
    plain = scores_of(compare(tmp_path, f"{store}:l", f"{store}:v/s")[f"{store}:v/s"])

    for address in (f"file://{store}", f"zarr://file://{store}"):
        rows = compare(tmp_path, f"{address}:l", f"s={address}:v/s", f"{address}:v/s")
        assert set(rows) == {"s", f"{address}:v/s"}
        assert [scores_of(row) for row in rows.values()] == [plain, plain]


@pytest.mark.parametrize(
    ("text", "path", "array"),
    [
        ("file:///layer", "file:///layer", ""),
        ("file:///layer:seg", "file:///layer", "seg"),
        ("precomputed://file:///layer", "precomputed://file:///layer", ""),
        ("s3://bucket/a/b", "s3://bucket/a/b", ""),
        ("s3://bucket/a.zarr:v/raw", "s3://bucket/a.zarr", "v/raw"),
        ("s3://bucket/run:1/a.zarr:v/raw", "s3://bucket/run:1/a.zarr", "v/raw"),
        ("s3://bucket/run:1/a.zarr", "s3://bucket/run:1/a.zarr", ""),
        ("gs://bucket/2024:01/layer", "gs://bucket/2024:01/layer", ""),
        ("gs://bucket/layer:seg", "gs://bucket/layer", "seg"),
        ("https://host:8080/layer", "https://host:8080/layer", ""),
        ("https://host:8080/a.zarr:raw", "https://host:8080/a.zarr", "raw"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000", ""),
        ("zarr://https://h:1/x:a", "zarr://https://h:1/x", "a"),
        ("a.h5:volumes/labels", "a.h5", "volumes/labels"),
        ("a.h5", "a.h5", ""),
        ("a.h5:", "a.h5", ""),
        (f"{'x' * 300}:a", "x" * 300, "a"),
    ],
)
def test_a_path_may_have_colons(text: str, path: str, array: str) -> None:
    assert path_and_array(text) == (path, array)


@pytest.mark.parametrize("name", ["a:b.h5", "a:b:c", "b.h5"])
def test_the_longest_path_that_exists_is_taken(tmp_path: Path, name: str) -> None:
    path = tmp_path / "run:1" / name
    path.parent.mkdir()
    path.touch()
    for text in (str(path), f"file://{path}"):
        assert path_and_array(text) == (text, "")
        assert path_and_array(f"{text}:v/raw") == (text, "v/raw")


def test_a_path_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long") as caught:
        compare(tmp_path, f"{'x' * 5000}:a", "b.h5:a")
    assert str(explain(caught.value)).endswith("is too long for this machine; use a shorter one")


def test_names_of_segmentations() -> None:
    items = ["a=file:///x:s", "b.h5:s", "/run=1/c.h5:s", "https://h/x?a=b"]
    assert named_arrays(items) == {
        "a": "file:///x:s",
        **{item: item for item in items[1:]},
    }
    with pytest.raises(ConfigError, match="two segmentations are called 'a'"):
        named_arrays(["a=x", "a=y"])
