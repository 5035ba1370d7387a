"""docs/how-to/cluster.md from top to bottom, by a new user, on a real SLURM of two nodes.

The commands and settings are those that the page shows. The clone has tiny data and networks under
the names that they use. In the first run `scancel` cancels the training once it has begun, and the
retry resumes it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

import slurm_cluster
import tiny_workflow
from conftest import Apptainer, required, skip_or_fail
from page_commands import blocks, commands_of
from plans import IMPATIENT

pytestmark = [pytest.mark.slurm, pytest.mark.container, pytest.mark.s3, pytest.mark.timeout(2400)]

PAGE = (tiny_workflow.REPOSITORY / "docs" / "how-to" / "cluster.md").read_text()
COMMANDS = [shlex.join(command.words) for command in commands_of(PAGE, "cluster.md")]
SETUP, ACTIVATE, IMAGE, DRY_RUN, RUN, QUEUE, UNLOCK, COST, COST_JSON, STATUS, STATUS_JSON = COMMANDS
"""Every command of the page, from top to bottom."""
ITERATIONS = 150
"""A training of 15 s on one core, so that a test can still lose its node after its first state."""
NEVER = 1_000_000
"""Iterations between states of a training that is to save one only where it is stopped."""
PATIENCE_S = 1500.0


def block_of_page(key: str) -> str:
    """The settings that the page shows in the block that begins with `key`."""
    (block,) = (one for one in map(str.strip, blocks(PAGE)) if one.startswith(f"{key}:"))
    return block


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its SLURM jobs by rule, where its training was stopped."""

    place: Path
    jobs: dict[str, list[dict[str, str]]]
    stopped_at: int


