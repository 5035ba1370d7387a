"""Two volumes are laid on each other only where something states how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import evaluate
from retrace.errors import ConfigError, DataError
from retrace.evaluation.fill_unassigned import fill_unassigned
from retrace.formats.placement import Extent, check_place_in_image, check_relative_place
from retrace.geometry import NmTriple
from retrace.storage.volumes import Volume

SIZE = (8, 8, 8)
BIG, SMALL = (12, 32, 40), (8, 24, 32)
CUT = (slice(2, 10), slice(4, 28), slice(4, 36))
CUT_NM = "16,32,32"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Segments and a mask, and the same cut out of their middle."""
    rng = np.random.default_rng(1)
    segments = rng.integers(1, 50, BIG).astype("u8")
    mask = (rng.random(BIG) < 0.5).astype("u1")
    arrays = {"big": segments, "small": segments[CUT], "mask": mask, "small_mask": mask[CUT]}
    with h5py.File(tmp_path / "c.h5", "w") as content:
        for name, data in arrays.items():
            content[name] = data
    return tmp_path / "c.h5"


def compare(file: Path, labels: str, segmentation: str, *more: str) -> dict[str, Any]:
    output = file.with_suffix(".json")
    command = ["compare", "--labels", f"{file}:{labels}", "--segmentation"]
    command += [f"s={file}:{segmentation}", "--voxel-size-nm", "8,8,8", "--output", str(output)]
    evaluate.main([*command, *more])
    return dict(json.loads(output.read_text())["segmentations"]["s"])


def place(file: Path, array: str, offset: tuple[int, ...]) -> None:
    with h5py.File(file, "a") as content:
        content[array].attrs.update(resolution=SIZE, offset=offset)


def test_labels_that_are_smaller_need_a_position(file: Path) -> None:
    option = "--labels-offset-nm z,y,x"
    with pytest.raises(DataError, match=f"nothing states where the smaller one is.*{option}"):
        compare(file, "small", "big")


