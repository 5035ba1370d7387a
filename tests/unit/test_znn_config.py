"""ZNN networks and data in the configuration: translation of .spec and .cfg files, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

import mask
import tiny_znn as tiny
from retrace.config import compatibility, datasets, networks, sources, splits
from retrace.config.network_settings import DatasetTraits
from retrace.errors import ConfigError, DataError
from retrace.formats.source import Source
from retrace.planning import predict, train
from retrace.settings_model import as_json, deciding
from retrace.storage.volumes import open_source, open_volume
from run_config import run_config
from znn_case import SMALL

SPEC = """\
[image1]
fnames = raw.tif
pp_types = standard2D
[label1]
fnames = labels.h5
is_auto_crop = yes
fmasks = mask.tif
[image2]
fnames = raw.h5
pp_types = symetric_rescale
[sample1]
input = 1
input-r = 2
output = 1
[sample2]
input = 2
[sample3]
input = 2
output = 1
"""
CFG = """\
[parameters]
fnet_spec = net.znn
fdata_spec = data.spec
out_type = boundary
train_range = 1
test_range = 3
forward_range = 2-3
train_outsz = 1,10,10
forward_outsz = 2,20,20
is_bd_mirror = yes
Max_iter = 5000
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny.write_stack(tmp_path)
    tifffile.imwrite(tmp_path / "mask.tif", np.ones(tiny.SHAPE, np.uint8))
    for name, text in (("data.spec", SPEC), ("config.cfg", CFG), ("net.znn", SMALL)):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spec_dataset(folder: Path, **changes: Any) -> dict[str, Any]:
    content = {"name": "mine", "voxel_size_nm": tiny.VOXEL_SIZE_NM, "cfg": "config.cfg"}
    return tiny.load(folder, content | changes)


def test_samples_of_a_spec_are_volumes_and_ranges_of_a_cfg_the_splits(folder: Path) -> None:
    data = spec_dataset(folder)
    first = data.volumes["sample1"]

    assert first.raw.path == "raw.tif"
    assert first.raw.preprocess == "standard2D"
    assert first.inputs["input-r"].array == "main"
    assert first.labels_mask.path == "mask.tif"
    assert first.labels.fit.crop is True
    assert [[e.volume for e in data.entries(s)] for s in splits.SPLITS] == [
        ["sample1"],
        ["sample3"],
        ["sample2", "sample3"],
    ]
    assert datasets.has_boundaries(data)
    assert {"raw.tif", "mask.tif", "labels.h5"} <= set(sources.named_files(data))


