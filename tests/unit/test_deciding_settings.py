"""For each setting of the configuration, which jobs it decides: exactly these run again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from retrace.config.lsd_network import DERIVED, LsdSettings
from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import merge
from retrace.files import digest
from retrace.job import Job
from retrace.planning.align import fit_job
from retrace.planning.compare import compare_job
from retrace.planning.evaluate import choose_job, learn_job, nodes_job, score_job
from retrace.planning.experiment import Planner
from retrace.planning.export import EXPORT_JOBS, package_job
from retrace.planning.fetch import fetch_job
from retrace.planning.mask import mask_job
from retrace.planning.predict import predict_job
from retrace.planning.reproduce import reproduce_job
from retrace.planning.segment import fragments_job, segment_job
from retrace.planning.train import train_job
from retrace.planning.view import view_job
from retrace.settings_model import NO_EFFECT, NOT_TRAINED, SettingsModel, deciding
from run_config import run_config

JOBS: dict[str, Callable[[Planner, str], Job]] = {
    "fetch": lambda p, n: fetch_job(p, "phantom", "train_0"),
    "mask": lambda p, n: mask_job(p, "phantom", "train_0"),
    "train": lambda p, n: train_job(p, "phantom", n),
    "predict": lambda p, n: predict_job(p, "phantom", n, "test_0"),
    "fragments": lambda p, n: fragments_job(p, "phantom", n, "test_0"),
    "segment": lambda p, n: segment_job(p, "phantom", n, "test_0"),
    "learn": lambda p, n: learn_job(p, "phantom", n),
    "choose": lambda p, n: choose_job(p, "phantom", n),
    "score": lambda p, n: score_job(p, "phantom", n),
    "nodes": lambda p, n: nodes_job(p, "zfinch_paper", "mtlsd", "roi_11_micron"),
    "export": lambda p, n: EXPORT_JOBS["precomputed"](p, "phantom", n, "test_0", "segments"),
    "package": lambda p, n: package_job(p, "phantom", n),
    "view": lambda p, n: view_job(p, "phantom", n),
    "compare": lambda p, n: compare_job(p, "phantom"),
    "reproduce": lambda p, n: reproduce_job(p, "zfinch_paper"),
}
ROOT = Path(__file__).resolve().parents[2]
NOTHING: tuple[str, ...] = ()
DECIDES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "experiments": (["phantom_mtlsd_small"], NOTHING),
    "bucket": ("mine", ("fetch",)),
    "endpoint_url": ("http://near", NOTHING),
    "unsigned": (False, NOTHING),
    "fetch_threads": (3, NOTHING),
    "mirror": ("copy", NOTHING),
    "volumes": ({"fib25": "all"}, NOTHING),
    "iterations": (77, ("train",)),
    "train_seconds": (5, ("train",)),
    "epochs": (3, NOTHING),
    "run": ("first", NOTHING),
    "weights": ("published", NOTHING),
    "cfg": ("python/config.cfg", NOTHING),
    "voxel_size_nm": ([50, 4, 4], NOTHING),
    "init": ("a.safetensors", NOTHING),
    "engine": ("legacy", ("train", "compare")),
    "legacy_image": ("standin", NOTHING),
    "seed": (9, ("train",)),
    "device": ("cpu", NOTHING),
    "precision": ("fp32", ("train", "predict")),
    "compile": (True, NOTHING),
    "cpu_library": ("torch", NOTHING),
    "gpus": ({"train": 1, "predict": 2}, NOTHING),
    "batch_size": (2, ("train",)),
    "tile": ([12, 48, 48], ("predict",)),
    "zarr_format": (3, ("predict", "fragments")),
    "prediction_dtype": ("float32", ("predict",)),
    "blocks.cache": ("elsewhere", NOTHING),
    "blocks.cache_gib": (1, NOTHING),
    "output_prefix": ("out/net", NOTHING),
    "shards": (4, NOTHING),
    "segment.method": ("hist_quant_50", ("fragments",)),
    "segment.fragments_in_xy": (False, ("fragments",)),
    "segment.epsilon": (0.1, ("fragments",)),
    "segment.filter_fragments": (0.1, ("fragments",)),
    "segment.thresholds": ([0, 1, 0.1], ("choose", "score", "nodes")),
    "segment.block_shape": ([16, 64, 64], ("fragments",)),
    "segment.block_context": ([16, 16, 16], ("fragments",)),
    "evaluate.untrained": (False, ("score",)),
    "evaluate.merge_threshold": (2, ("score",)),
    "evaluate.errors": (3, ("score",)),
    "evaluate.compute_mincut": (True, ("score",)),
    "evaluate.threshold_rule": ("smoothed", ("choose",)),
    "evaluate.boundary_thresholds": ([0.1, 1, 0.1], NOTHING),
    "validation.every": (50, NOTHING),
    "validation.keep": ("best", ("train",)),
    "validation.patience": (3, ("train",)),
    "compare.networks": (["mtlsd_small"], ("compare",)),
    "reproduce.regions": (["benchmark"], ("nodes", "reproduce")),
    "reproduce.networks": (["mtlsd"], ("reproduce",)),
    "export.layers": (["raw"], ("export",)),
    "export.formats": (["ome_zarr", "precomputed"], NOTHING),
    "export.gzip": (True, ("export",)),
    "export.segments": ([7], ("export",)),
    "export.files": (["obj"], ("export",)),
    "export.min_voxels": (1, ("export",)),
    "export.mip": (1, ("export",)),
    "export.triangles": (1, ("export",)),
    "export.skeleton_scale": (2, ("export",)),
    "export.skeleton_constant_nm": (100, ("export",)),
    "package.authors": (["me"], ("package",)),
    "package.license": ("MIT", ("package",)),
    "view.bind_address": ("0.0.0.0", NOTHING),
    "view.port": (4, NOTHING),
    "view.lsd_channels": ([6], ("view",)),
    "batch": (7, NOTHING),
    "serve": (True, NOTHING),
}
"""By setting another value, and the jobs whose own settings it decides.

