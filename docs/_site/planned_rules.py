"""What each rule reads and what decides its results, from jobs that planning really plans.

The targets of a few runs are planned back to their first inputs, so that every rule with a job is
reached. Nothing is computed.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.settings.types import (
    ConfigSettings,
    DeploymentMethod,
    DeploymentSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
)

from retrace.config.command_line_values import read_config
from retrace.config.schema import annotation_of
from retrace.config.words import groups_in
from retrace.files import write_json
from retrace.job import Job
from retrace.planning import targets
from retrace.planning.experiment import Planner
from retrace.planning.records import is_shipped
from retrace.planning.train import described_training
from retrace.planning.training_folders import IDENTITY, SNAPSHOTS, snapshot_name
from retrace.settings_model import NO_EFFECT, SettingsModel, decides, deciding

ROOT = Path(__file__).resolve().parents[2]
PLACE = Path(__file__).with_name("place")
"""A working directory with datasets that name every kind of file."""


@dataclass(frozen=True)
class Run:
    """The targets, settings and containers of a command line that is planned."""

    targets: str
    settings: tuple[str, ...] = ()
    containers: bool = False

    @property
    def names(self) -> list[str]:
        """Each target, or file."""
        return self.targets.split()


RUNS = (
    Run(
        "view_phantom_mtlsd_small view_batch_phantom_mtlsd_small"
        " package_phantom_mtlsd_small crate_phantom_mtlsd_small"
        " evaluate_phantom_aclsd_small evaluate_phantom_n4 evaluate_phantom_vd2d3d"
        " evaluate_vnc_nc_classes_neuro3d_doc evaluate_mnist_cnn_warp train_mnist_cnn_warp"
        " train_mnist_pretrained compare_phantom compare_vnc_nc"
        " results/phantom/n4/net.h5 results/mnist/cnn_warp/net.param"
        " mask_stacks_phantom_sections evaluate_phantom_sections_seamless_small"
        " results/zfinch_paper/reproduced.txt results/fib25_paper/reproduced.txt"
        " containers/images/lsd_v0.8.img containers/images/lsd_legacy.img",
        ("package={license: MIT}",),
    ),
    Run(
        "evaluate_mine_mtlsd_small evaluate_mine_vd2d3d compare_mine view_mine_mtlsd_small"
        " view_data_mine results/report.html mask_stacks_sections"
        " evaluate_sections_seamless_small",
        ("experiments=[mine_mtlsd_small]", "train_seconds=9", "iterations=9", "epochs=1", "run=a"),
    ),
    Run(
        "view_phantom_mtlsd_small view_batch_phantom_mtlsd_small view_data_phantom",
        ("serve=true",),
    ),
    Run("train_phantom_mtlsd_small", ("init=a.safetensors",)),
    Run("train_phantom_sections_seamless_small", ("init=a.safetensors",)),
    Run("train_phantom_mtlsd", ("weights=published", "iterations=9")),
    Run("predict_phantom_n4", ("weights=published", "init=a.h5", "output_prefix=out/net")),
    Run("predict_mnist_cnn_warp", ("weights=published", "init=a.param")),
    Run("compare_mine evaluate_phantom_mtlsd_small", ("segment={method: multicut}",)),
    Run(
        "evaluate_mine_mtlsd_small evaluate_phantom_mtlsd_small",
        ("shards=2", "segment={method: multicut, block_shape: [32, 64, 64]}"),
    ),
    Run("evaluate_mine_mtlsd_small", ("shards=2", "segment={block_shape: [32, 64, 64]}")),
    Run(
        "export_mine_mtlsd_small export_zfinch_paper_mtlsd bundle_phantom_mtlsd_small",
        ("export={formats: [precomputed, ome_zarr], layers: [raw, segments, nodes]}",),
        containers=True,
    ),
    Run(
        "evaluate_mine_aclsd_small train_mine_mtlsd_small",
        ("engine=legacy", "train_seconds=9"),
        containers=True,
    ),
    Run("predict_zfinch_mtlsd", ("engine=legacy", "weights=published", "iterations=9"), True),
)
"""Runs that between them need every rule, and every kind of its inputs."""


@dataclass
class PlannedRule:
    """A rule, and what all its planned jobs have together.

    `results`: names of the rules whose results it reads; `files`: the user's files that it reads;
    `shipped`: files that come with the workflow and count like code;
    `decides`, `no_effect`: names of settings; `copies`: whether its results are verified copies;
    `kept`: whether they stay.
    """

    name: str
    file: Path
    program: str
    image: str
    kept: bool
    outputs: dict[str, None] = field(default_factory=dict)
    results: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    shipped: set[str] = field(default_factory=set)
    decides: set[str] = field(default_factory=set)
    no_effect: set[str] = field(default_factory=set)
    copies: bool = False
    jobs: int = 0


def planned_rules() -> list[PlannedRule]:
    """All rules with a job, in the order of the rule files."""
    rules: dict[str, PlannedRule] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = shutil.copytree(PLACE, Path(folder) / "place")
        with contextlib.chdir(place):
            config = read_config([ROOT / "config" / "config.yaml"], [])
            write_snapshot(Planner(ROOT, config), "phantom", "mtlsd_small")
            for run in RUNS:
                with _workflow(run) as workflow:
                    _PlannedRun(workflow.globals, rules).plan(run)
    if missing := [rule.name for rule in rules.values() if not rule.jobs]:
        raise SystemExit(
            f"no run in {Path(__file__).name} needs the rules {', '.join(missing)}; add a target "
            "of each to RUNS"
        )
    return list(rules.values())


def write_snapshot(
    planner: Planner, dataset: str, network: str, iteration: int = 1, name: str = "0"
) -> Path:
    """Raw of a batch of a training, which views of batches need; returns the training's folder."""
    settings = deciding(described_training(planner, dataset, network).settings)
    folder = Path(f"work/train/{dataset}_{network}_{name}")
    array = folder / SNAPSHOTS / snapshot_name(iteration) / "raw"
    array.mkdir(parents=True)
    write_json(array / ".zarray", {"dtype": "|u1"})
    identity = {"settings": settings, "resolved": {"precision": "fp32"}, "inputs": {}}
    write_json(folder / IDENTITY, identity)
    return folder


