"""`make cost` on the targets that people run, and what SLURM is asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import cost
import tiny_workflow
import warm_python
from retrace.config.command_line_values import read_config
from retrace.config.yaml_files import WORKFLOW_CONFIG
from retrace.planning.experiment import Planner
from retrace.planning.planned_jobs import PlannedJob, dry_run
from retrace.planning.train import described_training
from retrace.settings_model import deciding

SNAKEFILE = ["--snakefile", str(tiny_workflow.REPOSITORY / "Snakefile")]
TWO_CORES = ["--cores", "2"]
SLURM = ["--workflow-profile", str(tiny_workflow.REPOSITORY / "profiles/slurm")]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; Snakemake is started by a Python that has imported it."""
    monkeypatch.setattr(sys, "executable", warm_python.program())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def costs(target: str, *options: str) -> dict[str, cost.JobCost]:
    """The last job of each rule."""
    return {one.job.rule: one for one in cost.planned_costs(target, [*SNAKEFILE, *options])}


def write_training(place: Path, seconds_per_iteration: float, peak_mb: float) -> None:
    """What a training of mtlsd_small on the phantom leaves, under another name."""
    planner = Planner(tiny_workflow.REPOSITORY, read_config([WORKFLOW_CONFIG / "config.yaml"], []))
    settings = deciding(described_training(planner, "phantom", "mtlsd_small").settings)
    folder = place / "results/phantom/of_before"
    folder.mkdir(parents=True)
    (folder / "model.record.json").write_text(json.dumps({"identity": {"settings": settings}}))
    history = {"iterations_this_run": 100, "iterations_per_second": 1 / seconds_per_iteration}
    history |= {"seconds": 100 * seconds_per_iteration + 20, "peak_memory_mb": peak_mb}
    (folder / "training.json").write_text(json.dumps({**history, "gpu": "H200"}))


def test_a_first_training_of_the_zebra_finch(capsys: pytest.CaptureFixture[str]) -> None:
    cost.main(["train_zfinch_mtlsd", "--", *SNAKEFILE, *TWO_CORES, "--config", "device=cpu"])
    printed = capsys.readouterr().out
    assert "train_zfinch_mtlsd: 3 jobs, 3 to do" in printed
    # 400,000 iterations at 0.039 a second on two cores.
    assert "5,698" in printed and "119 days" in printed
    assert "docs/performance.md, machine A" in printed
    assert "fetch → mask" in printed.replace(" (unknown)", "")


def test_what_is_known_of_all_of_fib25_on_a_cluster() -> None:
    by_rule = costs("evaluate_fib25_mtlsd", *SLURM)
    train = by_rule["train"]
    assert train.seconds is None and train.gpu_hours is None
    assert "not measured with this network on a GPU" in train.source
    # What it requested before there were estimates.
    assert (train.job.runtime_min, train.job.mem_mb) == (10000, 24000)
    assert (train.job.threads, train.job.gpus) == (8, 1)
    assert by_rule["predict"].seconds is None
    # Validation and test together are 160 x 520 x 520 voxels.
    mvoxel = 160 * 520 * 520 / 1e6
    fragments = by_rule["fragments"]
    assert fragments.seconds == pytest.approx((0.972 + 0.481) * mvoxel)
    assert fragments.job.runtime_min == 30 and fragments.job.mem_mb == 16000
    # Measured on two cores, and the job gets one.
    assert by_rule["segment"].seconds == pytest.approx(2 * (0.013 + 0.034) * mvoxel)
    assert by_rule["predict"].written_bytes == 13 * 160 * 520 * 520
    assert by_rule["evaluate"].job.runtime_min == 240


def test_the_demo_after_a_training_like_it(place: Path) -> None:
    write_training(place, seconds_per_iteration=3.0, peak_mb=3000)
    demo = ("--configfile", str(tiny_workflow.REPOSITORY / "config/demo.yaml"))
    before = costs("evaluate_phantom_mtlsd_small", *TWO_CORES, *demo)["train"]
    assert before.seconds is None, "the demo runs on CPUs, and the earlier training on a GPU"


def job_of(rule: str, *options: str) -> PlannedJob:
    jobs = dry_run("train_phantom_mtlsd_small", [*SNAKEFILE, *SLURM, *options])
    return next(job for job in jobs if job.rule == rule)


def test_slurm_is_asked_for_what_earlier_trainings_took(place: Path) -> None:
    write_training(place, seconds_per_iteration=3.0, peak_mb=3000)
    # 20 s and 4,000 iterations of 3 s, three times that; twice the memory.
    train = job_of("train")
    assert (train.runtime_min, train.mem_mb) == (601, 6000)
    folder = "results/phantom/mtlsd_small"
    assert train.outputs == (f"{folder}/model.safetensors", f"{folder}/training.json")
    again = job_of("train", "--attempt", "2", "--config", "iterations=8000")
    assert (again.runtime_min, again.mem_mb) == (2 * 1201, 12000)
    profile = tiny_workflow.edited_profile(place, "slurm", train_runtime="300")
    limited = job_of("train", "--workflow-profile", str(profile))
    assert limited.runtime_min == 300