@pytest.mark.parametrize("more", [(), ("--fill-unassigned",)])
def test_a_smaller_segmentation_is_taken_to_begin_with_the_labels(
    file: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    assumed = compare(file, "big", "small", *more)
    warning = capsys.readouterr().err.splitlines()[0]
    stated = compare(file, "big", "small", "--segmentation-offset-nm", "s=0,0,0", *more)

    assert "nothing states the position of" in warning
    assert "--segmentation-offset-nm s=z,y,x" in warning
    assert assumed == stated and "nothing states" not in capsys.readouterr().err
    place(file, "big", (80, 0, 0))  # then they need not begin together
    with pytest.raises(DataError, match="small states no position, and .*big begins at"):
        compare(file, "big", "small", *more)


def test_a_stated_position_gives_the_right_scores(file: Path) -> None:
    stated = compare(file, "small", "big", "--labels-offset-nm", CUT_NM)
    assert (stated["voi_split"], stated["voi_merge"], stated["scored_voxels"]) == (0, 0, 6144)
    other = compare(file, "big", "small", "--segmentation-offset-nm", f"s={CUT_NM}")
    assert (other["voi_split"], other["scored_voxels"]) == (0, 6144)
    place(file, "small", (16, 32, 32))
    assert compare(file, "small", "big") == stated
    with pytest.raises(DataError, match="--labels-offset-nm .* leave out --labels-offset-nm"):
        compare(file, "small", "big", "--labels-offset-nm", "0,0,0")


def test_a_larger_mask_needs_a_position(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = ("--mask", f"{file}:mask")
    with h5py.File(file) as content:
        counts = int(np.count_nonzero(content["small_mask"][...]))

    with pytest.raises(DataError, match="nothing states where the smaller one is.*--labels-off"):
        compare(file, "small", "small", *mask)
    everywhere = ("--labels-offset-nm", CUT_NM, "--segmentation-offset-nm", f"s={CUT_NM}")
    assert compare(file, "small", "small", *mask, *everywhere)["scored_voxels"] == counts
    same = compare(file, "small", "small", "--mask", f"{file}:small_mask")
    assert same["scored_voxels"] == counts
    capsys.readouterr()
    compare(file, "big", "big", "--mask", f"{file}:small_mask")
    assert "--mask-offset-nm z,y,x" in capsys.readouterr().err


def test_grown_segmentations_are_not_placed_by_that() -> None:
    volume = Volume(np.ones((1, 1, 2), np.uint8), SIZE, (0, 0, 0), "s", is_placed=False)
    assert not fill_unassigned(volume).is_placed


def test_offsets_of_what_is_not_there_are_refused(file: Path) -> None:
    option = "--segmentation-offset-nm"
    with pytest.raises(ConfigError, match="no segmentation is called 'S'; allowed: s"):
        compare(file, "big", "big", option, "S=0,0,0")
    with pytest.raises(ConfigError, match="names 's' twice"):
        compare(file, "big", "big", option, "s=0,0,0", "s=8,8,8")
    with pytest.raises(ConfigError, match="add --mask FILE:ARRAY"):
        compare(file, "big", "big", "--mask-offset-nm", "0,0,0")
    for wrong in ("0,0,0", "s=0,0,x"):
        with pytest.raises(SystemExit):
            compare(file, "big", "big", option, wrong)


# ---------------------------------------------------------------- the rule


def extent(
    name: str, shape: tuple[int, ...], offset: NmTriple | None, size: NmTriple = SIZE
) -> Extent:
    return Extent(name, shape, size, offset or (0, 0, 0), offset is not None)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ((BIG, None), (BIG, None), None),  # the same voxels
        ((SMALL, None), (BIG, None), "a has .* nothing states where"),
        ((BIG, None), (SMALL, None), "b has .* nothing states where"),
        ((BIG, None), (SMALL, (16, 32, 32)), None),  # the larger one is at 0
        ((BIG, None), (SMALL, (0, 0, 0)), None),
        ((SMALL, None), (BIG, (0, 0, 0)), "a has .* nothing states where"),
        ((SMALL, None), (BIG, (80, 0, 0)), "a states no position, and b begins at"),
        ((BIG, None), (SMALL, (80, 0, 0)), "a states no position, and at 0 it does not contain b"),
        ((BIG, None), (SMALL, (-8, 0, 0)), "a states no position, and at 0"),
        ((BIG, None), (BIG, (0, 0, 8)), "a states no position"),
        ((BIG, (0, 0, 0)), (BIG, None), None),
        ((BIG, (8, 0, 0)), (SMALL, (4000, 0, 0)), None),  # both are stated
        (((12, 24, 40), None), (((8, 32, 40)), None), "nothing states where"),  # none fits
        (((12, 24, 40), None), (((8, 32, 40)), (0, 0, 0)), "a (has|states no)"),
    ],
)
def test_what_may_be_laid_on_each_other(one: Any, other: Any, message: str | None) -> None:
    for pair in (("a", one), ("b", other)), (("b", other), ("a", one)):
        first, second = (extent(name, *content) for name, content in pair)
        if message is None:
            check_relative_place(first, second)
        else:
            with pytest.raises(DataError, match=message):
                check_relative_place(first, second)


@pytest.mark.parametrize(
    ("voxels", "is_refused"), [(31, True), (32, False), (33, False), (34, True)]
)
def test_larger_voxels_cover_the_same_up_to_one_of_them(voxels: int, is_refused: bool) -> None:
    """An image of 130 voxels of 10 nm is 32.5 voxels of 40 nm; some programs leave out the half."""
    image = extent("image", (130, 130, 130), None, (10, 10, 10))
    mask = extent("mask", (voxels, 33, 33), None, (40, 40, 40))
    if not is_refused:
        check_place_in_image(mask, image)
        return
    with pytest.raises(
        DataError, match=r"mask has .* of \[40, 40, 40\] nm, image .*nothing states"
    ):
        check_place_in_image(mask, image)


def test_rounded_sizes_are_the_same_size() -> None:
    shape = (10000, 20000, 20000)
    rounded = tuple(float(v) for v in np.array([40, 4.6, 4.6], np.float32))
    one = extent("a", shape, None, (40, 4.6, 4.6))
    check_relative_place(one, extent("b", shape, None, (rounded[0], rounded[1], rounded[2])))
    with pytest.raises(DataError, match="nothing states"):
        check_relative_place(one, extent("b", (10000, 20000, 19999), None, (40, 4.6, 4.6)))
