"""How far the jobs of a target are, why one failed, and what each used of what it asked for.

    python workflow/scripts/status.py evaluate_zfinch_mtlsd [--json] [-- options of the run]

Give the options of the run, `-- --workflow-profile profiles/slurm --config seed=1` for instance:
they decide which jobs there are and what they ask for. Nothing is run or written. The jobs are what
a dry run of Snakemake plans; the rest is read from what they left behind: outputs, logs, manifests,
benchmarks, and Snakemake's marks of jobs at work.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError, run

STATES = ("done", "outdated", "running", "queued", "failed", "missing")
HEADER = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$")
FIELD = re.compile(r"^    (output|log|benchmark|wildcards|threads|resources): (.*)$")
CLUSTER_LOGS = Path("logs/slurm")
TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class Job:
    """A job as a dry run plans it, with the memory (MB) and time (minutes) that it asks for."""

    rule: str
    outputs: tuple[str, ...]
    logs: tuple[str, ...]
    benchmarks: tuple[str, ...]
    wildcards: dict[str, str]
    mem_mb: float | None = None
    runtime_min: float | None = None


@dataclass(frozen=True)
class Usage:
    """What a finished job used: wall-clock seconds, and its peak of resident memory in MB."""

    seconds: float | None = None
    peak_memory_mb: float | None = None


@dataclass
class Report:
    """One line of the table."""

    job: Job
    state: str
    usage: Usage = field(default_factory=Usage)
    log: str | None = None
    last_line: str | None = None
    cluster_log: str | None = None


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", help="as for snakemake, e.g. evaluate_zfinch_mtlsd")
    parser.add_argument("--json", action="store_true", help="one JSON object a job and line")
    parser.add_argument("options", nargs="*", help="the run's options, after `--`")
    return parser.parse_args(argv)


# ---------------------------------------------------------------- what Snakemake plans


def dry_run(target: str, options: Sequence[str], *more: str) -> str:
    """What `snakemake TARGET --dry-run` prints; ConfigError with its last lines where it fails."""
    command = [sys.executable, "-m", "snakemake", target, "--dry-run", "--rerun-incomplete"]
    done = subprocess.run([*command, *more, *options], text=True, capture_output=True, check=False)
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-6:])
        raise ConfigError(f"snakemake cannot plan {target!r} with these options:\n{last}")
    return done.stdout + done.stderr


def blocks(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Rule and fields of each job that a dry run prints."""
    rule, fields = "", dict[str, str]()
    for line in [*text.splitlines(), ""]:
        header, entry = HEADER.match(line), FIELD.match(line)
        if entry and rule:
            fields[entry[1]] = entry[2]
        elif not line.startswith("    "):
            if rule:
                yield rule, fields
            rule, fields = (header[1] if header else ""), {}


def names(text: str | None) -> tuple[str, ...]:
    """Files as Snakemake lists them, without what it says of one in brackets."""
    return tuple(part.split(" (")[0] for part in text.split(", ")) if text else ()


def pairs(text: str | None) -> dict[str, str]:
    """`a=1, b=2` as a mapping."""
    return dict(part.split("=", 1) for part in (text or "").split(", ") if "=" in part)


def number(text: str | None) -> float | None:
    """A number, None for what is known only when the job starts."""
    return float(text) if text and re.fullmatch(r"[0-9.]+", text) else None


def parse_jobs(text: str) -> list[Job]:
    """The jobs that have outputs, in the order in which Snakemake would run them."""
    jobs = []
    for rule, fields in blocks(text):
        asked = pairs(fields.get("resources"))
        if "output" in fields:
            jobs.append(
                Job(
                    rule=rule,
                    outputs=names(fields["output"]),
                    logs=names(fields.get("log")),
                    benchmarks=names(fields.get("benchmark")),
                    wildcards=pairs(fields.get("wildcards")),
                    mem_mb=number(asked.get("mem_mb")),
                    runtime_min=number(asked.get("runtime")),
                )
            )
    return jobs


# ---------------------------------------------------------------- what the jobs left


@dataclass(frozen=True)
class Mark:
    """When (seconds) a job was started here or submitted, and a cluster's number for it."""

    time: float
    external_jobid: str | None = None


def read_mark(path: Path) -> Mark:
    """What a mark says. Snakemake may just be writing it, or have taken it away."""
    try:
        text = path.read_text()
        return Mark(path.stat().st_mtime, json.loads(text)["external_jobid"] if text else None)
    except FileNotFoundError:
        return Mark(0.0)


def marked_outputs(folder: Path = Path(".snakemake")) -> dict[str, Mark]:
    """Outputs of jobs that were started or submitted and not heard of since, with their marks.

    Snakemake keeps one file for each, whose path is the output's in base64, cut into folders.
    """
    marked = {}
    root = folder / "incomplete"
    # os.walk, since Snakemake takes folders away meanwhile, which Path.rglob does not bear.
    for path in (Path(place, name) for place, _, files in os.walk(root) for name in files):
        parts = [part.removeprefix("@") for part in path.relative_to(root).parts]
        with suppress(ValueError):  # a file of another kind is no mark
            marked[urlsafe_b64decode("".join(parts)).decode()] = read_mark(path)
    return marked