Jobs that read the results of these run again too. Some settings choose which jobs there are, or
which files they read, and no setting of a job: `weights`, `init`, `engine`, `shards`, `export`.
"""
SHAPES = {"layers": ["segments", "meshes", "skeletons"], "segments": [5]}
BASE = {"segment": {"block_shape": [32, 64, 64]}, "export": SHAPES}
"""What shards need, and an export to which each of its settings matters."""


def identities(network: str = "mtlsd_small", **changes: Any) -> dict[str, str]:
    """The digest of the deciding settings of each job."""
    planner = Planner(ROOT, run_config(**merge(BASE, changes)), uses_containers=True)
    return {name: digest(deciding(plan(planner, network).settings)) for name, plan in JOBS.items()}


def settings_of(model: type[SettingsModel], prefix: str = "") -> list[str]:
    """The settings of the configuration, those of groups with the group's name."""
    names = []
    for name, info in model.model_fields.items():
        inner = info.annotation
        is_group = isinstance(inner, type) and issubclass(inner, SettingsModel)
        names += settings_of(inner, f"{name}.") if is_group else [f"{prefix}{name}"]
    return names


def test_every_setting_says_what_it_decides() -> None:
    assert sorted(settings_of(WorkflowConfig)) == sorted(DECIDES), "add new settings to DECIDES"


@pytest.mark.parametrize("name", DECIDES)
def test_a_setting_decides_exactly_these_jobs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # results of the repository would refuse a shorter training
    value, jobs = DECIDES[name]
    group, _, inner = name.rpartition(".")
    before, after = (
        identities(),
        identities(**({group: {inner: value}} if group else {name: value})),
    )
    assert tuple(job for job in JOBS if before[job] != after[job]) == jobs


