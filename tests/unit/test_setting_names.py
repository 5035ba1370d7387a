"""Messages name the settings that a program has: options on the command line, else the config."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import evaluate
from retrace.errors import DataError
from retrace.formats.source import Source
from retrace.storage.volumes import open_source, open_volume

ONES = np.ones((4, 6, 8), np.uint8)
NOT_OF_COMPARE = ("config", "`axes`", "`channel`", "`offset_nm`", "`roi_nm`", "`voxel_size_nm`")


def write(folder: Path, data: np.ndarray, **attributes: Any) -> str:
    with h5py.File(folder / "c.h5", "w") as file:
        file["ones"], file["l"] = ONES, data
        file["l"].attrs.update(attributes)
    return str(folder / "c.h5")


def refusal(file: str, *more: str) -> str:
    with pytest.raises(DataError) as caught:
        command = ["compare", "--labels", f"{file}:l", "--segmentation", f"s={file}:ones"]
        evaluate.main([*command, *more])
    message = str(caught.value)
    assert not [name for name in NOT_OF_COMPARE if name in message]
    return message


SIZE = ("--voxel-size-nm", "8,8,8")
PLACED = (*SIZE, "--segmentation-offset-nm", "s=0,0,0")


@pytest.mark.parametrize(
    ("data", "attributes", "options", "expected"),
    [
        (ONES, {}, (), "the command line has no --voxel-size-nm; add it"),
        (ONES, {"resolution": (4, 4, 4)}, SIZE, "correct --voxel-size-nm on the command line, or"),
        (
            ONES,
            {"offset": (8, 0, 0)},
            (*SIZE, "--labels-offset-nm=0,0,0"),
            "out --labels-offset-nm",
        ),
        (ONES, {"offset": (1, 0, 0)}, PLACED, "correct --labels-offset-nm on the command line, or"),
        (ONES, {"offset": (1e300, 0, 0)}, SIZE, "correct its metadata, or the command line"),
        (ONES[0], {}, SIZE, "save it again with the axes z, y, x"),
        (np.stack([ONES] * 2), {}, SIZE, "save it again with the axes z, y, x"),
        (ONES > 0, {}, SIZE, "bool; labels must be of an integer type, .*: save it as integers"),
        (ONES * 0.5, {}, SIZE, "float64; labels must be of an integer type"),
        (ONES[:0], {}, SIZE, r"is empty, its shape is \[0, 6, 8\]"),
        (ONES * 0, {}, SIZE, "choose another --roi-nm, or correct --background-id"),
    ],
)
def test_compare_names_its_options(
    tmp_path: Path, data: np.ndarray, attributes: Any, options: Any, expected: str
) -> None:
    assert re.search(expected, refusal(write(tmp_path, data, **attributes), *options))


def test_the_config_is_named_elsewhere(tmp_path: Path) -> None:
    file = write(tmp_path, ONES, offset=(1, 0, 0))
    with pytest.raises(DataError, match="the dataset's config has no `voxel_size_nm`; add it"):
        open_source(Source(path=file, array="l"))
    with pytest.raises(DataError, match="correct `offset_nm` in the dataset's config, or the file"):
        _ = open_volume(file, "l", (8, 8, 8)).box