def at_work(folder: Path = Path(".snakemake")) -> bool:
    """Whether a Snakemake holds the working directory (or was killed and left its lock)."""
    with suppress(FileNotFoundError):
        return any((folder / "locks").iterdir())
    return False


def is_waiting(mark: Mark, log: Path | None) -> bool:
    """Whether a cluster's job has not begun: it is marked when submitted, and logs when it runs.

    A job of this machine is marked just after its start, perhaps later than its log.
    """
    begun = log is not None and log.is_file() and log.stat().st_mtime >= mark.time
    return mark.external_jobid is not None and not begun


def state_of(job: Job, planned: bool, marked: dict[str, Mark], locked: bool) -> str:
    """One of STATES. `planned`: the next run would run the job; `locked`: a run is under way."""
    started = [marked[o] for o in job.outputs if o in marked]
    log = Path(job.logs[0]) if job.logs else None
    has_log = log is not None and log.is_file()
    if started and locked:
        return "queued" if any(is_waiting(mark, log) for mark in started) else "running"
    if not started and all(Path(o).exists() for o in job.outputs):
        return "outdated" if planned else "done"
    return "failed" if has_log or started else "missing"


def benchmark_usage(path: Path) -> Usage:
    """Seconds and peak memory of the last run in a benchmark file (one JSON object a line)."""
    last = json.loads(path.read_text().splitlines()[-1])
    return Usage(number(str(last["s"])), number(str(last["max_rss"])))


def manifest_usage(outputs: Sequence[str]) -> Usage:
    """The same from the manifest among a job's outputs."""
    for path in (Path(o) for o in outputs if o.endswith(".manifest.json")):
        content = json.loads(path.read_text())
        return Usage(content.get("seconds"), content.get("peak_memory_mb"))
    return Usage()


def usage_of(job: Job) -> Usage:
    """What a finished job used, as far as it left word of it."""
    for path in map(Path, job.benchmarks):
        if path.is_file() and path.stat().st_size:
            return benchmark_usage(path)
    return manifest_usage(job.outputs)


def last_line(path: Path) -> str | None:
    """The last line of a log that says something."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]", text)]
    return next((line for line in reversed(lines) if line), None)


def cluster_log(job: Job, folder: Path = CLUSTER_LOGS) -> str | None:
    """SLURM's own log of the job's last attempt, where there is one."""
    place = folder / f"rule_{job.rule}" / "_".join(job.wildcards.values())
    logs = sorted(place.glob("*.log"), key=lambda path: path.stat().st_mtime)
    return str(logs[-1]) if logs else None


def report(job: Job, state: str) -> Report:
    """A job's line of the table."""
    found = Report(job, state, log=job.logs[0] if job.logs else None)
    if state in ("done", "outdated"):
        found.usage = usage_of(job)
    if state == "failed":
        log = Path(found.log) if found.log else None
        found.last_line = last_line(log) if log and log.is_file() else None
        found.cluster_log = cluster_log(job)
    return found


def reports(target: str, options: Sequence[str]) -> list[Report]:
    """All jobs of a target."""
    every = parse_jobs(dry_run(target, options, "--forceall"))
    before = marked_outputs()
    planned = {job.outputs for job in parse_jobs(dry_run(target, options))}
    marked, locked = marked_outputs(), at_work()
    # What ended meanwhile was planned while it was at work.
    planned -= {job.outputs for job in every if (before.keys() - marked) & set(job.outputs)}
    return [report(j, state_of(j, j.outputs in planned, marked, locked)) for j in every]


# ---------------------------------------------------------------- how it is shown


def share(used: float | None, asked: float | None) -> str:
    """`USED of ASKED`, with a dash for what nobody noted."""
    return " of ".join("-" if value is None else f"{value:,.0f}" for value in (used, asked))


def table(found: Sequence[Report]) -> list[str]:
    """A line a job, the failed ones' last words after it, and how many there are of each state."""
    line = "{:<9} {:<17} {:<36} {:>18} {:>18}  {}".format
    lines = [line("state", "rule", "of", "s (of asked)", "MB (of asked)", "log").rstrip()]
    for one in found:
        job, asked = one.job, one.job.runtime_min
        lines.append(
            line(
                one.state,
                job.rule,
                " ".join(job.wildcards.values()),
                share(one.usage.seconds, None if asked is None else asked * 60),
                share(one.usage.peak_memory_mb, job.mem_mb),
                one.log or "",
            )
        )
        if one.state == "failed":
            lines.append(f"          {one.last_line or 'its log says nothing'}")
            lines += [f"          cluster: {one.cluster_log}"] if one.cluster_log else []
    counts = Counter(one.state for one in found)
    return [*lines, "", ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s])]


def as_object(one: Report) -> dict[str, Any]:
    """A report as one flat JSON object."""
    content = asdict(one)
    return content.pop("job") | content.pop("usage") | content


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    found = reports(args.target, args.options)
    print(
        "\n".join(json.dumps(as_object(o)) for o in found) if args.json else "\n".join(table(found))
    )


if __name__ == "__main__":
    run(main)
