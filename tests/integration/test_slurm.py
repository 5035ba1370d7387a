"""The whole workflow on a real SLURM of two nodes, in containers, through profiles/slurm.

One run: `scancel` cancels the training once it has begun, and the retry resumes it.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch

import slurm_cluster
import status
import tiny_workflow
from conftest import Apptainer, required, skip_or_fail
from plans import IMPATIENT

pytestmark = [pytest.mark.slurm, pytest.mark.container, pytest.mark.s3, pytest.mark.timeout(2400)]

ITERATIONS = 150
"""A training of 15 s on one core, so that a test can still lose its node after its first state."""
NEVER = 1_000_000
"""Iterations between states of a training that is to save one only where it is stopped."""
PATIENCE_S = 1500.0


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its SLURM jobs by rule, where its training was stopped."""

    place: Path
    jobs: dict[str, list[dict[str, str]]]
    stopped_at: int


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm_cluster.Cluster]:
    """SLURM on this machine; only on request, because it uses the system's configuration."""
    reason = slurm_cluster.why_not()
    if reason is None and not required("slurm"):
        reason = "RETRACE_REQUIRE does not name slurm, and a SLURM is not started unasked"
    if reason:
        skip_or_fail("slurm", reason)
    with slurm_cluster.running(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def options(
    slurm: slurm_cluster.Cluster, apptainer: Apptainer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[str]]:
    """Options of a run in the image, with a profile edited as a user edits it."""
    folder = tmp_path_factory.mktemp("profile")
    profile = tiny_workflow.edited_profile(folder, "slurm", account="lab")
    apptainer.image("modern")
    with tiny_workflow.serving() as address:
        yield [
            *("--use-singularity", "--workflow-profile", str(profile)),
            *tiny_workflow.threads(),
            *("--config", f"endpoint_url={address}", "evaluate={untrained: false}"),
        ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of all runs, with the repository's images."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "containers").mkdir()
    (folder / "containers" / "images").symlink_to(tiny_workflow.REPOSITORY / "containers/images")
    return folder


def start(place: Path, network: str, target: str, options: list[str]) -> subprocess.Popen[str]:
    """Snakemake, which asks SLURM every second; it prints to NETWORK.txt."""
    command = [f"{target}_phantom_{network}", *options]
    return tiny_workflow.start(place, command, place / f"{network}.txt", IMPATIENT)


def slurm_jobs() -> dict[str, list[dict[str, str]]]:
    """SLURM's record of every job, in the order of submission, by the rule in its comment."""
    text = slurm_cluster.output("scontrol", "--oneliner", "show", "job")
    jobs: dict[str, list[dict[str, str]]] = {}
    for line in text.splitlines():
        job = dict(part.split("=", 1) for part in line.split() if "=" in part)
        if match := re.match(r"rule_(\w+?)(_wildcards_|$)", job.get("Comment", "")):
            jobs.setdefault(match[1], []).append(job)
    return jobs


def node_of(rule: str) -> str:
    """The node on which the last job of a rule runs; empty while it waits."""
    jobs = slurm_jobs().get(rule, [])
    return jobs[-1]["NodeList"] if jobs and jobs[-1]["JobState"] == "RUNNING" else ""


def wait_until(what: str, is_due: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Returns once `is_due()` is true; fails if the process ends before."""
    slurm_cluster.wait_for(what, lambda: is_due() or process.poll() is not None, PATIENCE_S)
    assert is_due(), f"Snakemake ended before {what}"


def training_has_begun(place: Path, network: str) -> bool:
    """Its event file exists from the first iteration on."""
    return any(place.glob(f"work/train/phantom_{network}_*/log/events*"))


def stopped_at(place: Path, network: str) -> int | None:
    """The iteration at which a training was stopped, from its log."""
    log = place / f"logs/train/phantom_{network}.log"
    match = re.search(r"stopped at iteration (\d+)", log.read_text() if log.exists() else "")
    return int(match[1]) if match else None


@pytest.fixture(scope="module")
def finished(place: Path, options: list[str]) -> Run:
    """`evaluate_phantom_tiny`, with its training cancelled once."""
    tiny_workflow.write_network(place, "tiny", checkpoint_every=NEVER)
    process = start(place, "tiny", "evaluate", [*options, f"iterations={ITERATIONS}"])
    try:
        wait_until("the training", lambda: training_has_begun(place, "tiny"), process)
        slurm_cluster.output("scancel", slurm_jobs()["train"][0]["JobId"])
        wait_until("its stop", lambda: stopped_at(place, "tiny") is not None, process)
        iteration = stopped_at(place, "tiny")
        assert process.wait(PATIENCE_S) == 0, (place / "tiny.txt").read_text()[-6000:]
    finally:
        process.kill()
    assert iteration is not None
    return Run(place, slurm_jobs(), iteration)


def test_the_workflow_computes_its_scores(finished: Run) -> None:
    results = finished.place / "results" / "phantom" / "tiny"
    scores = json.loads((results / "evaluation.json").read_text())["volumes"]["test_0"]
    assert 0 < scores["voi_sum"] < 40
    manifest = json.loads((results / "test_0" / "prediction.manifest.json").read_text())
    assert re.search(r"modern-[0-9a-f]{12}\.sif$", manifest["image"])


def test_fetching_stays_where_snakemake_runs_and_all_else_is_submitted(finished: Run) -> None:
    counts = {rule: len(jobs) for rule, jobs in finished.jobs.items()}
    assert counts == {
        "mask": 3,
        "train": 2,
        "predict": 2,
        "fragments": 2,
        "choose_threshold": 1,
        "segment": 1,
        "evaluate": 1,
    }


def test_slurm_receives_the_resources_of_each_rule(finished: Run) -> None:
    for rule, jobs in finished.jobs.items():
        partition = "gpu" if rule in ("train", "predict") else "cpu"
        assert {job["Partition"] for job in jobs} == {partition}
        assert {job["Account"] for job in jobs} == {"lab"}
        gpus = {job.get("TresPerJob", "none") for job in jobs}
        assert gpus == ({"gres:gpu:1"} if partition == "gpu" else {"none"})
    mask = finished.jobs["mask"][0]
    assert (mask["TimeLimit"], mask["MinMemoryNode"]) == ("01:00:00", "2000M")
    first, second = finished.jobs["train"]
    assert first["JobState"] == "CANCELLED" and second["JobState"] == "COMPLETED"
    for key, value in (("MinMemoryNode", "24000M"), ("TimeLimit", "6-22:40:00")):
        assert first[key] == second[key] == value


def test_a_cancelled_training_saves_its_state_and_the_retry_resumes(finished: Run) -> None:
    assert 0 < finished.stopped_at < ITERATIONS
    log = (finished.place / "logs" / "train" / "phantom_tiny.log").read_text()
    assert f"resumes at iteration {finished.stopped_at} " in log
    history = json.loads((finished.place / "results/phantom/tiny/training.json").read_text())
    assert history["iterations"] == ITERATIONS
    assert history["iterations_this_run"] == ITERATIONS - finished.stopped_at


def test_status_of_a_finished_run(
    finished: Run, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.place)
    snakefile = ["--snakefile", str(tiny_workflow.REPOSITORY / "Snakefile")]
    statuses = status.job_statuses(
        "evaluate_phantom_tiny", [*snakefile, *options, f"iterations={ITERATIONS}"]
    )
    assert {one.state for one in statuses} == {"done"}
    train = next(one for one in statuses if one.job.rule == "train")
    assert train.usage.seconds and train.usage.seconds > 0
    assert train.usage.peak_memory_mb and train.usage.peak_memory_mb < (train.job.mem_mb or 0)


def test_a_job_of_a_lost_node_resumes_on_another_node(
    slurm: slurm_cluster.Cluster, finished: Run, options: list[str]
) -> None:
    place = finished.place
    tiny_workflow.write_network(place, "lost", checkpoint_every=2)
    process = start(place, "lost", "train", [*options, f"iterations={ITERATIONS}"])
    node = ""
    try:
        wait_until("a running training", lambda: bool(node_of("train")), process)
        # SLURM is asked before there is a state: its answer takes seconds on a busy machine, in
        # which the training may end.
        running_on = node_of("train")
        states = "work/train/phantom_lost_*/state_*.pt"
        wait_until("a state", lambda: any(place.glob(states)), process)
        node = running_on
        slurm.lose(node)
        assert process.wait(PATIENCE_S) == 0, (place / "lost.txt").read_text()[-6000:]
    finally:
        process.kill()
        if node:
            slurm.start(node)
    job = slurm_jobs()["train"][-1]
    assert job["TimeLimit"] == "00:30:00", "the training of an equal network took seconds"
    assert job["Restarts"] == "1" and job["NodeList"] != node
    assert "resumes at iteration" in (place / "logs/train/phantom_lost.log").read_text()
    model = "results/phantom/{}/model.safetensors"
    resumed, undisturbed = (
        safetensors.torch.load_file(place / model.format(name)) for name in ("lost", "tiny")
    )
    assert resumed.keys() == undisturbed.keys()
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in resumed)


def test_ctrl_c_cancels_what_runs_and_its_state_is_saved(place: Path, options: list[str]) -> None:
    tiny_workflow.write_network(place, "endless", checkpoint_every=NEVER)
    process = start(place, "endless", "train", [*options, "iterations=1000000"])
    try:
        wait_until("the training", lambda: training_has_begun(place, "endless"), process)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) != 0
    finally:
        process.kill()
    slurm_cluster.wait_for("the end of all jobs", lambda: not slurm_cluster.jobs())
    iteration = stopped_at(place, "endless")
    assert iteration
    assert list(place.glob(f"work/train/phantom_endless_*/state_{iteration:09d}.pt"))
