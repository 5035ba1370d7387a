"""Bundles of experiments whose settings are in ZNN's own files: they work elsewhere, too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import tiny_znn as tiny
from retrace.config import yaml_files
from retrace.config.pack_model import PackSettings
from retrace.config.schema import check
from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import WORKFLOW_CONFIG
from retrace.errors import DataError
from retrace.planning.experiment import Planner
from retrace.planning.pack import bundle_job
from retrace.provenance.bundle_writer import write_bundle
from run_config import run_config
from znn_case import SMALL

SPEC = """\
# {here}/notes.txt
[image1]
fnames = {here}/data/raw.tif, ../data/raw.h5  ; both
pp_types = standard2D, none
[label1]
fnames = {here}/data/labels.h5
  ../data/labels.h5
is_auto_crop = yes
fmasks = ../data/mask.tif, ../data/mask.tif
[image2]
fnames = ../data/other.tif
[label2]
fnames = ../data/otherlabels.tif
[image7]
fnames = {here}/data/of_nobody.tif
[sample1]
input = 1
output = 1
[sample4]
input = 2
output = 2
"""
CFG = """\
[parameters]
# {here}
fnet_spec = {here}/znn/net.znn
fdata_spec = data.spec
train_net = {here}/out/earlier
train_net_prefix = {here}/out/net
output_prefix = ../out/
num_threads = 7
force_fft = yes
out_type = boundary
train_range = 1
test_range = 4
forward_range = 4
train_outsz = 1,10,10
is_bd_mirror = yes
Max_iter = 5000
"""
NAMES = ("name: mine", "voxel_size_nm: [40, 10, 10]")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that uses ZNN's files of another folder."""
    here = tmp_path / "elsewhere"
    for name in ("data", "znn", "out"):
        (here / name).mkdir(parents=True)
    tiny.write_stack(here / "data")
    raw, labels = tiny.cells(1)
    masks = np.ones(tiny.SHAPE, np.uint8)
    for name, data in (("mask", masks), ("other", raw), ("otherlabels", labels)):
        tifffile.imwrite(here / f"data/{name}.tif", data)
    for name, text in (("data.spec", SPEC), ("config.cfg", CFG), ("net.znn", SMALL)):
        (here / "znn" / name).write_text(text.replace("{here}", str(here)))
    place = tmp_path / "place"
    for kind in ("datasets", "networks"):
        (place / "config" / kind).mkdir(parents=True)
    (place / "config/networks/own.yaml").write_text(
        f"name: own\nfamily: znn\ncfg: {here}/znn/config.cfg\nsnapshot_every: 7\n"
    )
    (place / "config/networks/derived.yaml").write_text("{name: derived, extends: own}\n")
    (place / "config/networks/other.yaml").write_text(
        f"name: other\nextends: n4\nnet: {here}/znn/net.znn\n"
    )
    (place / "config/datasets/mine.yaml").write_text(
        "\n".join([*NAMES, f"cfg: {here}/znn/config.cfg"])
    )
    (place / "config/datasets/others.yaml").write_text(
        f"name: others\nvolumes: {{a: {{raw: {{path: {here}/data/raw.tif}}}}}}\n"
    )
    monkeypatch.chdir(place)
    return place


def bundled(target: Path, **config: Any) -> Path:
    """The bundle of mine_derived, moved to `target`."""
    planner = Planner(WORKFLOW_CONFIG.parent, run_config(**config), uses_containers=True)
    job = bundle_job(planner, "mine", "derived")
    settings = check(PackSettings, json.loads(job.as_json())["settings"], "job")
    files = [Path(file) for file in job.inputs["files"]]
    Path("wheels").mkdir(exist_ok=True)
    write_bundle(Path("bundle"), settings, files=files, images=[], wheels=Path("wheels"))
    return Path(shutil.move("bundle", target))


def without_folders(settings: Any) -> Any:
    """Settings in which each path is only a name."""
    if not isinstance(settings, dict):
        return settings
    return {
        key: Path(value).name if key == "path" else without_folders(value)
        for key, value in settings.items()
    }


