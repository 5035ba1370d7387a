"""Prints what a target costs before it runs: jobs, GPU and core hours, bytes, files, longest chain.

    python workflow/scripts/cost.py train_zfinch_mtlsd [--ask] [--json] [-- options of the run]

Repeat the options of the run, such as `-- --workflow-profile profiles/slurm --config seed=1`: they
decide which jobs there are, and whether they may use a GPU. Nothing is run or written. Jobs come
from a dry run of Snakemake. What they take follows from earlier jobs in this folder, or else from
config/rates.yaml; what neither knows is `unknown`, and the job then requests what its rule states.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from retrace.command_line import parse_with_options, target_parser
from retrace.errors import run
from retrace.files import human_bytes
from retrace.planning.estimator import ESTIMATES_FILE
from retrace.planning.local_device import names_executor
from retrace.planning.planned_jobs import PlannedJob, Usage, dry_run, usage_of
from retrace.replacement import MANIFEST

UNKNOWN = "unknown"
MANY_CORES = ("--cores", "1000000")
NO_RATE = "unknown: jobs of this rule are not measured"


@dataclass(frozen=True)
class JobCost:
    """A job of a target: done or to do, its estimate, and what it has used if it is done."""

    job: PlannedJob
    is_done: bool
    seconds: float | None = None
    on_gpu: bool = False
    source: str = NO_RATE
    fetched_bytes: float | None = None
    fetched_files: int | None = None
    written_bytes: float | None = None
    written_files: float | None = None
    used: Usage = Usage()  # noqa: RUF009  it is immutable

    @property
    def gpu_hours(self) -> float | None:
        """Hours on GPUs, 0 for a job that uses none."""
        if not self.job.gpus or not self.on_gpu:
            return 0.0
        return None if self.seconds is None else self.job.gpus * self.seconds / 3600

    @property
    def core_hours(self) -> float | None:
        """Hours on all cores that the job requests."""
        return None if self.seconds is None else self.job.threads * self.seconds / 3600


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    ask = ("--ask", "ask the bucket how much there is to fetch")
    return parse_with_options(target_parser(__doc__, ask), argv)


# ---------------------------------------------------------------- jobs and their estimates


def planned_costs(target: str, options: Sequence[str], *, ask: bool = False) -> list[JobCost]:
    """The costs of all jobs of a target; ConfigError if Snakemake cannot plan it.

    `ask`: whether the bucket is asked for the sizes of what is to be fetched.
    """
    # A dry run for a cluster plans each job for one core, unless it may have many.
    options = [*MANY_CORES, *options] if names_executor(options) else options
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "estimates.jsonl"
        environment = {ESTIMATES_FILE: str(file)}
        jobs = dry_run(target, options, "--forceall", environment=environment)
        noted = read_estimates(file)
    planned = {job.outputs for job in dry_run(target, options)}
    costs = []
    for job in jobs:
        is_done = job.outputs not in planned and all(Path(o).exists() for o in job.outputs)
        costs.append(cost_of(job, is_done, noted.get(key_of(job.rule, job.wildcards)), ask))
    return costs


def key_of(rule: str, wildcards: Mapping[str, str]) -> tuple[Any, ...]:
    """What names a job: its rule and its wildcards."""
    return rule, tuple(sorted(wildcards.items()))


def read_estimates(file: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The estimates that a dry run has noted, by `key_of`."""
    lines = file.read_text().splitlines() if file.exists() else []
    notes = [json.loads(line) for line in lines]
    return {key_of(note["rule"], note["wildcards"]): note for note in notes}


def cost_of(job: PlannedJob, is_done: bool, note: Mapping[str, Any] | None, ask: bool) -> JobCost:
    """What one job costs, or has used."""
    if is_done:
        count, total = on_disk(job.outputs)
        return JobCost(
            job, True, used=usage_of(job), written_bytes=total, written_files=count, source=""
        )
    if note is None:
        return JobCost(job, False, on_gpu=job.gpus > 0)
    known, work = note["estimate"], note["work"]
    cost = JobCost(
        job,
        False,
        known["seconds"],
        known["on_gpu"],
        known["source"],
        written_bytes=work["written_bytes"],
        written_files=work["written_files"],
    )
    if ask and "prefix" in note.get("fetched", {}):
        count, total = listed(note["fetched"])
        each = known["per_unit_s"]
        seconds = None if each is None else each * total
        return replace(cost, seconds=seconds, fetched_files=count, fetched_bytes=total)
    return cost


