"""The jobs of a target, from a dry run of Snakemake, and what finished ones have used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError
from retrace.planning.program_files import SCRIPTS
from retrace.replacement import MANIFEST

JOBS_FILE = "RETRACE_PLANNED_JOBS"
"""The variable of the environment that names the file of the logger `planned-jobs`."""


@dataclass(frozen=True)
class PlannedJob:
    """A job of a dry run, with the memory (MB), time (minutes), cores and GPUs that it requests."""

    rule: str
    outputs: tuple[str, ...]
    logs: tuple[str, ...]
    benchmarks: tuple[str, ...]
    wildcards: dict[str, str]
    mem_mb: float | None = None
    runtime_min: float | None = None
    threads: int = 1
    gpus: int = 0
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Usage:
    """What a finished job used: wall-clock seconds and peak resident memory, MB."""

    seconds: float | None = None
    peak_memory_mb: float | None = None


def dry_run(
    target: str, options: Sequence[str], *more: str, environment: Mapping[str, str] | None = None
) -> list[PlannedJob]:
    """The jobs of `snakemake TARGET --dry-run` with outputs, in the order of their run.

    ConfigError with the last lines of its output if it fails. `environment`: added to that of this
    program.
    """
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--rerun-incomplete"]
    logger = ["--logger", "planned-jobs"]  # the last one counts, so that of `options` does not
    path = os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "jobs.jsonl"
        done = subprocess.run(
            [*command, *more, *options, *logger, "--", target],
            env={**os.environ, **(environment or {}), "PYTHONPATH": path, JOBS_FILE: str(file)},
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-6:])
            raise ConfigError(f"snakemake cannot plan {target!r} with these options:\n{last}")
        lines = file.read_text().splitlines() if file.exists() else []
    jobs = [_job(json.loads(line)) for line in lines]
    return [job for job in jobs if job.outputs]


def _job(fields: Mapping[str, Any]) -> PlannedJob:
    """A job from a line of the logger."""
    requested = fields["resources"]
    return PlannedJob(
        rule=fields["rule"],
        outputs=tuple(fields["outputs"]),
        logs=tuple(fields["logs"]),
        benchmarks=tuple(fields["benchmarks"]),
        wildcards=fields["wildcards"],
        mem_mb=requested.get("mem_mb"),
        runtime_min=requested.get("runtime"),
        threads=fields["threads"],
        gpus=int(requested.get("gpu") or 0),
        inputs=tuple(fields["inputs"]),
    )


# ---------------------------------------------------------------- finished jobs


def benchmark_usage(path: Path) -> Usage:
    """Seconds and peak memory of the last run in a benchmark file (one JSON object per line)."""
    last = json.loads(path.read_text().splitlines()[-1])
    return Usage(_number(last["s"]), _number(last["max_rss"]))


def _number(value: Any) -> float | None:
    """A number, also one in text; None for other text, such as `-` or `NA`."""
    text = str(value)
    return float(text) if re.fullmatch(r"[0-9.]+", text) else None


def manifest_usage(outputs: Sequence[str]) -> Usage:
    """Seconds and peak memory from the manifest among a job's outputs."""
    for path in (Path(o) for o in outputs if o.endswith(MANIFEST)):
        content = json.loads(path.read_text())
        return Usage(content.get("seconds"), content.get("peak_memory_mb"))
    return Usage()


def usage_of(job: PlannedJob) -> Usage:
    """What a finished job used, as far as its benchmark or manifest says so."""
    for path in map(Path, job.benchmarks):
        if path.is_file() and path.stat().st_size:
            return benchmark_usage(path)
    return manifest_usage(job.outputs)
