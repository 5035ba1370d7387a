"""dataset.py: the file of a new dataset, from what the files of an image and labels say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import yaml

import dataset as program
from array_files import FORMATS
from retrace.config.command_line_values import read_config
from retrace.config.yaml_files import WORKFLOW_CONFIG
from retrace.errors import RetraceError
from retrace.planning.experiment import Planner
from retrace.planning.listing import register_verbs
from retrace.planning.targets import PAIR_VERBS
from retrace.storage.volumes import open_source
from volume_datasets import load_volumes

SHAPE = (20, 24, 28)
RNG = np.random.default_rng(0)
RAW = RNG.integers(0, 255, SHAPE, dtype=np.uint8)
LABELS = RNG.integers(0, 9, SHAPE, dtype=np.uint32)
SIZE = ["--voxel-size-nm", "40,4.6,4.6"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def h5(name: str, data: np.ndarray, **attributes: Any) -> str:
    with h5py.File(name, "w") as file:
        file["a"] = data
        file["a"].attrs.update(attributes)
    return f"{name}:a"


def new(raw: str, labels: str, *more: str) -> dict[str, Any]:
    """The content of the file that the program writes."""
    program.main(["new", "mine", "--raw", raw, "--labels", labels, *more])
    content: dict[str, Any] = yaml.safe_load(Path("config/datasets/mine.yaml").read_text())
    return content


def error_of(*arguments: str) -> str:
    with pytest.raises(RetraceError) as error:
        new(*arguments)
    assert not list(Path("config/datasets").glob("*")) if Path("config").exists() else True
    return str(error.value)


def sections(content: dict[str, Any], depth_nm: float = 40) -> dict[str, tuple[float, float]]:
    """First section and number of sections of each split."""
    regions = {s: content[s][0]["roi_nm"] for s in ("train", "validation", "test")}
    return {s: (r["offset"][0] / depth_nm, r["shape"][0] / depth_nm) for s, r in regions.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_each_format_becomes_a_dataset_that_plans(place: Path, name: str) -> None:
    texts = []
    for part, data in (("raw", RAW), ("labels", LABELS)):
        (place / part).mkdir()
        source = FORMATS[name](place / part, data)
        texts.append(f"{source['path']}:{source['array']}")
    content = new(*texts, *SIZE)

    assert sections(content) == {"train": (0, 14), "validation": (14, 2), "test": (16, 4)}
    assert content["test"][0]["roi_nm"]["shape"][1:] == [110.4, 128.8]
    register_verbs()
    planner = Planner(place, read_config([WORKFLOW_CONFIG / "config.yaml"], []))
    assert PAIR_VERBS["evaluate"](planner, "mine", "mtlsd_small")
    read = open_source(load_volumes("mine").volumes["volume"].labels)  # type: ignore[arg-type]
    assert np.array_equal(read.read(read.box), LABELS)


def test_what_was_decided_is_printed_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    new(h5("raw.h5", RAW, resolution=[40, 4, 4]), h5("labels.h5", LABELS, resolution=[40, 4, 4]))

    printed, file = capsys.readouterr().out, Path("config/datasets/mine.yaml").read_text()
    for line in (
        "raw: raw.h5/a, 20x24x28 voxels (z, y, x)",
        "  voxel size: [40, 4, 4] nm (z, y, x) (`resolution` [40, 4, 4] nm)",
        "grey values: as stored, percentiles 1 and 99 of some blocks: 2 and 252",
        "labels: one number for each object, 9 values in some blocks; 0 means none",
        "validation: labelled sections 14-15 (10 % along z)",
    ):
        assert f"{line}\n" in printed and f"# {line}\n" in file
    assert "next: snakemake --use-singularity evaluate_mine_mtlsd_small\n" in printed


def test_a_tif_in_16_bits_gets_normalize(place: Path) -> None:
    tifffile.imwrite("raw.tif", RAW.astype(np.uint16) * 100 + 1000)
    content = new("raw.tif", h5("labels.h5", LABELS), *SIZE)

    assert content["volumes"]["volume"]["raw"]["normalize"] == {"range": [1200, 26200]}
    raw = open_source(load_volumes("mine").volumes["volume"].raw)
    assert raw.dtype == np.uint8 and np.ptp(np.asarray(raw.read(raw.box))) == 255


def test_labels_on_some_sections_are_split_where_they_are() -> None:
    few = h5("labels.h5", LABELS[5:15])
    with_offset = ["--labels-offset-nm", "200,0,0"]
    content = new(h5("raw.h5", RAW), few, *SIZE, *with_offset)

    assert sections(content) == {"train": (5, 7), "validation": (12, 1), "test": (13, 2)}
    assert content["volumes"]["volume"]["labels"]["offset_nm"] == [200, 0, 0]


def test_labels_without_a_position_are_where_the_image_is() -> None:
    placed = h5("raw.h5", RAW, resolution=[40, 4, 4], offset=[80, 8, 8])
    content = new(placed, h5("labels.h5", LABELS))

    assert content["volumes"]["volume"]["labels"]["offset_nm"] == [80, 8, 8]
    assert "offset_nm" not in content["volumes"]["volume"]["raw"]
    assert sections(content)["train"] == (2, 14)


def test_membranes_are_declared_by_the_user() -> None:
    raw, labels = h5("raw.h5", RAW), h5("labels.h5", (LABELS > 4).astype(np.uint8))
    assert "--objects ids|cells|membranes|classes" in error_of(raw, labels, *SIZE)
    content = new(raw, labels, *SIZE, "--objects", "membranes")
    assert content["volumes"]["volume"]["labels"]["objects"] == "membranes"


def test_what_no_file_states_is_asked_for() -> None:
    raw, labels = h5("raw.h5", RAW), h5("labels.h5", LABELS)
    several = h5("several.h5", RAW)
    with h5py.File("several.h5", "a") as file:
        file["deep/b"] = RAW
    tifffile.imwrite("white.tif", RAW, photometric="miniswhite")
    colours = h5("rgb.h5", np.stack([RAW] * 4))
    other_size = h5("other.h5", LABELS, resolution=[40, 8, 8])

    assert "--voxel-size-nm Z,Y,X" in error_of(raw, labels)
    listed = error_of(several.removesuffix(":a"), labels, *SIZE)
    assert "allowed: a, deep/b" in listed and "--raw several.h5:ARRAY" in listed
    assert "--labels-offset-nm Z,Y,X" in error_of(raw, h5("few.h5", LABELS[:9]), *SIZE)
    assert "--invert true, or --invert false" in error_of("white.tif", labels, *SIZE)
    assert "--channel N" in error_of(colours, labels, *SIZE)
    assert "voxel size" in error_of(raw, other_size, *SIZE)
    assert "does not exist" in error_of("absent.h5:a", labels, *SIZE)
    assert "whole numbers" in error_of(raw, h5("f.h5", LABELS.astype(np.float32)), *SIZE)
    assert "it has no labels" in error_of(raw, h5("none.h5", LABELS * 0), *SIZE)
    too_few = (h5("thin.h5", RAW[:3]), h5("thin_labels.h5", LABELS[:3]))
    assert "too few" in error_of(*too_few, *SIZE)
    far = [*SIZE, "--labels-offset-nm", "400,0,0"]
    assert "leave the image" in error_of(raw, labels, *far, "--raw-offset-nm", "0,0,0")


def test_an_existing_dataset_is_never_overwritten() -> None:
    raw, labels = h5("raw.h5", RAW), h5("labels.h5", LABELS)
    new(raw, labels, *SIZE)
    before = Path("config/datasets/mine.yaml").read_text()
    with pytest.raises(RetraceError, match="dataset 'mine' exists; choose another name"):
        new(raw, labels, "--voxel-size-nm", "9,9,9")
    with pytest.raises(RetraceError, match="dataset 'zfinch' exists"):
        program.main(["new", "zfinch", "--raw", raw, "--labels", labels])
    with pytest.raises(RetraceError, match="letters, digits and _"):
        program.main(["new", "../mine", "--raw", raw, "--labels", labels])
    assert Path("config/datasets/mine.yaml").read_text() == before