def listed(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Number and bytes of the objects below a prefix; FetchError if the bucket does not answer."""
    # Imported here: a node that only plans may lack the packages.
    from retrace.remote.mirror import open_store
    from retrace.remote.store import FetchSettings

    sizes = [item.size for item in open_store(FetchSettings(**settings)).objects()]
    return len(sizes), sum(sizes)


def on_disk(outputs: Iterable[str]) -> tuple[int, int]:
    """Number and bytes of the files of outputs, with the stores that their manifests describe."""
    files = {file for output in outputs for path in described(Path(output)) for file in below(path)}
    return len(files), sum(file.stat().st_size for file in files)


def described(output: Path) -> Iterator[Path]:
    """An output and, of a manifest, the store next to it."""
    yield output
    if output.name.endswith(MANIFEST):
        yield output.with_name(json.loads(output.read_text()).get("store", output.name))


def below(path: Path) -> Iterator[Path]:
    """A file, or all files of a folder."""
    yield from (p for p in path.rglob("*") if p.is_file()) if path.is_dir() else (path,)


# ---------------------------------------------------------------- sums


def known_sum(values: Iterable[float | None]) -> tuple[float, int]:
    """The sum of the known values, and how many are unknown."""
    every = list(values)
    return sum(v for v in every if v is not None), sum(v is None for v in every)


def longest_chain(costs: Sequence[JobCost]) -> list[JobCost]:
    """The jobs that wait for each other and together take longest; unknown ones count as 0."""
    waiting = {i: one for i, one in enumerate(costs) if not one.is_done}
    writer = {output: i for i, one in waiting.items() for output in one.job.outputs}
    before = {
        i: {writer[name] for name in one.job.inputs if name in writer} - {i}
        for i, one in waiting.items()
    }
    chains: dict[int, tuple[float, list[int]]] = {}
    for i in TopologicalSorter(before).static_order():
        seconds, chain = max((chains[j] for j in before[i]), default=(0.0, []), key=weight)
        chains[i] = seconds + (waiting[i].seconds or 0.0), [*chain, i]
    longest = max(chains.values(), default=(0.0, []), key=weight)[1]
    return [waiting[i] for i in longest]


def weight(chain: tuple[float, list[int]]) -> tuple[float, int]:
    """Seconds, and of equally long chains the number of jobs."""
    return chain[0], len(chain[1])


# ---------------------------------------------------------------- output


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, with two digits."""
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if (count := seconds / length) >= 2:
            return f"{count:,.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
    return f"{seconds:.0f} s"


def counted(count: int) -> str:
    """`1 job`, `2 jobs`."""
    return f"{count:,} job{'' if count == 1 else 's'}"


def hours(values: Iterable[float | None]) -> str:
    """A sum of hours, `unknown` where none is known, `> 2.0` where some are not."""
    every = list(values)
    total, missing = known_sum(every)
    if missing and not total:
        return UNKNOWN
    digits = f"{total:,.0f}" if total >= 100 else f"{total:.1f}" if total >= 1 else f"{total:.3f}"
    return f"> {digits}" if missing else digits if total else "0"


def by_rule(costs: Iterable[JobCost]) -> dict[str, list[JobCost]]:
    """The jobs of each rule, in their order."""
    rules: dict[str, list[JobCost]] = {}
    for one in costs:
        rules.setdefault(one.job.rule, []).append(one)
    return rules


def work_table(costs: Sequence[JobCost]) -> Iterator[str]:
    """One line for each rule that is to run, and one with their sums."""
    line = "{:<24} {:>6} {:>10} {:>12} {:>13}  {}".format
    yield line("to do", "jobs", "GPU hours", "core hours", "longest job", "each requests")
    for rule, ones in by_rule(costs).items():
        seconds = [one.seconds for one in ones if one.seconds is not None]
        longest = duration(max(seconds)) if len(seconds) == len(ones) else UNKNOWN
        gpu, core = hours(o.gpu_hours for o in ones), hours(o.core_hours for o in ones)
        yield line(rule, len(ones), gpu, core, longest, request(ones))
    gpu, core = hours(o.gpu_hours for o in costs), hours(o.core_hours for o in costs)
    yield line("together", len(costs), gpu, core, "", "").rstrip()


def request(costs: Sequence[JobCost]) -> str:
    """The most that a job of a rule requests: time, memory, cores, GPUs."""
    minutes = [one.job.runtime_min for one in costs if one.job.runtime_min is not None]
    memory = [one.job.mem_mb for one in costs if one.job.mem_mb is not None]
    job = costs[0].job
    parts = [f"{max(minutes):,.0f} min"] if minutes else []
    parts += [f"{max(memory):,.0f} MB"] if memory else []
    parts += [f"{job.threads} core{'s' if job.threads > 1 else ''}"]
    return ", ".join([*parts, f"{job.gpus} GPU"] if job.gpus else parts)


def sources(costs: Sequence[JobCost]) -> Iterator[str]:
    """Where the times of each rule are from, once for each source."""
    yield "from"
    for rule, ones in by_rule(costs).items():
        for source in dict.fromkeys(one.source for one in ones):
            yield f"  {rule}: {source}"


def chain_lines(costs: Sequence[JobCost]) -> Iterator[str]:
    """The longest chain: the shortest time for all, however many nodes there are."""
    chain = longest_chain(costs)
    total, missing = known_sum(one.seconds for one in chain)
    bound = "longer than " if missing else "at least "
    steps = [f"{o.job.rule}{'' if o.seconds is not None else ' (unknown)'}" for o in chain]
    yield f"longest chain: {bound}{duration(total)}: {' → '.join(steps)}"


def data_lines(costs: Sequence[JobCost]) -> Iterator[str]:
    """Bytes and files that are to be fetched and written, as far as they are known."""
    yield fetch_line([one for one in costs if one.job.rule.startswith("fetch")])
    for what, text in (
        ("written_bytes", human_bytes),
        ("written_files", "{:,.0f} files of voxels".format),
    ):
        writing = [one for one in costs if getattr(one, what) is not None]
        if writing:
            total, _ = known_sum(getattr(one, what) for one in writing)
            yield f"to write: at most {text(total)} by {', '.join(by_rule(writing))}"
    if others := [one for one in costs if one.written_bytes is None]:
        yield f"to write: {UNKNOWN} sizes by {', '.join(by_rule(others))}"


def fetch_line(costs: Sequence[JobCost]) -> str:
    """Bytes and objects that are to be fetched."""
    total, missing = known_sum(one.fetched_bytes for one in costs)
    files, _ = known_sum(one.fetched_files for one in costs)
    known = [f"{human_bytes(total)} in {files:,.0f} objects"] if missing < len(costs) else []
    unknown = [f"{UNKNOWN} for {counted(missing)} (--ask asks the bucket)"] if missing else []
    return f"to fetch: {', '.join([*known, *unknown]) or 'nothing'}"


def done_line(costs: Sequence[JobCost]) -> str:
    """What is there already: jobs, their time, bytes, files."""
    seconds, missing = known_sum(one.used.seconds for one in costs)
    total, _ = known_sum(one.written_bytes for one in costs)
    files, _ = known_sum(one.written_files for one in costs)
    if not costs:
        return "there already: nothing"
    more = f" ({missing} of them without a record of their time)" if missing else ""
    took = f"{counted(len(costs))} of {duration(seconds)} together{more}"
    return f"there already: {took}, {human_bytes(total)} in {files:,.0f} files"


def report(target: str, costs: Sequence[JobCost]) -> Iterator[str]:
    """All lines that are printed for a target."""
    to_do = [one for one in costs if not one.is_done]
    done = [one for one in costs if one.is_done]
    yield f"{target}: {counted(len(costs))}, {len(to_do)} to do"
    yield ""
    if to_do:
        yield from work_table(to_do)
        yield ""
        yield from chain_lines(to_do)
        yield from data_lines(to_do)
    yield done_line(done)
    if to_do:
        yield ""
        yield from sources(to_do)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the report, or with --json one object per job."""
    args = parse_args(argv)
    costs = planned_costs(args.target, args.options, ask=args.ask)
    if args.json:
        lines = [json.dumps(asdict(one)) for one in costs]
    else:
        lines = list(report(args.target, costs))
    print("\n".join(lines))


if __name__ == "__main__":
    run(main)