def test_a_spec_alone_leaves_the_splits_to_the_dataset(folder: Path) -> None:
    content = {"name": "mine", "voxel_size_nm": [40, 10, 10], "spec": "data.spec"}
    data = tiny.load(folder, content | {"train": ["sample3"], "test": ["sample2"]})

    assert [e.volume for e in data.train] == ["sample3"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("test_range = 3", "test_range = 7", "test_range of config.cfg names sample 7; samples"),
        (
            "test_range = 3",
            "test_range = 2",
            "test_range of config.cfg names sample 2, which has",
        ),
        ("test_range = 3", "test_range = 1", "share samples"),
    ],
)
def test_impossible_ranges_are_refused(folder: Path, old: str, new: str, message: str) -> None:
    (folder / "config.cfg").write_text(CFG.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        spec_dataset(folder)


def test_a_network_takes_layers_and_parameters_from_a_cfg(folder: Path) -> None:
    (folder / "config/networks").mkdir(parents=True)
    (folder / "config/networks/mine.yaml").write_text("{name: mine, family: znn, cfg: config.cfg}")
    data = spec_dataset(folder)
    net = networks.network_for("mine", data)

    assert net.input_shape == (2, 15, 15)
    assert net.inference_shape == (3, 25, 25)
    assert (net.cost_fn, net.iterations) == ("softmax_loss", 5000)
    assert net.plain()["heads"] == [{"name": "boundary", "channels": 2, "node": "output"}]
    assert networks.predicts_boundaries("mine")
    assert not networks.predicts_boundaries("n4_a_even")
    config = run_config()
    settings = predict.predict_settings(config, data, net, "sample2")
    assert list(settings.tile) == [2, 20, 20]
    trained = train.train_settings(config, data, net)
    # sample3 would be measured on, but it is scored, too, so that a training must not see it.
    assert set(trained.dataset.volumes) == {"sample1"}


def test_network_files_are_written_next_to_the_network_of_the_cfg(folder: Path) -> None:
    for name in ("python", "networks"):
        (folder / name).mkdir()
    (folder / "networks/net.znn").write_text(SMALL)
    text = CFG.replace("fnet_spec = net.znn", "fnet_spec = ../networks/net.znn")
    text = text.replace("data.spec", "../data.spec")
    (folder / "python/config.cfg").write_text(text + "train_net_prefix = ../nets/net\n")
    data = spec_dataset(folder, cfg="python/config.cfg")
    net = networks.resolved(
        {"name": "mine", "family": "znn", "cfg": "python/config.cfg"},
        DatasetTraits(boundaries_drawn=True, isotropic=False),
        "mine",
    )

    assert net.plain()["net_files"] == {"prefix": "python/../nets/net", "is_stdio": False}
    assert tiny.network(data).net_files is None


def pair(folder: Path, network: str, verb: str = "train", **changes: Any) -> None:
    data = tiny.dataset(folder, **changes)
    compatibility.check_pair(data, networks.network_for(network, data), verb)


def test_compatible_pairs_are_accepted(folder: Path) -> None:
    for network in ("n4", "n4_a", "vd2d", "mtlsd_small"):
        pair(folder, network)
    labels = {"path": "labels.tif", "objects": "cells"}
    volumes = {"stack": {"raw": {"path": "raw.tif"}, "labels": labels}}
    pair(folder, "n4", "evaluate", volumes=volumes)
    pair(folder, "n4", "segment")
    further = {"input-r": {"path": "raw.h5", "array": "main"}}
    pair(folder, "vd2d3d", volumes={"stack": volumes["stack"] | {"inputs": further}})


@pytest.mark.parametrize(
    ("network", "verb", "objects", "message"),
    [
        ("mtlsd", "train", "cells", "the labels of dataset 'cells' are membranes"),
        ("n4_a", "train", "membranes", "such as n4 or vd2d"),
        ("hd2d", "train", "ids", "has 4 maps, each a class of voxels"),
        ("n4", "segment", "cells", "nothing to segment across them; evaluate_ scores its bound"),
        ("n4", "export", "ids", "predicts no affinities"),
    ],
)
def test_incompatible_pairs_are_refused_with_the_reason(
    folder: Path, network: str, verb: str, objects: str, message: str
) -> None:
    labels = {"path": "labels.tif", "objects": objects}
    volumes = {"stack": {"raw": {"path": "raw.tif"}, "labels": labels}}
    with pytest.raises(ConfigError) as error:
        pair(folder, network, verb, volumes=volumes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": {"is_malis": True}}, "is_malis needs out_type affinity"),
        ({"parameters": {"train_outsz": [1, 12, 10]}}, "is_data_aug exchanges y and x"),
        ({"parameters": {"etaa": 1}}, "unknown key 'etaa', did you mean 'eta'"),
        ({"changes": {"conv9": {"maps": 3}}}, "changes 'conv9'; did you mean"),
        ({"layers": [*tiny.LAYERS[:2], tiny.LAYERS[2] | {"maps": 1}]}, "softmax over its one map"),
        (
            {"layers": [*tiny.LAYERS[:2], tiny.LAYERS[2] | {"maps": 4}]},
            "output node 'output' has 4 maps; out_type boundary needs 1 or 2",
        ),
    ],
)
def test_impossible_networks_are_refused(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        tiny.network(tiny.dataset(folder), **changes)
    assert message in str(error.value)


RECURSIVE = [
    {"conv": "a", "from": "input", "size": [1, 3, 3], "to": "n1", "maps": 2},
    {"conv": "b", "from": "input-r", "size": [1, 3, 3], "to": "n1", "maps": 2},
    {"conv": "c", "size": [1, 1, 1], "to": "output", "maps": 2, "function": "linear"},
]


def test_an_input_is_what_another_network_predicted_of_the_whole_volume(folder: Path) -> None:
    data = tiny.dataset(folder)
    config = run_config()
    net = tiny.network(data, layers=RECURSIVE, recursive={"input-r": {"network": "vd2d"}})
    compatibility.check_pair(data, net, "train")
    store = "results/cells/vd2d/stack/whole_prediction.zarr"
    trained = train.train_settings(config, data, net).dataset.volumes["stack"]
    predicted = predict.predict_settings(config, data, net, "stack").volume

    assert list(predicted.inputs) == [trained.inputs["input-r"]]
    assert predicted.inputs[0].path == store
    assert predicted.inputs[0].preprocess == "symetric_rescale"
    first = networks.network_for("vd2d", data)
    whole = predict.whole_settings(config, data, first, "stack")
    in_shards = config.model_copy(update={"zarr_format": 3})
    other = predict.whole_settings(in_shards, data, first, "stack")
    assert other.zarr_format == 3 and deciding(other) == deciding(whole)
    assert (whole.volume.roi_nm, whole.dtype, whole.precision) == (None, "float32", "auto")
    own = {"path": "raw.h5", "array": "main"}
    volume = {"raw": {"path": "raw.tif"}, "labels": {"path": "labels.tif"}}
    with_own_input = tiny.dataset(folder, volumes={"stack": volume | {"inputs": {"input-r": own}}})
    assert train.recursive_inputs(with_own_input, net, "stack") == {}
    inputs = predict.predict_settings(config, with_own_input, net, "stack").volume.inputs
    assert inputs[0].path == "raw.h5"


@pytest.mark.parametrize(
    ("layers", "recursive", "message"),
    [
        (RECURSIVE, None, "has no image for 'input-r'. Add `inputs"),
        (RECURSIVE, {"input-r": {"network": "mtlsd"}}, "'mtlsd' is no network of the family znn"),
        (RECURSIVE, {"input-r": {"network": "vd2d3d"}}, "that reads images alone"),
        (RECURSIVE, {"input-r": {"network": "vd2d", "channel": 2}}, "has the maps 0 to 1, and `ch"),
        (
            RECURSIVE,
            {"input": {"network": "vd2d"}},
            "recursive names 'input'; input nodes other than",
        ),
        (tiny.LAYERS, {"input-r": {"network": "vd2d"}}, "which reads raw: none"),
    ],
)
def test_impossible_recursive_inputs_are_refused(
    folder: Path, layers: list[Any], recursive: dict[str, Any] | None, message: str
) -> None:
    data = tiny.dataset(folder)
    with pytest.raises(ConfigError) as error:
        net = tiny.network(data, layers=layers, **({"recursive": recursive} if recursive else {}))
        compatibility.check_pair(data, net, "train")
    assert message in str(error.value)


def test_boundaries_are_grown_where_labels_have_none(folder: Path) -> None:
    drawn, touching = tiny.dataset(folder), tiny.dataset(folder, boundaries_drawn=False)

    assert tiny.network(drawn).grow_boundary is None
    assert tiny.network(touching).plain()["grow_boundary"] == {"steps": 1, "only_xy": True}
    assert tiny.network(touching, grow_boundary=None).grow_boundary is None


def source(path: Path, **more: Any) -> Source:
    return Source.model_validate({"path": str(path), "voxel_size_nm": [40, 10, 10], **more})


def test_membranes_separate_objects_section_by_section(folder: Path) -> None:
    drawn = (tiny.cells()[1] == 0).astype(np.uint8)
    tifffile.imwrite(folder / "membranes.tif", drawn)
    membranes = open_source(source(folder / "membranes.tif", objects="membranes"))
    cells = open_source(source(folder / "labels.tif", objects="cells"))
    objects = membranes.read(membranes.box)

    np.testing.assert_array_equal(cells.read(cells.box), objects)
    np.testing.assert_array_equal(objects == 0, drawn > 0)
    first, second = (set(np.unique(objects[z])) - {0} for z in (0, 1))
    assert not first & second
    assert len(first) == len(second) >= 8
    np.testing.assert_array_equal(np.asarray(membranes.array[2:4, 5, 3:9]), objects[2:4, 5, 3:9])


def test_values_are_grouped_into_classes(folder: Path) -> None:
    stored = np.array([[[0, 32, 255, 7], [191, 32, 0, 254]]], np.uint8)
    tifffile.imwrite(folder / "classes.tif", stored, photometric="minisblack")
    groups = [[255], [32, 0], [191]]
    labels = open_source(source(folder / "classes.tif", objects="classes", class_values=groups))

    expected = [[[1, 1, 0, -1], [2, 1, 1, -1]]]
    np.testing.assert_array_equal(labels.read(labels.box), expected)


@pytest.mark.parametrize("name", ["hd2d", "hd2d_strided", "hd3d", "hd3d_strided"])
def test_networks_of_four_maps_learn_classes(folder: Path, name: str) -> None:
    data = datasets.load_dataset("vnc_nc_classes")
    net = networks.network_for(name, data)
    compatibility.check_pair(data, net, "evaluate")

    assert net.plain()["heads"] == [{"name": "classes", "channels": 4, "node": "nl10"}]
    assert (net.cost_fn, net.n_lab) == ("softmax_loss", 4)
    assert networks.labels_voxels(name)
    assert not networks.predicts_boundaries(name)
    with pytest.raises(ConfigError, match="affinities, which a segmentation is made from"):
        compatibility.check_pair(data, net, "segment")


def test_labels_of_several_outputs_come_from_their_names_in_a_spec(folder: Path) -> None:
    text = SPEC.replace("[image2]", "[label2]\nfnames = labels.tif\n[image2]")
    text = text.replace("output = 1\n[sample2]", "output = 1\nother = 2\n[sample2]")
    (folder / "data.spec").write_text(text.replace("other", "output2"))
    data = spec_dataset(folder)
    volume = data.volumes["sample1"]
    net = tiny.network(tiny.dataset(folder), layers=tiny.TWO_OUTPUTS)
    net = net.with_(heads=[net.heads[0], net.heads[1].with_(node="output2")])

    assert volume.labels.path == "labels.h5"
    assert volume.outputs["output2"].path == "labels.tif"
    assert volume.outputs_mask["output"].path == "mask.tif"
    assert {"labels.tif", "labels.h5"} <= set(sources.named_files(data))
    with pytest.raises(ConfigError, match="volume 'sample3' has no labels for 'output2'. Add"):
        compatibility.check_pair(data, net, "train")
    with pytest.raises(ConfigError, match="serves the verbs train, package, predict"):
        compatibility.check_pair(data, net, "evaluate")
    both = text.replace("other", "output2").replace(
        "input = 2\noutput = 1", "input = 2\noutput = 1\noutput2 = 2"
    )
    (folder / "data.spec").write_text(both)
    compatibility.check_pair(spec_dataset(folder), net, "train")


def test_labels_of_a_spec_are_classes_where_its_cfg_says_so(folder: Path) -> None:
    text = CFG.replace("out_type = boundary", "out_type = semantic")
    (folder / "config.cfg").write_text(text)

    assert datasets.has_classes(spec_dataset(folder))


def test_colours_are_numbers(folder: Path) -> None:
    colours = np.zeros((2, 3, 4, 3), np.uint8)
    colours[0, 1, 2] = (1, 2, 3)
    tifffile.imwrite(folder / "colour.tif", colours, photometric="rgb")
    with h5py.File(folder / "colour.h5", "w") as file:
        file["main"] = colours
    for path, array in (("colour.tif", ""), ("colour.h5", "main")):
        labels = open_source(source(folder / path, array=array))
        values = labels.read(labels.box)
        assert values.shape == (2, 3, 4)
        assert values[0, 1, 2] == 65536 + 2 * 256 + 3
        assert np.count_nonzero(values) == 1


def test_smaller_labels_lie_in_the_middle_or_are_refused(folder: Path) -> None:
    small = tiny.cells()[1][1:5, 3:34, 4:40]
    tifffile.imwrite(folder / "small.tif", small, photometric="minisblack")
    image = source(folder / "raw.tif")
    fitted = open_source(source(folder / "small.tif", fit={"image": image, "crop": True}))

    assert fitted.box.offset == (1, 4, 4)
    with pytest.raises(DataError, match="set `auto_crop: true`"):
        open_source(source(folder / "small.tif", fit={"image": image, "crop": False}))
    with pytest.raises(DataError, match="is larger than"):
        fit = {"image": source(folder / "small.tif"), "crop": True}
        open_source(source(folder / "raw.tif", fit=fit))


def test_a_fractional_voxel_size_is_exact(folder: Path) -> None:
    with h5py.File(folder / "raw.h5", "a") as file:
        file["main"].attrs["resolution"] = [40.0, 9.6, 9.6]

    for size in (None, [40, 9.6, 9.6]):
        assert open_volume(folder / "raw.h5", "main", size).voxel_size_nm == (40, 9.6, 9.6)
    with pytest.raises(DataError, match=r"\[40, 9.6, 9.6\] nm, and .*\[40, 10, 10\] nm"):
        open_volume(folder / "raw.h5", "main", [40, 10, 10])


def test_a_custom_mask_is_part_of_the_labels_mask(folder: Path) -> None:
    own_mask = np.ones(tiny.SHAPE, np.uint8)
    own_mask[:, :, :10] = 0
    tifffile.imwrite(folder / "mask.tif", own_mask)
    settings = {
        "background_ids": [],
        "labels": source(folder / "labels.tif"),
        "labels_mask": source(folder / "mask.tif"),
    }
    mask.main(["--settings", as_json(settings), "--output", str(folder / "m.zarr")])

    labels_mask = open_volume(folder / "m.zarr", "labels_mask")
    np.testing.assert_array_equal(labels_mask.read(labels_mask.box), own_mask)
