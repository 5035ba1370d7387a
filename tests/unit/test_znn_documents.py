"""The files of ZNN's two documents, as they are written there, and what each option means."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import tiny_znn as tiny
from retrace.config.znn_samples import with_samples
from retrace.errors import ConfigError
from retrace.formats.source import Source
from retrace.storage.normalised import open_normalised
from retrace.znn.cfg import read_cfg, unused_parameters
from retrace.znn.net import read_net
from retrace.znn.spec import read_spec
from znn_tutorial import TUTORIAL, lay_out

pytestmark = pytest.mark.usefixtures("shared_dir")


def samples(cfg: Path, **options: bool) -> dict[str, Any]:
    """The dataset that a .cfg describes."""
    return with_samples({"name": "mine", "cfg": str(cfg)}, "mine.yaml", **options)


def test_the_tutorials_literal_files_are_read_where_znn_has_them(tmp_path: Path) -> None:
    cfg = lay_out(tmp_path, train_range="1", test_range="")
    config = read_cfg(cfg)
    root = tmp_path / "python"

    assert read_net(Path(str(config.fnet_spec))).parameters == 219290
    assert config.fnet_spec == f"{root}/../networks/N4.znn"
    assert config.train_net_prefix == f"{root}/../experiments/piriform/N4/net"
    assert config.forward_net == f"{root}/../experiments/piriform/N4/net_current.h5"
    assert config.output_prefix == f"{root}/../experiments/piriform/N4/out"
    assert (config.eta, config.anneal_factor, config.num_iter_per_annealing) == (0.01, 0.997, 100)
    assert (config.max_iter, config.num_iter_per_save, config.test_num) == (200000, 1000, 10)
    volumes = samples(cfg)["volumes"]
    assert volumes["sample1"]["raw"] == {
        "path": f"{root}/../dataset/ISBI2012/train-volume.tif",
        "preprocess": "standard2D",
    }
    assert "labels" not in volumes["sample2"]
    assert unused_parameters(cfg) == []


def test_the_tutorials_own_ranges_are_refused_with_what_it_meant(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train_range .* names sample 2.*has no label") as error:
        samples(lay_out(tmp_path))

    assert "`train_range = 1` and `forward_range = 2`" in str(error.value)
    assert samples(lay_out(tmp_path), trained=False)["test"] == ["sample1"]


def test_paths_are_relative_to_the_cfg_and_a_second_file_is_no_surprise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = lay_out(tmp_path, train_range="1", test_range="")
    (tmp_path / "here/run").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here/run")
    other = tmp_path / "here/networks/N4.znn"
    other.parent.mkdir()
    other.write_text((tmp_path / "networks/N4.znn").read_text())

    assert read_cfg(cfg).fnet_spec == f"{tmp_path}/python/../networks/N4.znn"
    other.write_text("nodes other")
    with pytest.raises(ConfigError) as error:
        read_cfg(cfg)
    assert f"{other}, and they differ" in str(error.value)
    relative = Path(os.path.relpath(cfg))
    other.unlink()
    assert samples(relative)["volumes"]["sample1"]["raw"]["path"].startswith("../../python/../data")


@pytest.mark.parametrize(
    ("name", "value", "prefix"),
    [
        ("train_net_prefix", "../exp1/", "../exp1/net"),
        ("train_net_prefix", "../networks", "../networks/net"),
        ("train_net_prefix", "../exp1/a.h5", "../exp1/a"),
        ("output_prefix", "../networks", "../networks/"),
        ("output_prefix", "../exp1/out", "../exp1/out"),
    ],
)
def test_a_prefix_may_be_a_folder(tmp_path: Path, name: str, value: str, prefix: str) -> None:
    config = read_cfg(lay_out(tmp_path, **{name: value}))

    assert getattr(config, name) == f"{tmp_path}/python/{prefix}"


def written(folder: Path, spec: str, **changes: str) -> dict[str, Any]:
    """The volumes of the tutorial's .cfg with another .spec."""
    cfg = lay_out(folder, train_range="1", test_range="", forward_range="1", **changes)
    (folder / "dataset/ISBI2012/dataset.spec").write_text(spec)
    volumes: dict[str, Any] = samples(cfg)["volumes"]
    return volumes


SPEC = """\
[image1]
fnames = ../dataset/ISBI2012/train-volume.tif
pp_types = standard2D # preprocess the image by subtracting mean
is_auto_crop = no # crop images to mutually fit and fit ground truth labels
[label1]
fnames = ../dataset/ISBI2012/train-labels.tif
pp_types = binary_class
is_auto_crop = yes
[sample1]
input: 1
output: 1
"""


def test_the_documents_options_of_a_spec_mean_what_they_say(tmp_path: Path) -> None:
    masks = SPEC.replace(
        "binary_class", "binary_class\nfmask = ../dataset/ISBI2012/train-labels.tif"
    )
    volume = written(tmp_path, masks)["sample1"]
    assert volume["raw"]["preprocess"] == "standard2D"
    assert volume["labels_mask"]["path"].endswith("train-labels.tif")
    assert volume["auto_crop"] is True
    for spelling in ("symmetric_rescale", "symetric_rescale"):
        volume = written(tmp_path, SPEC.replace("standard2D", spelling))["sample1"]
        assert volume["raw"]["preprocess"] == "symetric_rescale"