def plans(root: Path) -> tuple[Any, Any]:
    """Dataset and network of mine_derived in the working directory, as plain values."""
    config = (
        run_config()
        if not Path("run.yaml").exists()
        else check(WorkflowConfig, yaml_files.read_yaml(Path("run.yaml")), "run.yaml")
    )
    experiment = Planner(root, config, uses_containers=True).experiment("train", "mine", "derived")
    return experiment.dataset, experiment.network


def test_a_bundle_works_elsewhere_and_names_nothing_of_this_machine(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, network = plans(WORKFLOW_CONFIG.parent)
    options = {"output_prefix": f"{tmp_path}/out/p", "blocks": {"cache": f"{tmp_path}/cache"}}
    bundle = bundled(tmp_path / "machine" / "bundle", **options)
    found = [
        p for p in bundle.rglob("*") if p.is_file() and str(tmp_path).encode() in p.read_bytes()
    ]
    assert found == []
    assert not list((bundle / "config").rglob("oth*.yaml"))

    shutil.rmtree(place.parent / "elsewhere")
    shutil.rmtree(place)
    monkeypatch.chdir(bundle)
    there, other = plans(bundle)
    assert other.with_(net_files=None) == network.with_(net_files=None)
    assert not Path(other.net_files.prefix).resolve().is_relative_to(bundle / "files")
    assert Path(other.net_files.prefix).resolve().is_relative_to(bundle)
    assert list(there.volumes) == list(data.volumes) == ["sample1_1", "sample1_2", "sample4"]
    for name, volume in there.volumes.items():
        parts = ("raw", "labels", "labels_mask") if "_" in name else ("raw", "labels")
        for part in parts:
            source, before = getattr(volume, part), getattr(data.volumes[name], part)
            assert Path(source.path).is_file() and Path(source.path).name == Path(before.path).name
            assert without_folders(source.plain()) == without_folders(before.plain())


def test_data_that_a_network_names_stay_out_of_the_bundle_of_another_dataset(place: Path) -> None:
    volumes = []
    for number, name in enumerate("abc"):
        for part, data in zip(("raw", "labels"), tiny.cells(7 + number), strict=True):
            tifffile.imwrite(f"{part}_{name}.tif", data)
        paths = (f"{part}: {{path: {place}/{part}_{name}.tif}}" for part in ("raw", "labels"))
        volumes.append(f"{name}: {{{', '.join(paths)}}}")
    splits = ("train: [a]", "validation: [b]", "test: [c]")
    text = "\n".join([*NAMES, f"volumes: {{{', '.join(volumes)}}}", *splits])
    (place / "config/datasets/mine.yaml").write_text(text)
    planner = Planner(WORKFLOW_CONFIG.parent, run_config(), uses_containers=True)
    job = bundle_job(planner, "mine", "derived")
    settings = check(PackSettings, json.loads(job.as_json())["settings"], "job")
    files = [Path(file) for file in job.inputs["files"]]
    named = {file.name for file in files if file.suffix != ".tif"}
    assert named == {"config.cfg", "net.znn"} and len(files) == 8
    write_bundle(Path("bundle"), settings, files=files, images=[], wheels=Path())
    (cfg,) = Path("bundle/files").rglob("config.cfg")
    assert "fdata_spec" not in cfg.read_text() and "fnet_spec" in cfg.read_text()


def test_a_file_that_is_not_packed_is_named(place: Path, tmp_path: Path) -> None:
    planner = Planner(WORKFLOW_CONFIG.parent, run_config(), uses_containers=True)
    job = bundle_job(planner, "mine", "derived")
    settings = check(PackSettings, json.loads(job.as_json())["settings"], "job")
    files = [Path(file) for file in job.inputs["files"] if not file.endswith("raw.h5")]
    with pytest.raises(DataError, match=r"data\.spec names .*raw\.h5, which is not packed"):
        write_bundle(Path("bundle"), settings, files=files, images=[], wheels=Path())
    assert not Path("bundle").exists()
