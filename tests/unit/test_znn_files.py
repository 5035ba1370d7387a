"""ZNN's text files: parsed values, and refusals with file, line and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrace.errors import ConfigError
from retrace.znn.cfg import read_cfg
from retrace.znn.graph import Edge, Init, Node
from retrace.znn.net import parse_net, read_net
from retrace.znn.spec import read_spec
from znn_case import SAMPLES, SMALL, sample_graph

TABLE = {
    "n4": ((1, 95, 95), 219290),
    "n4_a": ((1, 95, 95), 219491),
    "n4_even": ((1, 94, 94), 218954),
    "n4_a_even": ((1, 94, 94), 219155),
    "vd2d": ((1, 109, 109), 230714),
    "vd2d_tanh": ((1, 109, 109), 230714),
    "vd2d3d": ((5, 85, 85), 296486),
    "vd2d3d_tanh": ((5, 85, 85), 296486),
    "w5_c10_p3_d2": ((1, 99, 99), 281432),
    "srini2d": ((1, 37, 37), 21122),
    "srini": ((1, 37, 37), 21613),
    "srini2ddeeper": ((1, 55, 55), 35361),
    "srini2da": ((3, 24, 20), 4331),
    "kisuk": ((9, 55, 55), 576422),
    "kisuk_aws_optimized": ((9, 55, 55), 576422),
    "znn_40p": ((80, 80, 80), 820203),
    "znn_40ps": ((80, 80, 80), 820203),
    "hd2d": ((1, 155, 155), 65836),
    "hd2d_strided": ((1, 155, 155), 65836),
    "hd3d": ((13, 111, 111), 189724),
    "hd3d_strided": ((13, 111, 111), 189724),
    "zinet": ((37, 37, 37), 1454521),
}
"""Field of view and parameters of ZNN's own files, counted in the original program."""


def test_all_sample_networks_have_their_field_of_view_and_size() -> None:
    assert sorted(TABLE) == SAMPLES
    graphs = {name: sample_graph(name) for name in SAMPLES}

    assert {n: (g.field_of_view, g.parameters) for n, g in graphs.items()} == TABLE
    assert all(g.dense().field_of_view == g.field_of_view for g in graphs.values())


def test_a_net_file_becomes_nodes_and_edges(tmp_path: Path) -> None:
    file = tmp_path / "net.znn"
    file.write_text(SMALL)
    graph = read_net(file)

    assert graph.nodes["n1"] == Node("n1", "transfer", 4, "tanh", (1.7159, 1.0))
    assert graph.edges["pool1"] == Edge("pool1", "max_filter", "n1", "n2", (1, 2, 2), (1, 2, 2))
    assert graph.inits == {
        "conv1": Init("uniform", (0.05,)),
        "output": Init("constant", (0.5,)),
    }
    assert graph.unseeded == ("conv2",)
    assert (graph.inputs, graph.outputs) == (("input",), ("output",))
    assert graph.dilations["n2"] == (1, 2, 2)
    assert graph.sizes((1, 5, 5))["input"] == (2, 10, 10)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("type max_filter", "type max_filte", "net.znn:20: type is 'max_filte'; did you mean"),
        ("type sum", "type summ", "net.znn:27: type is 'summ'; did you mean 'sum'"),
        (
            "function tanh",
            "function relu",
            "net.znn:15: function is 'relu'; allowed: forward",
        ),
        ("init uniform", "init xavie", "net.znn:7: init is 'xavie'; did you mean 'xavier'"),
        ("init_args 0.5", "init_args 1,2", "net.znn:43: init_args is '1,2'; allowed: 1 to 1"),
        ("init_args 0.5\n", "", "1 to 1 arguments for init constant"),
        ("size 1,3,3", "size 1, 3, 3", "net.znn:9: size is '1, 3, 3'; allowed: numbers with"),
        ("size 1,3,3", "size 1,3", "net.znn:9: size is '1,3'; allowed: three whole numbers"),
        ("stride 1,2,2\n", "", "net.znn:19: edges 'pool1' has no `stride`"),
        ("input n2", "input n3", "names node 'n3', which does not exist; nodes: input, n1, n2"),
        ("input input", "input n2", "nothing reads the input 'input'"),
        ("size 4\nload", "size 3\nload", "size mismatch: max_filter edge 'pool1'"),
        ("nodes input", "# N4\nnodes input", "net.znn:1: '#' before the first object"),
        ("nodes n2", "nodes n1", "net.znn:26: 'n1' is defined twice, first at net.znn:13"),
        ("function linear", "function linear\nfunction_args 1,2,3", "2 numbers for linear"),
    ],
)
def test_a_net_file_with_a_mistake_is_refused_by_line(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(ConfigError, match="^[^\n]*$") as error:
        parse_net(SMALL.replace(old, new, 1), Path("net.znn"))
    assert message in str(error.value)


def test_circles_and_paths_of_different_length_are_refused() -> None:
    back = "edges back\ntype conv\nsize 1,1,1\ninput n2\noutput n1\n"
    with pytest.raises(ConfigError, match="cycle, in or before: n1, n2, output"):
        parse_net(SMALL + back, Path("net.znn"))
    skip = "edges skip\ntype conv\nsize 1,1,1\ninput n1\noutput output\n"
    with pytest.raises(ConfigError, match="size mismatch: edges into 'output' come with"):
        parse_net(SMALL + skip, Path("net.znn"))
    skip = "edges skip\ntype conv\nsize 1,1,1\ninput input\noutput n1\n"
    with pytest.raises(ConfigError, match="size mismatch: for an output of"):
        parse_net(SMALL + skip, Path("net.znn"))


CONFIG = """\
[parameters]
# general
fnet_spec = net.znn
fdata_spec: data.spec
num_threads = 0
dtype = float32
out_type = boundary
train_net = out/net
train_range = 2-3,7
test_range = 1
train_outsz = 1,20,30 ; voxels
is_train_optimize = yes
force_fft = no
rebalance_mode = global
eta = 0.02
Momentum = 0.9
Num_iter_per_save = 10
Max_iter = 200
logging = no
"""


def write_config(folder: Path, text: str = CONFIG) -> Path:
    (folder / "net.znn").write_text(SMALL)
    (folder / "data.spec").write_text("")
    file = folder / "config.cfg"
    file.write_text(text)
    return file


def test_a_configuration_is_read_with_defaults_and_earlier_names(tmp_path: Path) -> None:
    values = read_cfg(write_config(tmp_path))

    assert values.fnet_spec == str(tmp_path / "net.znn")
    assert values.train_range == (2, 3, 7)
    assert values.train_outsz == (1, 20, 30)
    assert values.train_net_prefix == str(tmp_path / "out/net")
    assert (values.train_conv_mode, values.forward_conv_mode) == ("optimize", "direct")
    assert (values.eta, values.momentum, values.anneal_factor) == (0.02, 0.9, 1)
    assert (values.num_iter_per_test, values.max_iter) == (500, 200)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dtype = float32", "dtype = half", "cfg:6: dtype is 'half'"),
        ("out_type = boundary", "out_type = cells", "cfg:7: out_type is 'cells'; allowed"),
        ("Momentum = 0.9", "Momentum = 2", "cfg:16: momentum is '2'; allowed: numbers from 0 to 1"),
        ("train_range = 2-3,7", "train_range = 2-x", "cfg:9: train_range is '2-x'"),
        ("1,20,30", "20,30", "cfg:11: train_outsz is '20,30'; allowed: three whole"),
        ("is_train_optimize = yes", "is_train_optimize = maybe", "allowed: yes, no"),
        ("eta = 0.02", "eta = fast", "cfg:15: eta is 'fast'; allowed: numbers from 0"),
        ("logging", "loging", "cfg:19: unknown parameter 'loging'"),
        ("Max_iter = 200", "Max_iter = 5", "cfg:18: max_iter is '5'; allowed: numbers above"),
        ("= net.znn", "= nett.znn", "cfg:3: fnet_spec names nett.znn, which does not exist"),
        ("rebalance_mode = global", "rebalance_mode = locla", "cfg:14: rebalance_mode is 'locla'"),
        ("[parameters]", "[params]", "has no section [parameters]; sections: params"),
    ],
)
def test_a_configuration_with_a_mistake_is_refused_by_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in CONFIG
    with pytest.raises(ConfigError) as error:
        read_cfg(write_config(tmp_path, CONFIG.replace(old, new, 1)))
    assert message in str(error.value)


