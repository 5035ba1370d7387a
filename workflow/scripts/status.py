"""Shows the state of each job of a target, why jobs failed, and their use of resources.

    python workflow/scripts/status.py evaluate_zfinch_mtlsd [--json] [-- options of the run]

Repeat the options of the run, such as `-- --workflow-profile profiles/slurm --config seed=1`: they
decide which jobs there are and which resources they request. Nothing is run or written. The jobs
come from a dry run of Snakemake; their state comes from outputs, logs, manifests, benchmarks, and
the files in which Snakemake marks unfinished jobs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retrace.command_line import parse_with_options, target_parser
from retrace.errors import run
from retrace.planning.planned_jobs import PlannedJob, Usage, dry_run, usage_of

STATES = ("done", "outdated", "running", "queued", "failed", "missing")
CLUSTER_LOGS = Path("logs/slurm")
TAIL_BYTES = 1 << 16


@dataclass
class JobStatus:
    """One line of the table; `last_line` and `cluster_log` are set for failed jobs only."""

    job: PlannedJob
    state: str
    usage: Usage = field(default_factory=Usage)
    log: str | None = None
    last_line: str | None = None
    cluster_log: str | None = None


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    return parse_with_options(target_parser(__doc__), argv)


# ---------------------------------------------------------------- their states


@dataclass(frozen=True)
class Mark:
    """When a job was started or submitted (seconds since 1970), and its number on the cluster."""

    time: float
    external_jobid: str | None = None


def read_mark(path: Path) -> Mark:
    """Reads a mark, which Snakemake may be writing or may just have removed."""
    try:
        text = path.read_text()
        return Mark(path.stat().st_mtime, json.loads(text)["external_jobid"] if text else None)
    except FileNotFoundError:
        return Mark(0.0)


def marked_outputs(folder: Path = Path(".snakemake")) -> dict[str, Mark]:
    """The marks of jobs that were started or submitted and have not finished, by output.

    Snakemake keeps one file per output, whose path is the output's path in base64.
    """
    marked = {}
    root = folder / "incomplete"
    # os.walk, because Path.rglob fails when Snakemake removes a folder at the same time.
    for path in (Path(parent, name) for parent, _, files in os.walk(root) for name in files):
        parts = [part.removeprefix("@") for part in path.relative_to(root).parts]
        with suppress(ValueError):  # not a mark
            marked[urlsafe_b64decode("".join(parts)).decode()] = read_mark(path)
    return marked


def is_locked(folder: Path = Path(".snakemake")) -> bool:
    """Whether Snakemake has locked the working directory; a killed one leaves its lock."""
    with suppress(FileNotFoundError):
        return any((folder / "locks").iterdir())
    return False


def is_waiting(mark: Mark, log: Path | None) -> bool:
    """Whether a cluster job is still queued: marked when it was submitted, without a newer log.

    A local job is never waiting: its mark may be written after its log.
    """
    begun = log is not None and log.is_file() and log.stat().st_mtime >= mark.time
    return mark.external_jobid is not None and not begun


def state_of(job: PlannedJob, planned: bool, marked: dict[str, Mark], locked: bool) -> str:
    """One of STATES. `planned`: a run would run the job; `locked`: Snakemake is running."""
    started = [marked[o] for o in job.outputs if o in marked]
    log = Path(job.logs[0]) if job.logs else None
    has_log = log is not None and log.is_file()
    if started and locked:
        return "queued" if any(is_waiting(mark, log) for mark in started) else "running"
    if not started and all(Path(o).exists() for o in job.outputs):
        return "outdated" if planned else "done"
    return "failed" if has_log or started else "missing"


def last_line(path: Path) -> str | None:
    """The last line of a log that is not empty."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]", text)]
    return next((line for line in reversed(lines) if line), None)


def cluster_log(job: PlannedJob, folder: Path = CLUSTER_LOGS) -> str | None:
    """SLURM's log of the job's last attempt, None if there is none."""
    job_folder = folder / f"rule_{job.rule}" / "_".join(job.wildcards.values())
    logs = sorted(job_folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
    return str(logs[-1]) if logs else None


def job_status(job: PlannedJob, state: str) -> JobStatus:
    """The table's line for a job in one of STATES."""
    status = JobStatus(job, state, log=job.logs[0] if job.logs else None)
    if state in ("done", "outdated"):
        status.usage = usage_of(job)
    if state == "failed":
        log = Path(status.log) if status.log else None
        status.last_line = last_line(log) if log and log.is_file() else None
        status.cluster_log = cluster_log(job)
    return status


def job_statuses(target: str, options: Sequence[str]) -> list[JobStatus]:
    """All jobs of a target with their states; ConfigError if Snakemake cannot plan it."""
    jobs = dry_run(target, options, "--forceall")
    marked_before = marked_outputs()
    planned = {job.outputs for job in dry_run(target, options)}
    marked, locked = marked_outputs(), is_locked()
    # A job that finished during the dry run was planned because it was still running.
    planned -= {job.outputs for job in jobs if (marked_before.keys() - marked) & set(job.outputs)}
    return [job_status(j, state_of(j, j.outputs in planned, marked, locked)) for j in jobs]


# ---------------------------------------------------------------- output


def used_of_requested(used: float | None, requested: float | None) -> str:
    """`USED of REQUESTED`, with a dash for unknown values."""
    return " of ".join("-" if value is None else f"{value:,.0f}" for value in (used, requested))


def table(statuses: Sequence[JobStatus]) -> list[str]:
    """One line per job, followed by the error of a failed one, and the number of jobs per state."""
    line = "{:<9} {:<17} {:<36} {:>18} {:>18}  {}".format
    lines = [line("state", "rule", "of", "s (of requested)", "MB (of requested)", "log").rstrip()]
    for status in statuses:
        job, runtime_min = status.job, status.job.runtime_min
        lines.append(
            line(
                status.state,
                job.rule,
                " ".join(job.wildcards.values()),
                used_of_requested(
                    status.usage.seconds, None if runtime_min is None else runtime_min * 60
                ),
                used_of_requested(status.usage.peak_memory_mb, job.mem_mb),
                status.log or "",
            )
        )
        if status.state == "failed":
            lines.append(f"          {status.last_line or 'its log is empty'}")
            lines += [f"          cluster: {status.cluster_log}"] if status.cluster_log else []
    counts = Counter(status.state for status in statuses)
    return [*lines, "", ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s])]


def as_object(status: JobStatus) -> dict[str, Any]:
    """A job's status as one flat JSON object."""
    content = asdict(status)
    return content.pop("job") | content.pop("usage") | content


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table, or with --json one object per job."""
    args = parse_args(argv)
    statuses = job_statuses(args.target, args.options)
    lines = [json.dumps(as_object(s)) for s in statuses] if args.json else table(statuses)
    print("\n".join(lines))


if __name__ == "__main__":
    run(main)