NEAR = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
BOTH, TRAINED = ("train", "predict", "package"), ("train", "package")
NETWORK: dict[str, tuple[Any, tuple[str, ...]]] = {
    "augment": ([], TRAINED),
    "balance_with_mask": (False, TRAINED),
    "batch_size": (2, TRAINED),
    "checkpoint_every": (7, NOTHING),
    "downsample": ([[1, 2, 2], [1, 1, 1]], BOTH),
    "dropout": (0.2, TRAINED),
    "fmap_factor": (2, BOTH),
    "fmaps": (8, BOTH),
    "fmaps_out": (24, BOTH),
    "grow_boundary": (None, TRAINED),
    "heads": ([{"name": "affs", "channels": 3}], (*BOTH, "view")),
    "inference_shape": ([52, 148, 148], ("predict", "package")),
    "input_shape": ([36, 148, 148], BOTH),
    "iterations": (9, TRAINED),
    "label_padding_nm": ([600, 800, 800], TRAINED),
    "loss": ({"kind": "malis"}, TRAINED),
    "lsd": ({"sigma_nm": 120, "downsample": 1}, TRAINED),
    "lsd_weight": ("foreground", TRAINED),
    "min_masked": (0.4, TRAINED),
    "neighborhood": ([*NEAR, [-2, 0, 0]], ("train", "predict", "fragments", "package")),
    "optimizer": ({"lr": 0.5, "eps": 1e-8}, TRAINED),
    "predict_padding": ("valid", ("predict", "package")),
    "snapshot_every": (7, NOTHING),
}
"""By setting of a network another value, and the jobs whose own settings it decides."""
OTHERS = {*DERIVED, "name", "family", "autocontext", "input_channels"}
"""Settings that make another network."""


def network_identities(folder: Path, changes: Mapping[str, Any]) -> dict[str, str]:
    """As `identities`, of a network with some settings changed."""
    content = {"name": "mine", "extends": "mtlsd_small", "datasets": {"phantom": changes}}
    (folder / "config/networks").mkdir(parents=True)
    (folder / "config/networks/mine.yaml").write_text(yaml.safe_dump(content))
    with contextlib.chdir(folder):
        return identities("mine")


def test_every_setting_of_a_network_says_what_it_decides() -> None:
    assert LsdSettings.model_fields.keys() - OTHERS == NETWORK.keys(), "add new ones to NETWORK"


@pytest.mark.parametrize("name", NETWORK)
def test_a_setting_of_a_network_decides_exactly_these_jobs(name: str, tmp_path: Path) -> None:
    value, jobs = NETWORK[name]
    before = network_identities(tmp_path / "before", {})
    after = network_identities(tmp_path / "after", {name: value})
    assert tuple(job for job in JOBS if before[job] != after[job]) == jobs


SAVING = {"checkpoint_every", "snapshot_every"}
NO_EFFECT_IN = {("phantom_sections", "seamless_small"): {"vis_interval", "state_archive"}}
"""Further settings without effect; the bytes of `state_archive` decide, as those of `init`."""
TILES = {"inference_shape", "predict_padding", "iterations"}
"""Also those that the job has once more: iterations, the configuration's or the network's."""
NOT_FOR_TRAINING: dict[tuple[str, str], set[str]] = {
    ("phantom", "mtlsd_small"): TILES,
    # ZNN also trains on mirrored borders.
    ("phantom", "n4"): {"inference_shape", "forward_outsz", "forward_conv_mode", "iterations"},
    ("mnist", "cnn_warp"): {*TILES, "n_steps"},
    ("phantom_sections", "seamless_small"): {"align"},
}
"""By an experiment of each family the settings that decide predictions alone."""


@pytest.mark.parametrize("pair", NOT_FOR_TRAINING)
def test_all_other_settings_of_a_network_train_it_again(pair: tuple[str, str]) -> None:
    network = Planner(Path(), run_config(), uses_containers=True).network(*pair)
    names = set(type(network).model_fields)
    for_training = frozenset({NO_EFFECT, NOT_TRAINED})
    without = SAVING | NO_EFFECT_IN.get(pair, set())
    assert names - deciding(network).keys() == without
    assert names - deciding(network, for_training).keys() == without | NOT_FOR_TRAINING[pair]