def test_gray_images_of_any_bit_depth_are_read(tmp_path: Path) -> None:
    path = tmp_path / "dataset/ISBI2012/train-volume.tif"
    path.parent.mkdir(parents=True)
    assert "normalize" not in written(tmp_path, SPEC)["sample1"]["raw"]
    deep = path.with_name("deep.tif")
    tifffile.imwrite(deep, tifffile.imread(path).astype("uint16") * 200)
    spec = SPEC.replace("train-volume", "deep")
    raw = written(tmp_path, spec)["sample1"]["raw"]
    assert raw["normalize"] == {"percentiles": [0, 100]}
    values = open_normalised(Source.model_validate({**raw, "voxel_size_nm": [1, 1, 1]}))
    small = open_normalised(
        Source(path=str(path), array="", voxel_size_nm=(1, 1, 1), preprocess="standard2D")
    )
    box = values.volume.box
    np.testing.assert_allclose(values.read(box, box), small.read(box, box), atol=0.02)


def test_several_files_in_a_section_are_one_volume_each(tmp_path: Path) -> None:
    several = SPEC.replace(
        "train-volume.tif", "train-volume.tif,\n          ../dataset/ISBI2012/more.tif"
    ).replace("standard2D #", "standard2D, none #")
    labels = several.replace(
        "train-labels.tif", "train-labels.tif\n   ../dataset/ISBI2012/more-labels.tif"
    )
    (tmp_path / "dataset/ISBI2012").mkdir(parents=True)
    for name, data in zip(("more", "more-labels"), tiny.cells(1), strict=True):
        tifffile.imwrite(tmp_path / f"dataset/ISBI2012/{name}.tif", data)
    volumes = written(tmp_path, labels)

    assert list(volumes) == ["sample1_1", "sample1_2"]
    assert [v["raw"]["preprocess"] for v in volumes.values()] == ["standard2D", "none"]
    assert volumes["sample1_2"]["labels"]["path"].endswith("more-labels.tif")
    with pytest.raises(ConfigError, match=r"different numbers of files \(\[image1\] 2, \[label1\]"):
        written(tmp_path, several)


@pytest.mark.parametrize(
    ("pp_types", "changes", "message"),
    [
        ("one_class", {}, r"one_class, which makes 1 maps .* 'output' has 2"),
        ("affinity", {}, "affinity, which makes 3 maps for out_type affinity"),
        ("binary_class", {"out_type": "affinity"}, "out_type is affinity. Write auto"),
        ("binary_class", {}, None),
        ("auto", {}, None),
        ("none", {}, None),
    ],
)
def test_pp_types_of_labels_agree_with_the_network_or_are_refused(
    tmp_path: Path, pp_types: str, changes: dict[str, str], message: str | None
) -> None:
    spec = SPEC.replace("binary_class", pp_types)
    if message is None:
        assert written(tmp_path, spec, **changes)
        return
    with pytest.raises(ConfigError, match=message):
        written(tmp_path, spec, **changes)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("input: 1", "inputt: 1", "names inputt, and not 'input', which is an input node"),
        ("output: 1", "output-2: 1", "and not 'output', which is an output node"),
        ("input: 1", "input: 1\ninput-r: 1", "names 'input-r', which is no input node"),
    ],
)
def test_nodes_that_a_sample_and_the_network_name_differently_are_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    cfg = lay_out(tmp_path, train_range="1", test_range="")
    (tmp_path / "dataset/ISBI2012/dataset.spec").write_text(SPEC.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        samples(cfg, exact=True)


def test_files_of_samples_that_are_not_used_may_be_missing(tmp_path: Path) -> None:
    cfg = lay_out(tmp_path, train_range="1", test_range="", forward_range="1")
    (tmp_path / "dataset/ISBI2012/test-volume.tif").unlink()
    assert samples(cfg)["train"] == ["sample1"]
    (tmp_path / "dataset/ISBI2012/train-labels.tif").unlink()
    assert samples(cfg, trained=False)["test"] == ["sample1"]
    with pytest.raises(ConfigError, match=r"train-labels\.tif, which does not exist"):
        samples(cfg)


def test_parameters_without_effect_are_named(tmp_path: Path) -> None:
    values = {"num_threads": "4", "is_debug": "yes", "is_check": "yes", "malis_norm_type": "frac"}
    lines = unused_parameters(lay_out(tmp_path, **values, logging="yes"))

    assert [line.split(": ")[1].split(" = ")[0] for line in lines] == [*values]
    assert "has no effect: threads are those of `snakemake --cores`" in lines[0]
    with_malis = lay_out(tmp_path, malis_norm_type="frac", is_malis="yes")
    assert unused_parameters(with_malis) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("train_range = 2", "train_range = 3-2", "train_range is '3-2'; allowed: numbers and ris"),
        ("train_range = 2", "train_range = 1 2", "train_range is '1 2'; allowed: numbers and risi"),
        ("eta = 0.01", "eta = inf", "eta is 'inf'; allowed: numbers from 0"),
        ("momentum = 0.9", "momentun = 0.9", "unknown parameter 'momentun', did you|'momentum'"),
        (
            "[parameters]",
            "[Parameters]",
            r"no section \[parameters\]; sections: Parameters. Write",
        ),
        ("# train\n", "[train]\n", r"has a section \[train\], which nothing reads"),
    ],
)
def test_mistakes_in_the_tutorials_cfg_are_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    cfg = lay_out(tmp_path)
    text = cfg.read_text()
    assert old in text
    cfg.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        read_cfg(cfg)