@contextlib.contextmanager
def _workflow(run: Run) -> Iterator[Any]:
    """The workflow as Snakemake reads it for this command line."""
    arguments, sys.argv = sys.argv, ["snakemake", *run.names]
    methods = {DeploymentMethod.APPTAINER} if run.containers else set()
    try:
        with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
            yield api.workflow(
                resource_settings=ResourceSettings(cores=1),
                config_settings=ConfigSettings(config_args=run.settings),
                deployment_settings=DeploymentSettings(deployment_method=methods),
                snakefile=ROOT / "Snakefile",
            )._workflow
    finally:
        sys.argv = arguments


class _PlannedRun:
    """Plans the targets of one run, and adds what it finds to `rules`.

    `names`: the global names of the rule files.
    """

    def __init__(self, names: dict[str, Any], rules: dict[str, PlannedRule]) -> None:
        self.names, self.rules = names, rules
        self.seen: set[str] = set()
        for writer in names["writers"]():
            path = Path(str(writer.input.script)).resolve()
            program = path.relative_to(ROOT / "workflow" / "scripts").as_posix()
            image = re.sub(r"-[0-9a-f]{12}$", "", Path(writer.container_img or "").stem)
            kept = names["is_kept"](writer)
            new = PlannedRule(writer.name, Path(writer.snakefile), program, image, kept)
            rule = rules.setdefault(writer.name, new)
            rule.outputs |= dict.fromkeys(map(str, writer.output))

    def plan(self, run: Run) -> None:
        """Plans the files of every target."""
        files_of = targets.wanted_targets()
        for name in run.names:
            for path in files_of[name](self.names["PLANNER"]) if name in files_of else [name]:
                self._writer_of(path)

    def _writer_of(self, path: str) -> str | None:
        """The rule that writes a file, after its job is planned; None for the user's files."""
        name = self.names["declared_output"](path)
        for writer in self.names["writers"]():
            if self.names["writes"](writer, name):
                if name not in self.seen:
                    self.seen.add(name)
                    self._plan_job(writer, writer.get_wildcards(name))
                return str(writer.name)
        return None

    def _plan_job(self, writer: Any, wildcards: dict[str, str]) -> None:
        """Adds what a job reads to its rule, and plans the jobs whose results it reads."""
        job = self.names["planned"](writer.params.job.plan_job)(wildcards)
        rule = self.rules[writer.name]
        rule.jobs += 1
        rule.copies = job.copies
        rule.no_effect |= set(job.execution)
        if isinstance(job.settings, SettingsModel):
            rule.decides |= set(_deciding(job.settings))
            rule.no_effect |= _without_effect(type(job.settings))
        names = _own_names(self.names["PLANNER"], wildcards.get("dataset"), job)
        for path in [*(p for files in job.files().values() for p in files), *job.untracked_files()]:
            if (other := self._writer_of(path)) is not None:
                rule.results.add(other)
            else:
                (rule.shipped if is_shipped(path) else rule.files).add(names[path])


def _own_names(planner: Any, dataset: str | None, job: Job) -> dict[str, str]:
    """By path the setting of the dataset or of the job, or else the role, that names a file."""
    names = {path: role for role, paths in job.files().items() for path in paths}
    names |= {path: role for role in job.untracked for path in job.untracked_files()}
    names |= dict(_named_paths(job.settings, "settings"))
    return names | dict(_named_paths(planner.dataset(dataset), "") if dataset else ())


def _named_paths(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Each text in settings, such as a path, with the name of the setting that holds it."""
    if isinstance(value, SettingsModel):
        for inner in type(value).model_fields:
            yield from _named_paths(getattr(value, inner), name if inner == "path" else inner)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _named_paths(inner, name)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _named_paths(inner, name)
    elif isinstance(value, str):
        yield value, name


def _deciding(settings: SettingsModel) -> Iterator[str]:
    """Names of the settings that planning sets and that decide.

    Settings of groups that only jobs have are named one by one.
    """
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if NO_EFFECT in type(settings).model_fields[name].metadata:
            continue
        if isinstance(value, SettingsModel) and ".planning." in type(value).__module__:
            yield from (f"{name}.{inner}" for inner in _deciding(value))
        else:
            yield name


@cache
def _without_effect(
    model: type[SettingsModel], ignored: frozenset[object] = frozenset({NO_EFFECT})
) -> frozenset[str]:
    """Names of the settings without an effect, also those inside groups."""
    names = set()
    ignored |= model.not_decided_by
    for name, info in model.model_fields.items():
        if decides(info, ignored):
            for _, group in groups_in(annotation_of(info)):
                names |= _without_effect(group, ignored)
        else:
            names.add(name)
    return frozenset(names)
