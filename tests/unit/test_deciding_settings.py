"""For each setting of the configuration, which jobs it decides: exactly these run again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import merge
from retrace.files import digest
from retrace.job import Job
from retrace.planning.compare import compare_job
from retrace.planning.evaluate import choose_job, nodes_job, score_job
from retrace.planning.experiment import Planner
from retrace.planning.export import EXPORT_JOBS, package_job
from retrace.planning.fetch import fetch_job
from retrace.planning.mask import mask_job
from retrace.planning.predict import predict_job
from retrace.planning.reproduce import reproduce_job
from retrace.planning.segment import fragments_job, segment_job
from retrace.planning.train import train_job
from retrace.planning.view import view_job
from retrace.settings_model import SettingsModel, deciding
from run_config import run_config

PAIR = ("phantom", "mtlsd_small")
JOBS: dict[str, Callable[[Planner], Job]] = {
    "fetch": lambda p: fetch_job(p, "phantom", "train_0"),
    "mask": lambda p: mask_job(p, "phantom", "train_0"),
    "train": lambda p: train_job(p, *PAIR),
    "predict": lambda p: predict_job(p, *PAIR, "test_0"),
    "fragments": lambda p: fragments_job(p, *PAIR, "test_0"),
    "segment": lambda p: segment_job(p, *PAIR, "test_0"),
    "choose": lambda p: choose_job(p, *PAIR),
    "score": lambda p: score_job(p, *PAIR),
    "nodes": lambda p: nodes_job(p, "zfinch_paper", "mtlsd", "roi_11_micron"),
    "export": lambda p: EXPORT_JOBS["precomputed"](p, *PAIR, "test_0", "segments"),
    "package": lambda p: package_job(p, *PAIR),
    "view": lambda p: view_job(p, *PAIR),
    "compare": lambda p: compare_job(p, "phantom"),
    "reproduce": lambda p: reproduce_job(p, "zfinch_paper"),
}
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
    "init": ("a.safetensors", NOTHING),
    "engine": ("legacy", ("compare",)),
    "legacy_image": ("standin", NOTHING),
    "seed": (9, ("train",)),
    "device": ("cpu", NOTHING),
    "precision": ("fp32", ("train", "predict")),
    "compile": (True, NOTHING),
    "gpus": ({"train": 1, "predict": 2}, NOTHING),
    "batch_size": (2, ("train",)),
    "tile": ([12, 48, 48], ("predict",)),
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
    "evaluate.compute_mincut": (True, ("score",)),
    "evaluate.boundary_thresholds": ([0.1, 1, 0.1], NOTHING),
    "compare.networks": (["mtlsd_small"], ("compare",)),
    "reproduce.regions": (["benchmark"], ("nodes", "reproduce")),
    "reproduce.networks": (["mtlsd"], ("reproduce",)),
    "export.layers": (["raw"], NOTHING),
    "export.formats": (["ome_zarr"], NOTHING),
    "export.gzip": (False, ("export",)),
    "package.authors": (["me"], ("package",)),
    "package.license": ("MIT", ("package",)),
    "view.bind_address": ("0.0.0.0", NOTHING),
    "view.port": (4, NOTHING),
    "serve": (True, NOTHING),
}
"""By setting another value, and the jobs whose own settings it decides.

Jobs that read the results of these run again too. Some settings choose which jobs there are, or
which files they read, and no setting of a job: `weights`, `init`, `engine`, `shards`, `export`.
"""
BASE = {"segment": {"block_shape": [32, 64, 64]}}
"""What shards need."""


def identities(**changes: Any) -> dict[str, str]:
    """The digest of the deciding settings of each job."""
    planner = Planner(Path(), run_config(**merge(BASE, changes)), uses_containers=True)
    return {name: digest(deciding(plan(planner).settings)) for name, plan in JOBS.items()}


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
def test_a_setting_decides_exactly_these_jobs(name: str) -> None:
    value, jobs = DECIDES[name]
    group, _, inner = name.rpartition(".")
    before, after = (
        identities(),
        identities(**({group: {inner: value}} if group else {name: value})),
    )
    assert tuple(job for job in JOBS if before[job] != after[job]) == jobs
