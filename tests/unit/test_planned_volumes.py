"""Volumes that cannot work are refused while the workflow is planned."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import yaml
import zarr
from torch import nn

from planned_cubes import SHAPE, VOXEL_NM, content, part, plan, write_cubes
from retrace.checkpoints.safetensors import save_model
from retrace.config.workflow import WorkflowConfig
from retrace.errors import ConfigError, DataError
from retrace.formats.contract import Configured
from retrace.formats.headers import read_header
from retrace.formats.placement import placed
from retrace.planning import stacks, view
from retrace.planning.experiment import Planner


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with raw and labels of the volumes a and b in cubes.h5."""
    monkeypatch.chdir(tmp_path)
    write_cubes(tmp_path)
    return tmp_path


def with_source(volume: str, part: str, **changes: Any) -> dict[str, Any]:
    """The dataset with another source of one part of a volume."""
    dataset = content()
    dataset["volumes"][volume][part] = dataset["volumes"][volume].get(part, {}) | changes
    return dataset


def store(path: str, data: np.ndarray) -> None:
    """Adds an array to cubes.h5."""
    with h5py.File("cubes.h5", "a") as file:
        file[path] = data


def test_volumes_that_fit_are_planned(place: Path) -> None:
    plan()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_boxes_outside_their_volume_are_refused(place: Path, split: str) -> None:
    volume = "b" if split == "test" else "a"
    dataset = content(**{split: [part(volume, [100, 0, 0], [200, 200, 200])]})

    with pytest.raises(DataError, match=rf"{split} of '{volume}': roi_nm from \[100, 0, 0\] to"):
        plan(dataset)


def test_the_offset_that_a_file_says_counts(place: Path) -> None:
    with h5py.File("cubes.h5", "a") as file:
        for array in ("raw", "labels"):
            file[f"b/{array}"].attrs["offset"] = [1250, 0, 0]
    dataset = content(test=[part("b", [50, 0, 0], [100, 200, 200])])

    with pytest.raises(DataError, match=r"leaves the image cubes\.h5/b/raw from \[1250, 0, 0\]"):
        plan(dataset)


def test_the_box_of_a_volume_and_skeleton_entries_are_checked(place: Path) -> None:
    dataset = content()
    dataset["volumes"]["b"]["roi_nm"] = {"offset": [0, 0, 0], "shape": [300, 500, 600]}
    with pytest.raises(DataError, match="roi_nm from"):
        plan(dataset)
    Path("nodes.json").write_text("{}")
    del dataset["volumes"]["b"]["labels"], dataset["volumes"]["b"]["roi_nm"]
    entry = part("b", [0, 0, 0], [200, 500, 700]) | {"skeletons": "nodes.json"}
    with pytest.raises(DataError, match="test of 'b': roi_nm from"):
        plan(dataset | {"test": [entry]})


@pytest.mark.parametrize("name", ["raw", "labels"])
def test_arrays_that_do_not_exist_are_named(place: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"did you mean 'b/{name}'"):
        plan(with_source("b", name, array=f"b/{name}s"))


