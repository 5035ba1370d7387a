"""Results that are not what the workflow would compute now are computed again; no rules here.

Snakemake's own triggers (times of files, its memory of earlier runs) are off. Planning compares the record of
every result with its inputs, settings, code and image, and marks the outputs of jobs whose results differ.
"""

from retrace.planning.code_digest import code_digests
from retrace.planning.foreign_files import WrittenFiles
from retrace.planning.identity import AGAIN, FORCED, Comparison
from retrace.planning.named_runs import NamedRuns
from retrace.planning.records import planned_record, record_file, record_next_to
from retrace.planning.resumption import announce, begin, is_copy
from retrace.planning.train import start_of
from retrace.provenance.folders import code_versions
from retrace.records.record import Planned
from retrace.replacement import MANIFEST

COMPARISON = Comparison(keep_without_files=True)
WRITTEN_FILES = WrittenFiles()
NAMED_RUNS = NamedRuns()
COMPLETE: set[str] = set()
"""Records of the jobs that run and whose files have been looked for."""


@cache
def writers() -> list[Any]:
    """The rules whose programs get a job."""
    return [one for one in workflow.rules if hasattr(one.params.get("job"), "plan_job")]


@cache
def outputs_of(writer: Any, values: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The outputs of a rule for these wildcards."""
    return tuple(str(item.apply_wildcards(dict(values))) for item in writer.output)


@cache
def code_of(writer: Any) -> dict[str, str]:
    """Digests of the program of a rule, and of the library files that it imports."""
    program = Path(str(writer.input.script)).resolve()
    if program.parent.name == "legacy":
        return code_digests(sorted(program.parent.glob("*.py")), ROOT)
    code = code_digests(program_files(program.stem), ROOT)
    # A bundle contains the workflow and the configuration, as they are.
    is_bundle = program.stem == "bundle"
    return code | code_versions(ROOT, Path()) if is_bundle else code


@cache
def accepts(writer: Any, values: tuple[tuple[str, str], ...]) -> bool:
    """Whether a rule has these wildcards and its constraints allow them."""
    allowed = {**workflow.wildcard_constraints, **writer.wildcard_constraints}
    return writer.wildcard_names == dict(values).keys() and all(
        re.fullmatch(allowed.get(name, ".*"), value) for name, value in values
    )


@cache
def is_kept(writer: Any) -> bool:
    """Whether outputs stay: they are neither temporary nor pipes."""
    return not any(item.flags.keys() & {"temp", "pipe"} for item in writer.output)


@cache
def name_ends(writer: Any) -> tuple[tuple[str, str], ...]:
    """What every name of each output starts and ends with; matching a whole name takes longer."""
    names = [str(item) for item in writer.output]
    return tuple((name.partition("{")[0], name.rpartition("}")[2]) for name in names)


@cache
def planned_identity(writer: Any, values: tuple[tuple[str, str], ...]) -> Planned:
    """What decides the results of a rule for these wildcards."""
    job = planned(writer.params.job.plan_job)(dict(values))
    identity = planned_record(
        job,
        record=record_file(outputs_of(writer, values), kept=is_kept(writer)),
        outputs=outputs_of(writer, values) if is_kept(writer) else (),
        code=code_of(writer),
        image=Path(str(writer.container_img)).name if uses_containers() else None,
        producer=producer,
    )
    if is_forced(writer, values):
        COMPARISON.forced.add(identity.record)
    return identity


def is_forced(writer: Any, values: tuple[tuple[str, str], ...]) -> bool:
    """Whether --force, --forcerun or --forceall name the outputs of a rule for these wildcards."""
    files = workflow.dag.forcefiles
    return writer in workflow.dag.forcerules or not files.isdisjoint(
        outputs_of(writer, values)
    )


def writes(writer: Any, path: str) -> bool:
    """Whether a rule has this output; most names differ at their start or end."""
    ends = name_ends(writer)
    may_match = any(path.startswith(a) and path.endswith(b) for a, b in ends)
    return may_match and writer.is_producer(path)


@cache
def declared_output(path: str) -> str:
    """What stands for a file in the rules: the manifest or record of a store, all else itself.

    Stores are no outputs, because Snakemake removes outputs before a job runs.
    """
    if path.endswith(".zarr") or not Path(path).suffix:
        for name in (manifest(path), record_next_to(path)):
            if any(writes(writer, name) for writer in writers()):
                return name
    return path


@cache
def producer(path: str) -> Planned | None:
    """The identity of the job that writes a file or a store; None if no job writes it."""
    name = declared_output(path)
    for writer in writers():
        if writes(writer, name):
            values = tuple(sorted(writer.get_wildcards(name).items()))
            return planned_identity(writer, values)
    return None


def as_input(path: str, *, runs: bool) -> Any:
    """An input of a job; its time counts only if it is computed again, and the job `runs` then."""
    job, declared = producer(path), declared_output(path)
    if job is None:
        return ancient(declared)
    again = refusing(COMPARISON.reason, job, producer)
    # Snakemake does not run a marked job if one of its inputs is computed, and its time is ignored.
    return (
        declared
        if again or (runs and job.record in COMPARISON.needed)
        else ancient(declared)
    )


def first_named(paths: list[str], shown: set[str]) -> list[str]:
    """The paths whose inputs are not `shown` yet: Snakemake lists each file once, not once for each role."""
    new = {declared_output(path): path for path in reversed(paths)}
    kept = [path for name, path in reversed(new.items()) if name not in shown]
    shown.update(new)
    return kept


def mark_missing(path: str) -> None:
    """Marks the job of a store or file that is gone, and those that this job needs.

    For what is requested, or read by a job that runs. Other files may be gone: nothing is computed.
    """
    job = producer(path)
    if job is None or job.record in COMPARISON.needed:
        return
    gone = refusing(COMPARISON.missing, job, path)
    if gone is not None:
        refusing(COMPARISON.check_replaceable, job)
        print(f"{gone}{AGAIN}: it is missing", file=sys.stderr)
        COMPARISON.needed.add(job.record)
        workflow.dag.forcefiles.update(job.outputs)
        for read in job.reads:
            mark_missing(read)


def refuse_missing(path: str) -> None:
    """Ends a run that needs a file which is not there and which no rule writes.

    Snakemake would name the rule that reads it, and not what the user has to provide.
    """
    job = producer(path)
    if job is None and not Path(path).exists() and not is_written(path):
        refuse(PLANNER.missing_file(path))
    if job is None or job.record in COMPLETE or not will_run(path, job):
        return
    COMPLETE.add(job.record)
    refusing(PLANNER.check_download, path)
    for read in (*job.own, *job.produced):
        if not is_copy(read):
            refuse_missing(read)


def is_written(path: str) -> bool:
    """Whether any rule writes a file; images are written by rules without a job."""
    return any(one.is_producer(path) for one in workflow.rules)


def will_run(path: str, job: Planned) -> bool:
    """Whether a job whose output is needed runs."""
    is_there = Path(declared_output(path)).exists()
    needed = job.record in COMPARISON.needed
    return not is_there or needed or bool(refusing(COMPARISON.reason, job, producer))


def mark_outdated(plan_job: PlanJob, wildcards: Any) -> bool:
    """Marks the outputs of a job to be computed again if they are not current.

    Returns whether the job runs, or would run if its missing outputs were needed.
    """
    workflow.dag_settings.rerun_triggers = frozenset()
    if not workflow.is_main_process:
        return False
    keep_shared_outputs()
    values = tuple(sorted(wildcards.items()))
    # All of them are marked, also after the first one that runs.
    marked = [
        mark_if_outdated(writer, values)
        for writer in writers()
        if writer.params.job.plan_job is plan_job and accepts(writer, values)
    ]
    return any(marked)


def mark_if_outdated(writer: Any, values: tuple[tuple[str, str], ...]) -> bool:
    """Marks the outputs of a rule for these wildcards; prints the reason once."""
    outputs = outputs_of(writer, values)
    # Also for new outputs: it notes what is there before another run may write it.
    job = planned_identity(writer, values)
    for path in workflow.dag.targetfiles.intersection(outputs):
        mark_missing(path)
        refuse_missing(path)
    is_there = is_kept(writer) and any(Path(path).exists() for path in outputs)
    reason = refusing(COMPARISON.reason, job, producer) if is_there else None
    if reason:
        refusing(COMPARISON.check_replaceable, job)
    if reason and outputs[0] not in workflow.dag.forcefiles:
        if not reason.endswith((AGAIN, FORCED)):
            name = outputs[0].removesuffix(MANIFEST)
            print(f"{name}{AGAIN}: {reason}", file=sys.stderr)
        workflow.dag.forcefiles.update(outputs)
    runs = not is_there or reason is not None or job.record in COMPARISON.needed
    if runs:
        settings = planned(writer.params.job.plan_job)(dict(values)).settings
        refusing(NAMED_RUNS.check, settings, job, producer)
        start = refusing(start_of, PLANNER, settings)
        refusing(WRITTEN_FILES.check, settings, Path(outputs[0]).parent, start)
        if start is not None and start.source is not None:
            announce(start.source, start.iteration)
        if start is not None and not workflow.dryrun:
            refusing(begin, start)
        for path in job.reads:
            mark_missing(path)
    return runs