def test_no_rebalancing_means_none(tmp_path: Path) -> None:
    text = CONFIG.replace("rebalance_mode = global", "rebalance_mode = none")

    assert read_cfg(write_config(tmp_path, text)).rebalance_mode == "none"


SPEC = """\
# comment
[image1]
fnames = raw.tif
pp_types = standard2D
is_auto_crop = yes

[label1]
fnames = labels.tif,

pp_types = auto
fmasks = mask.tif

[sample1]
input = 1
output = 1

[image2]
fnames = raw.tif
[sample2]
input = 2
"""


def write_spec(folder: Path, text: str = SPEC) -> Path:
    for name in ("raw.tif", "labels.tif", "mask.tif"):
        (folder / name).touch()
    file = folder / "data.spec"
    file.write_text(text)
    return file


def test_a_data_spec_binds_images_labels_and_masks(tmp_path: Path) -> None:
    samples = read_spec(write_spec(tmp_path))

    first = samples[1]
    assert first.images["input"].files[0].path == tmp_path / "raw.tif"
    assert first.images["input"].preprocess == ("standard2D",)
    assert (first.images["input"].auto_crop, first.labels["output"].auto_crop) == (True, False)
    assert first.labels["output"].masks[0].path == tmp_path / "mask.tif"
    assert samples[2].labels == {}
    assert samples[2].images["input"].preprocess == ("none",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "fnames = raw.tif",
            "fnames = row.tif",
            "spec:3: fnames names row.tif, which does not exist",
        ),
        ("standard2D", "standard2D, none", "one for each of the 1 files of fnames"),
        ("standard2D", "standardd2D", "did you mean 'standard2D'"),
        ("pp_types = st", "pp_type = st", "spec:4: unknown option 'pp_type'; did you mean 'pp_ty"),
        ("pp_types = st", "fmasks = mask.tif\npp_types = st", "masks belong to a [labelN]"),
        ("fmasks = mask.tif", "fmasks = mask.tif, raw.tif", "one mask for each of the 1 files"),
        ("fmasks = mask.tif", "fmasks = mask.tif\nfmask = raw.tif", "both fmask and fmasks"),
        ("is_auto_crop = yes", "is_auto_crop = maybe", "spec:5: is_auto_crop is 'maybe'"),
        ("output = 1", "output = 3", "spec:15: output is '3'; allowed: numbers of [labelN]: 1"),
        ("[image2]", "[images2]", "section [images2]; allowed: [imageN], [labelN], [sampleN]"),
        ("fnames = labels.tif,", "file = labels.tif,", "spec:8: unknown option 'file'"),
        ("input = 2", "output = 1", "[sample2] names no image"),
    ],
)
def test_a_data_spec_with_a_mistake_is_refused_by_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in SPEC
    with pytest.raises(ConfigError) as error:
        for sample in read_spec(write_spec(tmp_path, SPEC.replace(old, new, 1))).values():
            for section in sample.images.values():
                section.check()
    assert message in str(error.value)