CONTRADICTIONS = {
    "labels must be integers": ("labels", np.ones(SHAPE, np.float32), "float32"),
    "labels are no mask": ("labels", np.ones(SHAPE, bool), "`objects: cells` or `membranes`"),
    "raw must be uint8": ("raw", np.zeros(SHAPE, np.uint16), "raw must be uint8"),
    "labels larger than raw": ("labels", np.ones((20, 50, 70), np.uint8), "do not fit"),
    "labels with channels": ("labels", np.ones((2, *SHAPE), np.uint8), "has 2 channels"),
    "two axes": ("raw", np.zeros(SHAPE[1:], np.uint8), "has shape"),
    "labels without voxels": ("labels", np.ones((0, 50, 60), np.uint8), "is empty"),
    "mask on other voxels": ("labels_mask", np.ones((20, 50, 50), np.uint8), "the same voxels"),
    "mask of floats": ("labels_mask", np.ones(SHAPE, np.float32), "integer type"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_types_and_shapes_that_do_not_fit_are_refused(place: Path, case: str) -> None:
    name, data, message = CONTRADICTIONS[case]
    store("wrong", data)

    with pytest.raises(DataError, match=message):
        plan(with_source("b", name, path="cubes.h5", array="wrong", offset_nm=[0, 0, 0]))


def test_the_refusal_of_raw_measures_the_line_to_add(place: Path) -> None:
    data = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)
    store("wide", data)
    low, high = np.percentile(data, [1, 99], method="inverted_cdf")
    wide = {"path": "cubes.h5", "array": "wide"}

    with pytest.raises(DataError, match=rf"`normalize: {{range: \[{low}, {high}\]}}`"):
        plan(with_source("b", "raw", **wide))
    for settings in ({"range": [int(low), int(high)]}, {"percentiles": [1, 99]}):
        plan(with_source("b", "raw", **wide, normalize=settings))
    with pytest.raises(DataError, match=r"uint16; raw must be .*, invert: true\}"):
        plan(with_source("b", "raw", **wide, normalize={"invert": True}))


def test_further_images_are_checked_as_raw_is(place: Path) -> None:
    store("wide", np.zeros(SHAPE, np.uint16))
    dataset = content()
    dataset["volumes"]["a"]["inputs"] = {"more": {"path": "cubes.h5", "array": "wide"}}

    with pytest.raises(DataError, match=r"wide is uint16; raw must be .*percentiles: \[1, 99\]"):
        plan(dataset)
    dataset["volumes"]["a"]["inputs"]["more"]["normalize"] = {"range": [0, 9]}
    plan(dataset)


def test_raw_in_colours_or_with_zero_as_white_needs_a_decision(place: Path) -> None:
    grey = np.zeros(SHAPE, np.uint8)
    tifffile.imwrite("rgb.tif", np.stack([grey] * 3, -1), photometric="rgb")
    tifffile.imwrite("white.tif", grey, photometric="miniswhite")
    store("rgb", np.stack([grey] * 3, -1))
    hdf5 = {"path": "cubes.h5", "array": "rgb"}

    for path in ({"path": "rgb.tif"}, hdf5):
        for more in ({}, {"normalize": {"percentiles": [1, 99]}}):
            with pytest.raises(DataError, match=r"has colours \(RGB of 8 bits\).*`channel: 0`"):
                plan(with_source("b", "raw", **path, **more))
        plan(with_source("b", "raw", **path, channel=0))
        plan(with_source("b", "raw", **path, axes="zyxc", channel=0))
        plan(with_source("b", "labels", **path))
    with pytest.raises(DataError, match=r"white\.tif says that 0 is white.*invert: true"):
        plan(with_source("b", "raw", path="white.tif", array=""))
    plan(with_source("b", "raw", path="white.tif", array="", normalize={"invert": True}))
    plan(with_source("b", "labels", path="white.tif", array=""))


@pytest.mark.parametrize("name", ["labels", "labels_mask", "tissue_mask", "segmentations"])
def test_labels_and_masks_have_no_grey_values(place: Path, name: str) -> None:
    source = {"path": "cubes.h5", "array": "b/labels", "normalize": {"range": [0, 9]}}
    dataset = content()
    dataset["volumes"]["b"][name] = {"other": source} if name == "segmentations" else source

    with pytest.raises(ConfigError, match=f"volume 'b': `{name}` has `normalize`"):
        plan(dataset)


def test_voxel_sizes_that_contradict_the_dataset_are_refused(place: Path) -> None:
    with pytest.raises(DataError, match=r"has voxels of \[20, 10, 10\] nm, the dataset says"):
        plan(with_source("b", "labels", voxel_size_nm=[20, 10, 10]))
    with h5py.File("cubes.h5", "a") as file:
        file["b/raw"].attrs["resolution"] = [40, 4, 4]
    with pytest.raises(DataError, match=r"`resolution` \[40, 4, 4\] nm, and .*\[10, 10, 10\]"):
        plan()


def test_boxes_without_labels_are_refused(place: Path) -> None:
    store("low", np.ones((5, 50, 60), np.uint8))
    dataset = with_source("b", "labels", array="low", offset_nm=[0, 0, 0])

    with pytest.raises(DataError, match="test of 'b': its box holds no labels"):
        plan(dataset | {"test": [part("b", [100, 0, 0], [50, 200, 200])]})


def test_nothing_left_to_train_on_is_refused(place: Path) -> None:
    store("low", np.ones((5, 50, 60), np.uint8))
    dataset = with_source("a", "labels", array="low", offset_nm=[0, 0, 0])

    with pytest.raises(DataError, match="nothing is left to train on"):
        plan(dataset | {"validation": [part("a", [0, 0, 0], [100, 500, 600])]})


def test_remote_and_unfetched_volumes_are_not_read(place: Path) -> None:
    plan(with_source("b", "raw", path="s3://bucket/b.zarr") | {"test": ["b"]})
    Path("empty.h5").touch()
    plan(with_source("b", "raw", path="empty.h5"))
    plan(with_source("b", "raw", path="not_there.h5"))


def test_an_incomplete_download_is_left_to_its_rule(place: Path) -> None:
    bucket = {"prefix": "p", "raw": "volumes/raw", "labels": "volumes/labels"}
    dataset = content(volumes={"a": {}, "b": {}}, bucket=bucket)
    for name in "ab":
        group = zarr.open_group(f"data/mine/{name}.zarr", mode="w", zarr_format=2)
        group.create_array("volumes/raw", shape=(9, 9, 9), dtype="u1")
    plan(dataset | {"validation": [], "test": []}, verb="train")
    Path("data/mine/a.manifest.json").write_text("{}")
    with pytest.raises(DataError, match="has no array 'volumes/labels'"):
        plan(dataset | {"validation": [], "test": []}, verb="train")


def test_headers_of_all_formats(place: Path) -> None:
    for version in (2, 3):
        group = zarr.open_group(f"v{version}.zarr", mode="w", zarr_format=version)
        array = group.create_array("g/raw", shape=SHAPE, dtype="<u2", chunks=(20, 50, 60))
        array.attrs.update({"resolution": [40, 4, 4], "offset": [80, 0, 0]})
        header = read_header(f"v{version}.zarr", "g/raw")
        assert header is not None
        assert (header.shape, header.dtype) == (SHAPE, "uint16")
        place = placed("raw", header, "zyx", Configured())
        assert (place.voxel_size_nm, place.offset_nm) == ((40, 4, 4), (80, 0, 0))
    tifffile.imwrite("stack.tif", np.zeros(SHAPE, np.uint8), photometric="minisblack")
    stack = read_header("stack.tif")
    assert stack is not None and (stack.shape, stack.dtype) == (SHAPE, "uint8")
    Path("n.n5/raw").mkdir(parents=True)
    attributes = {"dimensions": SHAPE[::-1], "dataType": "uint8", "resolution": [4, 4, 40]}
    Path("n.n5/raw/attributes.json").write_text(json.dumps(attributes))
    n5 = read_header("n.n5", "raw")
    assert n5 is not None and n5.shape == SHAPE
    assert placed("n5", n5, "zyx", Configured()).voxel_size_nm == (40, 4, 4)
    Path("broken.h5").write_bytes(b"no h5")
    with pytest.raises(DataError, match=r"broken\.h5 cannot be read"):
        read_header("broken.h5", "raw")


# ---------------------------------------------------------------- train and test

TESTED_ABOVE = {"test": [part("b", [100, 0, 0], [100, 500, 600])]}
"""A test split without the first ten sections."""


def test_the_same_data_in_train_and_test_is_refused(place: Path) -> None:
    dataset = with_source("b", "raw", array="a/raw")

    with pytest.raises(ConfigError, match=r"`train` of volume 'a' \(whole\) and `test` of volume"):
        plan(dataset)
    plan(dataset | {"train": [part("a", [0, 0, 0], [100, 500, 600])]} | TESTED_ABOVE)


@pytest.mark.parametrize("copy", [os.link, shutil.copyfile])
def test_a_copy_of_the_file_is_the_same_data(
    place: Path, copy: Callable[[str, str], object]
) -> None:
    copy("cubes.h5", "other.h5")
    with pytest.raises(ConfigError, match="the same data"):
        plan(with_source("b", "raw", path="other.h5", array="a/raw"))
    with h5py.File("other.h5", "r+") as file:
        file["a/raw"][0, 0, 0] ^= 1
    if copy is shutil.copyfile:
        plan(with_source("b", "raw", path="other.h5", array="a/raw"))


def test_a_link_to_the_same_file_is_the_same_data(place: Path) -> None:
    Path("other.h5").symlink_to("cubes.h5")

    with pytest.raises(ConfigError, match="the same data"):
        plan(with_source("b", "raw", path="other.h5", array="a/raw"))


def test_the_same_data_may_be_predicted_without_ground_truth(place: Path) -> None:
    dataset = with_source("b", "raw", array="a/raw")
    del dataset["volumes"]["b"]["labels"]

    plan(dataset, verb="predict")


def test_weights_that_are_not_trained_may_be_tested_anywhere(place: Path) -> None:
    Path("net.h5").touch()

    settings = {"weights": "published", "init": "net.h5"}
    plan(with_source("b", "raw", array="a/raw"), settings, network="n4")


def write_sections(dtype: str = "uint8", **alignment: Any) -> Planner:
    """A dataset of 20 sections of 64 x 64 voxels; the planner of its runs."""
    tifffile.imwrite("sections.tif", np.zeros((20, 64, 64), dtype), photometric="minisblack")
    one = {"count": 4, "test_count": 1, "side": 32, "height": 2}
    dataset = {
        "name": "mine",
        "voxel_size_nm": VOXEL_NM,
        "volumes": {"v": {"raw": {"path": "sections.tif"}}},
        "alignment": {"volume": "v", "stacks": {"s": one}, **alignment},
    }
    Path("config/datasets/mine.yaml").write_text(yaml.safe_dump(dataset))
    return Planner(Path(), WorkflowConfig.model_validate({}).complete(deep=True))


TARGETS_OF_SECTIONS: dict[str, Callable[[Planner], Any]] = {
    "stacks_mine": lambda planner: stacks.stacks(planner, "mine"),
    "train_defects_mine": lambda planner: stacks.defect_network(planner, "mine"),
    "mask_stacks_mine": lambda planner: stacks.stack_masks(planner, "mine"),
    "view_data_mine": lambda planner: view.data_picture(planner, "mine"),
    "a file": lambda planner: planner.check_named_files(["results/mine/stacks/s_test.h5"]),
}


@pytest.mark.parametrize("target", TARGETS_OF_SECTIONS)
def test_boxes_of_stacks_outside_their_sections_are_refused(place: Path, target: str) -> None:
    box = {"offset": [0, 0, 0], "shape": [210, 600, 600]}
    outside = {"count": 4, "test_count": 1, "side": 32, "height": 2, "roi_nm": box}

    with pytest.raises(DataError, match="alignment: stacks 's': roi_nm from"):
        TARGETS_OF_SECTIONS[target](write_sections(stacks={"s": outside}))


def test_sections_of_another_type_are_refused(place: Path) -> None:
    write_sections().check_data("mine")
    with pytest.raises(DataError, match=r"stacks 's': sections\.tif is uint16; raw must be uint8"):
        write_sections("uint16").check_data("mine")


@pytest.mark.parametrize("target", ["train_defects_mine", "mask_stacks_mine"])
def test_fewer_iterations_of_a_detector_are_refused(place: Path, target: str) -> None:
    Path("results/mine").mkdir(parents=True)
    settings = {"seed": 0, "defects": {"iterations": 9}}
    Path("results/mine/defects_training.json").write_text(json.dumps({"settings": settings}))

    with pytest.raises(
        ConfigError, match=r"defects\.safetensors is trained for 9 iterations, and 5"
    ):
        TARGETS_OF_SECTIONS[target](write_sections(defects={"iterations": 5}))
    TARGETS_OF_SECTIONS[target](write_sections(defects={"iterations": 9}))
    Path("results/mine/defects_training.json").unlink()
    save_model(Path("results/mine/defects.safetensors"), nn.Linear(1, 1), {"settings": settings})
    with pytest.raises(ConfigError, match="is trained for 9 iterations, and 5"):
        TARGETS_OF_SECTIONS[target](write_sections(defects={"iterations": 5}))
