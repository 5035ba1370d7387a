"""The jobs of a target as a dry run of Snakemake prints them, and what finished ones have used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrace.errors import ConfigError
from retrace.replacement import MANIFEST

HEADER = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$")
FIELD = re.compile(r"^    (input|output|log|benchmark|wildcards|threads|resources): (.*)$")


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
) -> str:
    """The output of `snakemake TARGET --dry-run`; ConfigError with its last lines if it fails.

    `environment`: added to that of this program.
    """
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--rerun-incomplete", *more]
    done = subprocess.run(
        [*command, *options, "--", target],
        env={**os.environ, **(environment or {})},
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-6:])
        raise ConfigError(f"snakemake cannot plan {target!r} with these options:\n{last}")
    return done.stdout + done.stderr


def printed_jobs(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The rule and the printed fields of each job of a dry run."""
    rule, fields = "", dict[str, str]()
    for line in [*text.splitlines(), ""]:
        header, entry = HEADER.match(line), FIELD.match(line)
        if entry and rule:
            fields[entry[1]] = entry[2]
        elif not line.startswith("    "):
            if rule:
                yield rule, fields
            rule, fields = (header[1] if header else ""), {}


def file_names(text: str | None) -> tuple[str, ...]:
    """The files in a list printed by Snakemake, without its remarks in brackets."""
    return tuple(part.split(" (")[0] for part in text.split(", ")) if text else ()


def key_values(text: str | None) -> dict[str, str]:
    """`a=1, b=2` as a dict."""
    return dict(part.split("=", 1) for part in (text or "").split(", ") if "=" in part)


def parse_number(text: str | None) -> float | None:
    """A number, None for other text, such as a resource that is known only when the job starts."""
    return float(text) if text and re.fullmatch(r"[0-9.]+", text) else None


def parse_jobs(text: str) -> list[PlannedJob]:
    """The jobs with outputs, in the order in which Snakemake would run them."""
    jobs = []
    for rule, fields in printed_jobs(text):
        requested = key_values(fields.get("resources"))
        if "output" in fields:
            jobs.append(
                PlannedJob(
                    rule=rule,
                    outputs=file_names(fields["output"]),
                    logs=file_names(fields.get("log")),
                    benchmarks=file_names(fields.get("benchmark")),
                    wildcards=key_values(fields.get("wildcards")),
                    mem_mb=parse_number(requested.get("mem_mb")),
                    runtime_min=parse_number(requested.get("runtime")),
                    threads=int(parse_number(fields.get("threads")) or 1),
                    gpus=int(parse_number(requested.get("gpu")) or 0),
                    inputs=file_names(fields.get("input")),
                )
            )
    return jobs


# ---------------------------------------------------------------- finished jobs


def benchmark_usage(path: Path) -> Usage:
    """Seconds and peak memory of the last run in a benchmark file (one JSON object per line)."""
    last = json.loads(path.read_text().splitlines()[-1])
    return Usage(parse_number(str(last["s"])), parse_number(str(last["max_rss"])))


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
