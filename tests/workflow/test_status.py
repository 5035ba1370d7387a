"""status.py during a real run: one job of each state."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import status
import warm_python
from retrace.errors import ConfigError

LONG = "x" * 190
SLEEPING = f"{LONG}/{LONG}/sleeping.txt"
LATE = "late (1), b.txt"
SNAKEFILE = f"""
rule all:
    input: "{LATE}", "broken.txt", "{SLEEPING}", "unlogged.zarr", "old.txt"

rule finished:
    output: "finished.txt"
    log: "logs/finished.log"
    benchmark: "logs/finished.jsonl"
    resources: mem_mb=500, runtime=7
    shell: "echo fine > {{log}}; echo {{resources.mem_mb}} > {{output}}"

rule noted:
    output: directory("unlogged.zarr"), "unlogged.manifest.json"
    priority: 1
    shell: "mkdir {{output[0]}}; cp usage.json {{output[1]}}"

rule broken:
    input: "finished.txt"
    output: "broken.txt"
    log: "logs/broken.log"
    priority: 1
    shell: "printf 'begun\\nerror: the disk is full\\n\\n' > {{log}}; false"

rule sleeping:
    input: "finished.txt"
    output: "{SLEEPING}"
    log: "logs/sleeping.log"
    shell: "echo asleep > {{log}}; until [ -e wake ]; do sleep 0.1; done; touch {{output}}"

rule late:
    input: "{SLEEPING}"
    output: "{LATE}"
    shell: "touch {{output:q}}"

rule old:
    output: "old.txt"
    priority: 1
    params: config.get("word", "one")
    shell: "echo {{params}} > {{output}}"
"""


@pytest.fixture(autouse=True)
def fast_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake is started by a Python that has imported it."""
    monkeypatch.setattr(sys, "executable", warm_python.program())


def states(*options: str) -> dict[str, status.JobStatus]:
    return {one.job.rule: one for one in status.job_statuses("all", options)}


def snakemake(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "snakemake", "--quiet", "all", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_mark(process: subprocess.Popen[bytes], output: str) -> None:
    """Returns once the job of that output is running."""
    while output not in status.marked_outputs():
        assert process.poll() is None
        time.sleep(0.1)


def test_every_state_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Snakefile").write_text(SNAKEFILE)
    Path("usage.json").write_text('{"seconds": 1.5, "peak_memory_mb": 321}')
    assert {one.state for one in states().values()} == {"missing"}
    # One at a time and `sleeping` last: when it is marked, all others have finished.
    process = snakemake("--cores", "1", "--keep-going", "all")
    marks = Path(".snakemake/incomplete")
    try:
        wait_for_mark(process, SLEEPING)
        statuses = states("--config", "word=two")
        assert {name: one.state for name, one in statuses.items()} == {
            "finished": "done",
            "noted": "done",
            "broken": "failed",
            "sleeping": "running",
            "late": "missing",
            "old": "outdated",
        }
    finally:
        Path("wake").touch()
        process.wait()
    assert process.returncode == 1 and not any(path.is_file() for path in marks.rglob("*"))
    assert statuses["late"].job.outputs == (LATE,)
    assert statuses["broken"].last_line == "error: the disk is full"
    assert (statuses["finished"].job.mem_mb, statuses["finished"].job.runtime_min) == (500, 7)
    assert statuses["finished"].usage.seconds is not None
    assert statuses["noted"].usage == status.Usage(1.5, 321)
    assert {states()[name].state for name in ("sleeping", "late", "old")} == {"done"}


def test_a_job_that_ends_while_status_plans_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Snakefile").write_text(SNAKEFILE)
    process, plan = snakemake("--cores", "1", SLEEPING), status.dry_run

    def plan_and_wake(*arguments: Any) -> list[status.PlannedJob]:
        planned = plan(*arguments)
        if "--forceall" not in arguments:
            Path("wake").touch()
            assert process.wait() == 0
        return planned

    monkeypatch.setattr(status, "dry_run", plan_and_wake)
    try:
        wait_for_mark(process, SLEEPING)
        assert states()["sleeping"].state == "done"
    finally:
        Path("wake").touch()
        process.wait()


def test_a_submitted_job_without_a_log_of_its_own_is_queued(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    job = status.PlannedJob("train", ("model.safetensors",), (str(log),), (), {})

    def state(when: float, jobid: str | None = "4711", locked: bool = True) -> str:
        return status.state_of(job, True, {"model.safetensors": status.Mark(when, jobid)}, locked)

    assert state(time.time()) == "queued"
    log.write_text("from the attempt before")
    later = time.time() + 60
    assert state(later) == "queued"
    assert state(later, jobid=None) == "running", "a job of this machine is never queued"
    assert state(0.0) == "running"
    assert state(0.0, locked=False) == "failed"


def test_a_mark_distinguishes_submitted_jobs_from_local_ones(tmp_path: Path) -> None:
    for text, jobid in [('{"external_jobid": null}', None), ('{"external_jobid": "7"}', "7")]:
        mark = tmp_path / "mark"
        mark.write_text(text)
        assert status.read_mark(mark) == status.Mark(mark.stat().st_mtime, jobid)
    assert status.read_mark(tmp_path / "gone") == status.Mark(0.0)


def test_the_table_contains_the_request_and_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    job = status.PlannedJob("train", ("m",), ("t.log",), (), {"dataset": "fib25"}, 24000, 60)
    done = status.JobStatus(job, "done", status.Usage(1800.4, 5123.0), "t.log")
    failed = status.JobStatus(job, "failed", log="t.log", last_line="error: out of memory")
    text = "\n".join(status.table([done, failed]))
    assert "1,800 of 3,600" in text and "5,123 of 24,000" in text
    assert "          error: out of memory" in text
    assert text.endswith("1 done, 1 failed")
    assert json.loads(json.dumps(status.as_object(done)))["peak_memory_mb"] == 5123.0


def test_a_target_that_does_not_exist_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Snakefile").write_text(SNAKEFILE)
    with pytest.raises(ConfigError, match="cannot plan 'evaluate_all'"):
        status.job_statuses("evaluate_all", [])