@pytest.mark.parametrize(
    ("pair", "changes"),
    [
        (("phantom", "n4"), {"forward_outsz": (1, 50, 50), "forward_conv_mode": "fft"}),
        (("phantom_sections", "seamless_small"), {"align": None}),
        (("mnist", "cnn_warp"), {"snapshot_every": 77, "checkpoint_every": 8}),
    ],
)
def test_settings_of_predictions_do_not_train_again(
    pair: tuple[str, str], changes: Mapping[str, Any]
) -> None:
    planner = Planner(Path(), run_config(), uses_containers=True)
    network = planner.network(*pair)
    plan = fit_job if pair[1] == "seamless_small" else train_job
    settings = plan(planner, *pair).settings
    changed = settings.model_copy(update={"network": network.model_copy(update=changes)})
    assert settings != changed
    assert deciding(settings) == deciding(changed)


def test_iterations_of_the_command_line_alone_count(tmp_path: Path) -> None:
    """Then those of the network's file decide nothing but its package."""
    (tmp_path / "config/networks").mkdir(parents=True)

    def identities_with(iterations: int) -> dict[str, str]:
        content = {"name": "mine", "extends": "mtlsd_small", "iterations": iterations}
        (tmp_path / "config/networks/mine.yaml").write_text(yaml.safe_dump(content))
        with contextlib.chdir(tmp_path):
            return identities("mine", iterations=5)

    before, after = identities_with(4000), identities_with(99)
    assert [job for job in JOBS if before[job] != after[job]] == ["package"]


READ_RAW = ("train", "predict", "score", "package", "view")
NORMALIZE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "normalize": ({}, {"range": [0, 9]}),
    "range": ({"range": [0, 8]}, {"range": [0, 9]}),
    "percentiles": ({"percentiles": [1, 99]}, {"percentiles": [2, 98]}),
    "invert": ({"range": [0, 9]}, {"range": [0, 9], "invert": True}),
}
"""For each part of `normalize` two settings that differ in it."""


@pytest.mark.parametrize("part", NORMALIZE)
def test_normalize_decides_what_reads_raw(part: str, tmp_path: Path) -> None:
    """Not the mask, the segmentation or the scores of labels."""

    def identities_with(normalize: dict[str, Any]) -> dict[str, str]:
        phantom = yaml.safe_load(Path("config/datasets/phantom.yaml").read_text())
        for name in phantom["volumes"]:
            raw = {"path": f"data/phantom/{name}.zarr", "array": "volumes/raw"}
            phantom["volumes"][name]["raw"] = raw | ({"normalize": normalize} if normalize else {})
        folder = tmp_path / digest(normalize)
        (folder / "config/datasets").mkdir(parents=True)
        (folder / "config/datasets/phantom.yaml").write_text(yaml.safe_dump(phantom))
        with contextlib.chdir(folder):
            return identities()

    before, after = map(identities_with, NORMALIZE[part])
    assert tuple(job for job in JOBS if before[job] != after[job]) == READ_RAW


@pytest.mark.parametrize("spelling", ["./own/b.h5", "own//b.h5", "{here}/own/b.h5", "own/./b.h5/"])
def test_another_spelling_of_a_path_decides_nothing(tmp_path: Path, spelling: str) -> None:
    (tmp_path / "config/datasets").mkdir(parents=True)

    def raw_path(path: str) -> str:
        source = {"path": path, "array": "raw"}
        dataset = {
            "name": "mine",
            "voxel_size_nm": [40, 4, 4],
            "background_ids": [],
            "volumes": {"b": {"raw": source, "labels": source}},
            "train": ["b"],
        }
        (tmp_path / "config/datasets/mine.yaml").write_text(yaml.safe_dump(dataset))
        with contextlib.chdir(tmp_path):
            settings = Planner(Path(), run_config(), uses_containers=True).dataset("mine")
            return str(settings.volumes["b"].raw.path)

    assert raw_path(spelling.format(here=tmp_path)) == raw_path("own/b.h5") == "own/b.h5"