# ---------------------------------------------------------------- the clone of a user


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
def place(
    slurm: slurm_cluster.Cluster, apptainer: Apptainer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A clone with the environment and the image of the tests, prepared as the page says."""
    apptainer.image("modern")
    folder = tiny_workflow.copy_workflow(tmp_path_factory.mktemp("clone"))
    shutil.copy2(tiny_workflow.REPOSITORY / "Makefile", folder)
    (folder / "containers" / "images").symlink_to(tiny_workflow.REPOSITORY / "containers/images")
    (folder / ".venv").mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / part).symlink_to(Path(sys.prefix) / part)
    (folder / ".venv" / ".installed").touch()  # make's mark of a finished setup
    with tiny_workflow.serving() as address:
        use_tiny_data(folder, address)
        edit_profile(folder / "profiles" / "slurm" / "profile.yaml")
        yield folder


def use_tiny_data(folder: Path, address: str) -> None:
    """The phantom as zfinch, and as mtlsd a network two maps wide that trains for seconds."""
    config = folder / "config"
    phantom = (config / "datasets" / "phantom.yaml").read_text()
    renamed = tiny_workflow.edited(phantom, name="zfinch")
    (config / "datasets" / "zfinch.yaml").write_text(renamed)
    mtlsd = yaml.safe_load((config / "networks" / "mtlsd.yaml").read_text())
    recipe = {**tiny_workflow.TINY, **mtlsd["recipes"]["anisotropic"]}
    tiny_workflow.write_network(
        folder,
        "mtlsd",
        "baseline_small",
        heads=mtlsd["heads"],
        recipes={"anisotropic": recipe},
        checkpoint_every=NEVER,
    )
    settings = {"endpoint_url": address, "iterations": ITERATIONS, "untrained": "false"}
    text = (config / "config.yaml").read_text()
    (config / "config.yaml").write_text(tiny_workflow.edited(text, **settings))


def edit_profile(profile: Path) -> None:
    """An account, a day for each training, the page's request for more, and one core for jobs."""
    text = profile.read_text()
    for line in block_of_page("account").splitlines():
        assert f"\n  {line.partition('#')[0].rstrip()} " in text, "not in the block at the top"
    text = tiny_workflow.edited(text, account="lab", train_runtime=1440)
    end = "runtime_limit: ?train_runtime\n"
    requested = block_of_page("set-resources").partition("…\n")[2]
    assert text.count(end) == 1 and requested
    cores = "".join(f"  {rule}: 1\n" for rule in tiny_workflow.ONE_CORE)
    text = text.replace(end, f"{end}{requested.rstrip()}\n")
    profile.write_text(f"{text}\nset-threads:\n{cores}")


# ---------------------------------------------------------------- its commands and jobs


def start(place: Path, command: str, log: Path | None = None) -> subprocess.Popen[str]:
    """A command of the page in an activated shell; it prints to `log`, or into a pipe.

    Snakemake asks SLURM every second.
    """
    with (log or Path(os.devnull)).open("w") as output:
        return subprocess.Popen(
            ["bash", "-c", f"{ACTIVATE} && exec {command}"],
            cwd=place,
            env={**os.environ, "OMP_NUM_THREADS": "1", **IMPATIENT},
            stdout=output if log else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    """What a command prints; it must end with the status."""
    printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == status, printed[-6000:]
    return printed


def train(network: str, *options: str) -> str:
    """The page's run, but for the training of another network."""
    target = RUN.replace("evaluate_zfinch_mtlsd", f"train_zfinch_{network}")
    assert target != RUN
    return shlex.join([*shlex.split(target), *options])


@contextmanager
def started(place: Path, command: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A running Snakemake and the file that it prints to; killed at the end."""
    log = place / "snakemake.txt"
    process = start(place, command, log)
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


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


def begun(place: Path, network: str) -> int:
    """How often a training has begun: it has an event file from the first iteration on."""
    return len(list(place.glob(f"work/train/zfinch_{network}_*/log/events*")))


def training_log(place: Path, network: str) -> str:
    log = place / f"logs/train/zfinch_{network}.log"
    return log.read_text() if log.exists() else ""


def stopped_at(place: Path, network: str) -> int | None:
    """The iteration at which a training was stopped, from its log."""
    match = re.search(r"stopped at iteration (\d+)", training_log(place, network))
    return int(match[1]) if match else None


# ---------------------------------------------------------------- the page, from top to bottom


def test_setup_and_image_are_there_and_it_is_listed_what_would_be_requested(place: Path) -> None:
    images = sorted((place / "containers" / "images").iterdir())
    for command in (SETUP, IMAGE):
        finish(start(place, command))
    printed, costs, lines = map(finish, [start(place, c) for c in (DRY_RUN, COST, COST_JSON)])

    assert sorted((place / "containers" / "images").iterdir()) == images
    (training,) = re.findall(r"rule train:.*?resources: ([^\n]*)", printed, re.S)
    for requested in ("mem_mb=24000", "runtime=1440", "slurm_partition=gpu", "gpu=1"):
        assert requested in training.split(", ")
    jobs = [json.loads(line) for line in lines.splitlines()]
    assert {one["job"]["rule"] for one in jobs} >= {"fetch", "train", "evaluate"}
    assert "unknown" in costs, "no network like this one was measured"
    assert not slurm_jobs()


@pytest.fixture(scope="module")
def finished(place: Path) -> Run:
    """The page's run, with its training cancelled once."""
    with started(place, RUN) as (process, log):
        wait_until("the training", lambda: begun(place, "mtlsd") > 0, process)
        slurm_cluster.output("scancel", slurm_jobs()["train"][0]["JobId"])
        wait_until("its stop", lambda: stopped_at(place, "mtlsd") is not None, process)
        iteration = stopped_at(place, "mtlsd")
        assert process.wait(PATIENCE_S) == 0, log.read_text()[-6000:]
    assert iteration is not None
    return Run(place, slurm_jobs(), iteration)


def test_the_workflow_computes_its_scores(finished: Run) -> None:
    results = finished.place / "results" / "zfinch" / "mtlsd"
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
    fragments = finished.jobs["fragments"][0]
    # 64,000 MB, as SLURM prints them.
    assert (fragments["TimeLimit"], fragments["MinMemoryNode"]) == ("2-00:00:00", "62.50G")
    first, second = finished.jobs["train"]
    assert first["JobState"] == "CANCELLED" and second["JobState"] == "COMPLETED"
    for key, value in (("MinMemoryNode", "24000M"), ("TimeLimit", "1-00:00:00")):
        assert first[key] == second[key] == value


def test_a_cancelled_training_saves_its_state_and_the_retry_resumes(finished: Run) -> None:
    assert 0 < finished.stopped_at < ITERATIONS
    assert f"resumes at iteration {finished.stopped_at} " in training_log(finished.place, "mtlsd")
    history = json.loads((finished.place / "results/zfinch/mtlsd/training.json").read_text())
    assert history["iterations"] == ITERATIONS
    assert history["iterations_this_run"] == ITERATIONS - finished.stopped_at


def test_status_of_a_finished_run(finished: Run) -> None:
    both = [start(finished.place, command) for command in (STATUS, STATUS_JSON)]
    table, lines = map(finish, both)
    statuses = [json.loads(line) for line in lines.splitlines()]
    assert {one["state"] for one in statuses} == {"done"}
    assert f"{len(statuses)} done" in table.splitlines()
    train = next(one for one in statuses if one["rule"] == "train")
    assert train["log"] == "logs/train/zfinch_mtlsd.log" and train["seconds"] > 0
    assert 0 < train["peak_memory_mb"] < train["mem_mb"]


def test_slurm_s_own_logs_are_kept_of_jobs_that_did_not_succeed(finished: Run) -> None:
    logs = finished.place.glob("logs/slurm/rule_*/*/*.log")
    cancelled = finished.jobs["train"][0]["JobId"]
    assert [(log.parts[-3], log.name) for log in logs] == [("rule_train", f"{cancelled}.log")]


def test_a_job_of_a_lost_node_resumes_on_another_node(
    slurm: slurm_cluster.Cluster, finished: Run
) -> None:
    place = finished.place
    tiny_workflow.write_network(place, "lost", "mtlsd", checkpoint_every=2)
    node = ""
    try:
        with started(place, train("lost")) as (process, log):
            wait_until("a running training", lambda: bool(node_of("train")), process)
            # SLURM is asked before there is a state: its answer takes seconds on a busy machine, in
            # which the training may end.
            running_on = node_of("train")
            states = "work/train/zfinch_lost_*/state_*.pt"
            wait_until("a state", lambda: any(place.glob(states)), process)
            node = running_on
            slurm.lose(node)
            assert process.wait(PATIENCE_S) == 0, log.read_text()[-6000:]
    finally:
        if node:
            slurm.start(node)
    job = slurm_jobs()["train"][-1]
    assert job["TimeLimit"] == "00:30:00", "the training of an equal network took seconds"
    assert job["Restarts"] == "1" and job["NodeList"] != node
    assert "resumes at iteration" in training_log(place, "lost")
    model = "results/zfinch/{}/model.safetensors"
    resumed, undisturbed = (
        safetensors.torch.load_file(place / model.format(name)) for name in ("lost", "mtlsd")
    )
    assert resumed.keys() == undisturbed.keys()
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in resumed)


def test_the_folder_of_a_killed_snakemake_is_unlocked_and_ctrl_c_cancels_what_runs(
    place: Path,
) -> None:
    tiny_workflow.write_network(place, "endless", "mtlsd")
    command = train("endless", "--config", "iterations=1000000")
    with started(place, command) as (process, _):
        wait_until("the training", lambda: begun(place, "endless") > 0, process)
        process.kill()
        process.wait()
    (job,) = (line.split()[0] for line in finish(start(place, QUEUE)).splitlines()[1:])
    assert "Directory cannot be locked" in finish(start(place, command), status=1)
    slurm_cluster.output("scancel", job)
    slurm_cluster.wait_for("the end of all jobs", lambda: not slurm_cluster.jobs())
    finish(start(place, UNLOCK))
    saved = stopped_at(place, "endless")
    assert saved
    with started(place, command) as (process, _):
        wait_until("its resumption", lambda: begun(place, "endless") > 1, process)
        time.sleep(1)
        assert f"resumes at iteration {saved} " in training_log(place, "endless")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) != 0
    slurm_cluster.wait_for("the end of all jobs", lambda: not slurm_cluster.jobs())
    iteration = stopped_at(place, "endless")
    assert iteration and iteration >= saved
    assert list(place.glob(f"work/train/zfinch_endless_*/state_{iteration:09d}.pt"))