def test_a_current_name_counts_more_than_an_earlier_one(tmp_path: Path) -> None:
    cfg = lay_out(tmp_path)
    earlier = "[parameters]\ntrain_load_net = old.h5\ntrain_seed_net =\ntrain_net = old\n"
    text = cfg.read_text().split("[parameters]")[1].replace("\n    ", "\n")
    cfg.write_text(earlier + text)
    assert str(read_cfg(cfg).forward_net).endswith("N4/net_current.h5")
    assert str(read_cfg(cfg).train_net_prefix).endswith("N4/net")
    lines = unused_parameters(cfg)
    assert lines == [
        f"{cfg}:4: train_net = old has no effect: train_net_prefix decides",
        f"{cfg}:2: train_load_net = old.h5 has no effect: forward_net decides",
    ]
    cfg.write_text(earlier + text.replace("forward_net =", "train_load_net ="))
    assert str(read_cfg(cfg).forward_net).endswith("N4/net_current.h5")


def test_files_of_windows_are_read(tmp_path: Path) -> None:
    cfg = lay_out(tmp_path, train_range="1 - 2, 4")
    cfg.write_bytes(b"\xef\xbb\xbf" + cfg.read_bytes().replace(b"\n", b"\r\n"))
    assert read_cfg(cfg).train_range == (1, 2, 4)


def test_a_spec_is_relative_to_its_cfg_or_to_itself(tmp_path: Path) -> None:
    lay_out(tmp_path)
    spec = tmp_path / "dataset/ISBI2012/dataset.spec"
    by_cfg = read_spec(spec, tmp_path / "python")[1].images["input"].files[0]
    assert by_cfg.check() == tmp_path / "python/../dataset/ISBI2012/train-volume.tif"
    spec.write_text("[image1]\nfnames = test-volume.tif\n[sample1]\ninput = 1\n")
    by_itself = read_spec(spec, tmp_path / "python")[1].images["input"].files[0]
    assert by_itself.check() == spec.with_name("test-volume.tif")


OTHER_VALUES = {
    "fnet_spec": "other.znn",
    "fdata_spec": "../dataset/other.spec",
    "num_threads": "4",
    "dtype": "float64",
    "out_type": "affinity",
    "logging": "yes",
    "train_outsz": "1,20,20",
    "cost_fn": "square_loss",
    "eta": "0.02",
    "anneal_factor": "0.5",
    "momentum": "0.5",
    "weight_decay": "0.1",
    "num_iter_per_annealing": "7",
    "train_net": "../exp1/",
    "train_range": "1-3,6",
    "train_conv_mode": "optimize",
    "is_data_aug": "no",
    "is_bd_mirror": "no",
    "rebalance_mode": "patch",
    "is_malis": "yes",
    "malis_norm_type": "num",
    "num_iter_per_show": "7",
    "num_iter_per_test": "7",
    "test_num": "7",
    "num_iter_per_save": "7",
    "max_iter": "7000",
    "forward_range": "1-3,6",
    "forward_net": "other.h5",
    "forward_conv_mode": "direct",
    "forward_outsz": "1,20,20",
    "output_prefix": "../elsewhere/",
    "is_stdio": "no",
    "is_debug": "yes",
    "is_check": "yes",
}
"""By property of the documents' table a value that the tutorial's file does not have."""
NAMED = ("num_threads", "malis_norm_type", "is_debug", "is_check")
"""Properties that change nothing, and are named in a line where they are set."""


def test_every_property_of_the_documents_table_counts_or_is_named(tmp_path: Path) -> None:
    table = TUTORIAL.read_text().split("6. Configuration File Format")[1]
    properties = {name.lower() for name in re.findall(r"^ ([A-Za-z]\w+) {2,}", table, re.M)}
    assert properties - {"property"} == OTHER_VALUES.keys()
    cfg = lay_out(tmp_path)
    text, before = cfg.read_text(), read_cfg(cfg)
    (cfg.parent / "other.znn").write_text((tmp_path / "networks/N4.znn").read_text())
    (tmp_path / "dataset/other.spec").write_text(SPEC)
    for name, value in OTHER_VALUES.items():
        written = "train_net_prefix" if name == "train_net" else name
        line = re.compile(rf"^    {written} = .*$", re.M | re.I)
        assert line.search(text), name
        cfg.write_text(line.sub(f"    {name} = {value}", text))
        if name in NAMED:
            assert f" {name} = {value} has no effect" in unused_parameters(cfg)[0]
        else:
            assert getattr(read_cfg(cfg), written) != getattr(before, written), name
