"""The profiles of LSF and SGE: the submitted resources, and a complete run of the workflow.

The schedulers' commands are stand-ins that run the submitted commands.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import fake_scheduler
import tiny_workflow
from plans import IMPATIENT

pytestmark = [pytest.mark.s3, pytest.mark.timeout(900)]

CORES = 4


def submitted(folder: Path, endpoint: str, profile: Path) -> list[dict[str, Any]]:
    """Trains through the stand-ins, whose first job fails; returns the submissions."""
    place = folder / "place"
    tiny_workflow.write_network(place)
    path = os.pathsep.join([str(fake_scheduler.programs(folder)), os.environ["PATH"]])
    arguments = ["train_phantom_tiny", "--workflow-profile", str(profile)]
    cores = ["--set-threads", f"train={CORES}"]
    unmeasured = "validation={every: never}"
    config = ["--config", f"endpoint_url={endpoint}", "iterations=2", unmeasured]
    environment = {**IMPATIENT, "PATH": path, "FAKE_FAILURES": "1"}
    tiny_workflow.succeed(place, [*arguments, *cores, *config], environment)
    assert (place / "results" / "phantom" / "tiny" / "model.safetensors").is_file()
    return fake_scheduler.submissions(folder)


def test_lsf(tmp_path: Path, endpoint: str) -> None:
    profile = tiny_workflow.edited_profile(
        tmp_path, "lsf", project="lab", queue="short", gpu_queue="a100", gpu_request="num=1:gmem=8G"
    )
    jobs = [job["options"] for job in submitted(tmp_path, endpoint, profile)]
    mask, retried, train = jobs
    assert [job["-q"] for job in jobs] == [["short"], ["short"], ["a100"]]
    assert all(job["-P"] == ["lab"] for job in jobs)
    assert [job["-W"] for job in jobs] == [["60"], ["120"], ["10000"]]
    # Per core and in the unit of LSF_UNIT_FOR_LIMITS, gigabytes here.
    assert mask["-R"] == [f"rusage[mem={2000 / 1024}]", "span[hosts=1]"]
    assert retried["-R"][0] == f"rusage[mem={4000 / 1024}]"
    assert train["-R"][0] == f"rusage[mem={24000 / 1024 / CORES}]"
    assert [job["-n"] for job in jobs] == [["1"], ["1"], [str(CORES)]]
    assert "-gpu" not in mask
    assert train["-gpu"] == ["num=1:gmem=8G"]
    assert all((job["-wa"], job["-wt"]) == (["TERM"], ["2"]) for job in jobs)


def test_sge(tmp_path: Path, endpoint: str) -> None:
    profile = tiny_workflow.edited_profile(
        tmp_path, "sge", project="lab", queue="long.q", gpu_queue="gpu.q", parallel="threads"
    )
    jobs = [job["options"] for job in submitted(tmp_path, endpoint, profile)]
    assert [job["-N"] for job in jobs] == [["mask"], ["mask"], ["train"]]
    assert [job["-q"] for job in jobs] == [["long.q"], ["long.q"], ["gpu.q"]]
    assert all(job["-P"] == ["lab"] for job in jobs)
    assert [job["-pe"] for job in jobs] == [["threads", "1"], ["threads", "1"], ["threads", "4"]]
    # Memory per slot, time in seconds, and a GPU only for rules that need one.
    assert [job["-l"] for job in jobs] == [
        ["h_vmem=2000M", "h_rt=3600"],
        ["h_vmem=4000M", "h_rt=7200"],
        ["h_vmem=6000M", "h_rt=600000", "gpu=1"],
    ]
    assert (tmp_path / "place" / "logs" / "sge" / "train.o3").is_file()
