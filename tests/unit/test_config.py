"""Datasets, networks and the settings that follow from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from retrace.config import (
    compatibility,
    datasets,
    networks,
    schema,
    sources,
    splits,
    unet_shapes,
    yaml_files,
)
from retrace.config.workflow import Segment, WorkflowConfig
from retrace.errors import ConfigError
from retrace.job import Job
from retrace.planning import evaluate, fetch, mask, paths, predict, segment, train, view
from retrace.planning.experiment import Planner
from retrace.planning.program_files import SCRIPTS
from retrace.planning.validation_checks import check_learned
from run_config import run_config

CONFIG = run_config().plain()
PAPER = ("baseline", "lsd", "mtlsd", "long_range", "malis", "aclsd", "acrlsd")

MINE = """
name: mine
voxel_size_nm: [10, 10, 10]
background_ids: []
volumes:
  cube_a:
    raw:    {path: cubes.h5, array: a/raw}
    labels: {path: cubes.h5, array: a/labels}
  cube_b: {raw: {path: b.zarr, array: raw}}
train: [cube_a]
validation: [{volume: cube_a, roi_nm: {offset: [1000, 0, 0], shape: [250, 2500, 2500]}}]
test: [cube_b]
"""


def write_dataset(folder: Path, **changes: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(MINE) | changes))
    return path


def test_the_papers_datasets_have_their_volumes_voxels_and_background() -> None:
    counts = {d: len(datasets.load_dataset(d).volumes) for d in ("zfinch", "fib25", "hemi")}

    assert counts == {"zfinch": 33, "fib25": 4, "hemi": 8}
    assert datasets.load_dataset("hemi").background_ids == (2**64 - 3,)
    assert datasets.load_dataset("zfinch").voxel_size_nm == (20, 9, 9)


@pytest.mark.parametrize("dataset", ["zfinch", "fib25", "hemi"])
def test_by_default_the_first_volume_is_trained_on_without_what_is_scored(dataset: str) -> None:
    data = datasets.load_dataset(dataset)
    (entry,) = data.train

    assert entry.volume == next(iter(data.volumes))
    assert entry.probability == 1
    held_out = [e.roi_nm for split in ("validation", "test") for e in data.entries(split)]
    assert list(entry.exclude_nm) == held_out
    assert not splits.overlaps(*held_out)


def test_all_volumes_and_probabilities_by_name() -> None:
    entries = datasets.load_dataset("fib25", "all").train

    assert {e.volume: e.probability for e in entries} == {
        "trvol-250-1": 0.05,
        "trvol-250-2": 0.05,
        "tstvol-520-1": 0.45,
        "tstvol-520-2": 0.45,
    }
    assert len(datasets.load_dataset("zfinch", {"zfinch": "all"}).train) == 33


def test_all_leaves_out_volumes_that_are_scored_as_a_whole() -> None:
    assert paths.volumes_of(datasets.load_dataset("phantom", "all").train) == ["train_0"]


@pytest.mark.parametrize("dataset", ["zfinch", "fib25", "hemi"])
@pytest.mark.parametrize("network", PAPER)
def test_label_padding_is_the_published_one(dataset: str, network: str) -> None:
    direct = network in ("baseline", "malis")
    published = {
        True: ([500, 369, 369], [780, 603, 603], [840, 720, 720]),
        False: ([376, 536, 536], [472, 632, 632], [608, 768, 768]),
    }[dataset == "zfinch"]
    expected = published[0 if direct else 1 if network == "long_range" else 2]

    resolved = networks.network_for(network, datasets.load_dataset(dataset))

    assert list(resolved.label_padding_nm) == expected


@pytest.mark.parametrize(
    ("dataset", "network", "training", "inference"),
    [
        ("zfinch", "mtlsd", [48, 56, 56], [60, 272, 272]),
        ("fib25", "mtlsd", [92, 92, 92], [164, 164, 164]),
        ("fib25", "aclsd", [92, 92, 92], [260, 260, 260]),
        ("hemi", "lsd", [92, 92, 92], [248, 248, 248]),
        ("hemi", "acrlsd", [92, 92, 92], [200, 200, 200]),
    ],
)
def test_output_shapes_are_the_published_ones(
    dataset: str, network: str, training: list[int], inference: list[int]
) -> None:
    resolved = networks.network_for(network, datasets.load_dataset(dataset))

    pooling = resolved.downsample
    assert list(unet_shapes.output_shape(resolved.input_shape, pooling)) == training
    assert list(unet_shapes.output_shape(resolved.inference_shape, pooling)) == inference


def test_what_differs_between_the_papers_datasets() -> None:
    finch, fib, hemi = (
        networks.network_for("mtlsd", datasets.load_dataset(d)) for d in ("zfinch", "fib25", "hemi")
    )

    assert [n.fmap_factor for n in (finch, fib, hemi)] == [5, 6, 6]
    assert [n.lsd.sigma_nm for n in (finch, fib, hemi)] == [120, 80, 80]
    assert [n.lsd_weight for n in (finch, fib, hemi)] == [
        "labels_mask",
        "foreground_or_unmasked",
        "foreground",
    ]
    assert [n.balance_with_mask for n in (finch, fib, hemi)] == [True, False, True]
    assert [next(iter(step.explicit())) for step in finch.augment] == [
        "elastic",
        "simple",
        "intensity",
    ]
    assert [next(iter(step.explicit())) for step in fib.augment] == [
        "elastic",
        "simple",
        "elastic",
        "intensity",
    ]


def test_only_the_zebra_finchs_lsd_network_keeps_the_boundary_as_it_is() -> None:
    grown = {
        (d, n): networks.network_for(n, datasets.load_dataset(d)).plain()["grow_boundary"]
        for d in ("zfinch", "fib25")
        for n in ("lsd", "mtlsd")
    }

    assert grown["zfinch", "lsd"] is None
    assert grown["zfinch", "mtlsd"] == {"steps": 1, "only_xy": True}
    assert grown["fib25", "lsd"] == {"steps": 1, "only_xy": False}


def test_a_custom_dataset_takes_the_recipe_of_its_voxel_size(tmp_path: Path) -> None:
    cubic = datasets.load_dataset(write_dataset(tmp_path))
    slabs = datasets.load_dataset(write_dataset(tmp_path, voxel_size_nm=[50, 5, 5]))
    forced = datasets.load_dataset(write_dataset(tmp_path, isotropic=False))

    shapes = [
        list(networks.network_for("mtlsd_small", d).input_shape) for d in (cubic, slabs, forced)
    ]

    assert shapes == [[84, 84, 84], [36, 100, 100], [36, 100, 100]]


def test_custom_volumes_are_resolved_as_written(tmp_path: Path) -> None:
    data = datasets.load_dataset(write_dataset(tmp_path))

    assert data.volumes["cube_a"].labels.plain() == {
        "path": "cubes.h5",
        "array": "a/labels",
        "voxel_size_nm": [10, 10, 10],
    }
    assert data.train[0].exclude_nm == (data.validation[0].roi_nm,)
    assert splits.scorable(data, "test") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trian": ["cube_a"]}, "unknown key 'trian', did you mean 'train'"),
        ({"train": ["cube_c"]}, "unknown volume 'cube_c'; did you mean"),
        (
            {"sampling": {"probabilities": {"cube_c": 2}}},
            "sampling.probabilities names the unknown volume 'cube_c'; did you mean",
        ),
        ({"train": ["cube_b"]}, "needs labels, and volume 'cube_b' has none"),
        ({"validation": ["cube_a"]}, "in train and whole in validation"),
        ({"voxel_size_nm": [10, 10]}, "voxel_size_nm"),
        ({"voxel_size_nm": [7, 10, 10]}, "not a multiple of voxel_size_nm"),
        ({"name": "yours"}, "must be 'mine'"),
        ({"volumes": {"cube_a": {}}}, "needs `raw"),
    ],
)
def test_a_wrong_dataset_is_refused_with_its_reason(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        datasets.load_dataset(write_dataset(tmp_path, **changes))


def test_a_dataset_without_voxel_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE.replace("voxel_size_nm: [10, 10, 10]\n", ""))

    with pytest.raises(ConfigError, match="voxel_size_nm"):
        datasets.load_dataset(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"itterations": 5}, "did you mean 'iterations'"),
        ({"iterations": 0}, "iterations"),
        ({"device": "gpu"}, "device"),
        ({"segment": CONFIG["segment"] | {"metod": "mean"}}, "segment: unknown key 'metod'"),
    ],
)
def test_a_wrong_config_is_refused_with_its_reason(changes: dict[str, Any], message: str) -> None:
    schema.check(WorkflowConfig, CONFIG, "config")
    with pytest.raises(ConfigError, match=message):
        schema.check(WorkflowConfig, CONFIG | changes, "config")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"zfnch": "all"}, "did you mean 'zfinch'"),
        ({"fib25": ["trvol-250-3"]}, "did you mean 'trvol-250"),
        (["tstvol-520-3"], "did you mean 'tstvol-520"),
        ("al", "did you mean 'all'"),
    ],
)
def test_unknown_volumes_are_refused(chosen: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        datasets.check_chosen(chosen)


@pytest.mark.parametrize(
    ("verb", "network", "message"),
    [
        ("segment", "lsd", "predicts no affinities"),
        ("evaluate", "mtlsd_small", "no `test` entry with labels"),
    ],
)
def test_incompatible_pairs_are_refused(
    tmp_path: Path, verb: str, network: str, message: str
) -> None:
    data = datasets.load_dataset(write_dataset(tmp_path))

    with pytest.raises(ConfigError, match=message):
        compatibility.check_pair(data, networks.network_for(network, data), verb)


def test_learned_joining_needs_labels_apart_from_test_entries() -> None:
    multicut, data = Segment(method="multicut"), datasets.load_dataset("phantom")
    check_learned(multicut, data)
    without = data.model_copy(update={"validation": ()})
    check_learned(Segment(), without)
    with pytest.raises(ConfigError, match="dataset 'phantom' has none with labels that is apart"):
        check_learned(multicut, without)
    both = data.model_copy(update={"validation": (*data.validation, *data.test)})
    with pytest.raises(ConfigError, match=r"entry 'test_0' of dataset 'phantom' overlaps a test"):
        check_learned(multicut, both)


def test_labels_that_are_tested_under_another_name_are_not_learned_from() -> None:
    data = datasets.load_dataset("phantom")
    tested = [entry.model_copy(update={"volume": "other"}) for entry in data.validation]
    volumes = data.volumes | {"other": data.volumes[data.validation[0].volume]}
    twice = data.model_copy(update={"volumes": volumes, "test": tuple(tested)})
    with pytest.raises(ConfigError, match="none with labels that is apart from its test"):
        check_learned(Segment(method="multicut"), twice)


def test_learned_joining_of_boundary_maps_is_checked_where_they_are_segmented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = Planner(tmp_path, run_config(segment={"method": "multicut"}), uses_containers=True)
    data = datasets.load_dataset("phantom")
    data = data.model_copy(update={"validation": data.test})
    monkeypatch.setattr(Planner, "dataset", lambda *_, **__: data)
    with pytest.raises(ConfigError, match="dataset 'phantom' has none with labels that is apart"):
        planner.experiment("segment", "phantom", "n4")


def test_mutex_needs_far_neighbours() -> None:
    mutex = Segment(method="mutex")
    finch = datasets.load_dataset("zfinch")

    compatibility.check_segmentation(mutex, 1, networks.network_for("long_range", finch))
    with pytest.raises(ConfigError, match="long-range"):
        compatibility.check_segmentation(mutex, 1, networks.network_for("mtlsd", finch))


def all_jobs(content: dict[str, Any]) -> dict[str, str]:
    config = WorkflowConfig.model_validate(content)
    planner = Planner(SCRIPTS.parents[1], config)
    pair = ("phantom", "mtlsd_small")
    jobs = {
        "fetch": fetch.fetch_job(planner, "phantom", "train_0"),
        "mask": mask.mask_job(planner, "phantom", "train_0"),
        "train": Job(
            train.train_settings(config, planner.dataset(pair[0]), planner.network(*pair))
        ),
        "predict": predict.predict_job(planner, *pair, "test_0"),
        "segment": segment.fragments_job(planner, *pair, "test_0"),
        "choose": evaluate.choose_job(planner, *pair),
        "score": evaluate.score_job(planner, *pair),
        "view": view.view_job(planner, *pair),
    }
    return {verb: job.as_json() for verb, job in jobs.items()}


@pytest.mark.parametrize(
    ("change", "readers"),
    [
        ({"iterations": 7}, {"train"}),
        ({"seed": 7}, {"train"}),
        ({"endpoint_url": "http://127.0.0.1:1"}, {"fetch"}),
        ({"tile": [36, 100, 100]}, {"predict"}),
        ({"device": "cuda"}, {"train", "predict"}),
        ({"gpus": 2}, {"train", "predict"}),
        ({"gpus": {"predict": 2}}, {"predict"}),
        ({"batch_size": 2}, {"train"}),
        ({"segment": {"thresholds": [0, 1, 0.1]}}, {"choose", "score"}),
        ({"segment": {"epsilon": 0.1}}, {"segment"}),
        ({"evaluate": {"untrained": False}}, {"score"}),
        ({"evaluate": {"compute_mincut": True}}, {"score"}),
        ({"reproduce": {"networks": ["mtlsd"]}}, set()),
        ({"view": {"port": 8080}}, {"view"}),
    ],
)
def test_a_changed_setting_changes_only_the_jobs_that_use_it(
    change: dict[str, Any],
    readers: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # results of the repository would refuse a shorter training
    before, after = all_jobs(CONFIG), all_jobs(yaml_files.merge(CONFIG, change))

    assert {verb for verb in before if before[verb] != after[verb]} == readers


def test_only_what_validation_and_test_need_is_predicted() -> None:
    data = datasets.load_dataset("zfinch")
    network = networks.network_for("mtlsd", data)

    roi = predict.predict_settings(run_config(), data, network, data.test[0].volume).volume.roi_nm

    assert roi.plain() == {"offset": [3600, 1800, 1800], "shape": [960, 2304, 2304]}


def test_the_training_time_is_passed_on_only_if_it_is_set() -> None:
    data = datasets.load_dataset("phantom")
    network = networks.network_for("mtlsd", data)
    assert "seconds" not in train.train_settings(run_config(), data, network).plain()
    limited = run_config(train_seconds=600)
    assert train.train_settings(limited, data, network).seconds == 600


def test_shards_need_blocks_and_a_blockwise_method() -> None:
    data = datasets.load_dataset("phantom")
    with pytest.raises(ConfigError, match="set `segment: block_shape`"):
        compatibility.check_segmentation(Segment(), 4, networks.network_for("mtlsd", data))
    mutex = Segment(method="mutex", block_shape=(9, 9, 9))
    with pytest.raises(ConfigError, match="sees a whole volume at once"):
        compatibility.check_segmentation(mutex, 4, networks.network_for("long_range", data))


def test_addresses_are_completed_by_the_configuration(tmp_path: Path) -> None:
    bucket = {"read": "blocks", "prefix": "em", "raw": "raw", "labels": "ids"}
    volumes = {"cube_a": {}, "cube_b": {"raw": {"path": "gs://there/em", "mip": 1}}}
    path = write_dataset(tmp_path, bucket=bucket, volumes=volumes)
    data = datasets.load_dataset(path)
    resolved = sources.located(data, WorkflowConfig(endpoint_url="http://near"))
    volume = resolved.volumes["cube_a"]

    assert volume.labels is not None and volume.labels.path == "s3://open-neurodata/em/cube_a.zarr"
    assert (volume.raw.endpoint_url, volume.raw.unsigned) == ("http://near", True)
    assert resolved.volumes["cube_b"].raw.endpoint_url is None
    brought = sources.located(data, WorkflowConfig(mirror="/disk")).volumes["cube_a"]
    assert brought.raw.plain() == {
        "path": "/disk/em/cube_a.zarr",
        "array": "raw",
        "voxel_size_nm": [10, 10, 10],
        "missing_chunks": "fill",  # a stream has no listing of what there is
    }


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": "s3://bucket"}, "s3://bucket names no key in a bucket"),
        ({"path": "zarr://data/a.zarr"}, "begins with none of s3://, gs://"),
        ({"path": "gs://bucket/em", "array": "raw"}, "precomputed layer, which has no array 'raw'"),
    ],
)
def test_addresses_that_cannot_be_read_are_refused(
    tmp_path: Path, source: dict[str, str], message: str
) -> None:
    path = write_dataset(tmp_path, volumes={"cube_b": {"raw": source}}, train=[], validation=[])
    with pytest.raises(ConfigError, match=message):
        sources.located(datasets.load_dataset(path), WorkflowConfig())


@pytest.mark.parametrize("extends", ["5", "[mtlsd, 5]", "", "{a: b}"])
def test_extends_holds_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extends: str) -> None:
    (tmp_path / "config/networks").mkdir(parents=True)
    (tmp_path / "config/networks/own.yaml").write_text(f"name: own\nextends: {extends}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="extends: .* is not allowed; give the name of a network"):
        networks.load_network("own")


def test_settings_of_a_network_for_an_unknown_dataset_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config/networks").mkdir(parents=True)
    content = "name: own\nextends: mtlsd\ndatasets: {zfinhc: {batch_size: 2}}\n"
    (tmp_path / "config/networks/own.yaml").write_text(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="`datasets`: no dataset 'zfinhc'; did you mean 'zfinch'"):
        networks.load_network("own")
