"""Shared by all rules: the planner, jobs as inputs and parameters, images, programs; no rules here."""

import json
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from snakemake_interface_executor_plugins import utils as executor_arguments

# Plugins of pydantic are not used; the search for them reads the metadata of every package.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from retrace.config.command_line_values import decoded, encoded, read_config
from retrace.config.datasets import check_chosen
from retrace.planning.network_names import networks_of_family
from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import names
from retrace.errors import ConfigError, RetraceError
from retrace.job import Job
from retrace.planning import container_images
from retrace.planning.choices import gpus_for
from retrace.planning.container_binds import (
    bind_options,
    bound_folders,
    check_system,
    linked_folders,
    with_options,
)
from retrace.planning.experiment import Planner
from retrace.planning.initial_weights import for_targets
from retrace.planning.local_device import names_executor
from retrace.planning.paths import manifest
from retrace.planning.plain_names import check_folders, check_path, quoted
from retrace.planning.program_files import program_files
from retrace.planning.targets import command_line_words
from retrace.planning.znn_runs import give_cfg
from retrace.planning.records import write_plan
from retrace.planning.shards import log_file, output_store
from retrace.planning.snakemake_options import check_options

PlanJob = Callable[..., Job]
"""A function of planning: from the planner and the wildcards of a rule to a job."""


def uses_containers() -> bool:
    """Whether this run was started with --use-singularity or its equivalents."""
    methods = workflow.deployment_settings.deployment_method
    return any("apptainer" in str(method).lower() for method in methods)


def runs_here() -> bool:
    """Whether jobs run on this machine; a dry run may belong to a cluster that a profile names."""
    plugin = workflow.executor_plugin
    if plugin is None or not plugin.common_settings.local_exec:
        return False
    return not workflow.dryrun or not names_executor(sys.argv)


def prepare() -> Planner:
    """Checks the configuration, and makes files outside the working directory visible to jobs."""
    if workflow.is_main_process:
        refusing(check_options, command_line_options())
    try:
        settings = run_config()
        direct = give_cfg(settings)
        settings, init_is_for = for_targets(settings, command_line_words(), direct)
        config.update(settings.plain())
        check_chosen(settings.volumes)
        check_block_cache(settings)
    except RetraceError as error:
        raise WorkflowError(str(error)) from None
    if settings.init and not isinstance(settings.init, str):
        send_init(settings.init)
    planner = Planner(
        ROOT,
        settings,
        uses_containers(),
        runs_here=runs_here,
        init_is_for=init_is_for,
    )
    refusing(check_own_folders, on_cluster=False)
    if planner.uses_containers:
        refusing(check_system)
        refusing(
            bind,
            planner.outside_files(),
            [ROOT, create_block_cache(settings), *linked_folders(Path.cwd())],
        )
    else:
        # Without containers the programs run in the environment of Snakemake itself.
        here = str(Path(sys.executable).parent)
        path = dict.fromkeys([here, *os.get_exec_path()])
        os.environ.update(PATH=os.pathsep.join(path))
    return planner


def run_config() -> WorkflowConfig:
    """The settings of this run; text keeps its notation, unlike in Snakemake's own config."""
    own = workflow.overwrite_configfiles
    files = [file for file in workflow.configfiles if file not in own]
    words = decoded(workflow.config_settings.config_args)
    send_settings(words)
    return read_config([*files, *own], words)


def send_settings(words: list[str]) -> None:
    """Gives jobs these KEY=VALUE words of `--config`, in a form that no shell reads otherwise."""
    workflow.config_settings.config_args = encoded(words)


def send_init(init: Any) -> None:
    """Gives jobs on other machines, which see no targets, `init` for the networks it is for."""
    words = decoded(workflow.config_settings.config_args)
    kept = [w for w in words if not w.startswith("init=")]
    send_settings([*kept, f"init={json.dumps(init)}"])


def quote_arguments() -> None:
    """Quotes for a shell what Snakemake passes to its own processes, the jobs: paths and settings.

    It writes values as Python does, which a shell reads otherwise: "it's $(id)" runs a program.
    WorkflowError for a Snakemake whose words are not quoted in this way.
    """
    as_before = executor_arguments.format_cli_value

    def format_cli_value(
        value: Any, quote: bool = False, base64_encode: bool = False
    ) -> str:
        is_text = isinstance(value, str) and quote and not base64_encode
        return quoted(str(value)) if is_text else as_before(value, quote, base64_encode)

    executor_arguments.format_cli_value = format_cli_value
    word = "it's $(id)"
    passed = executor_arguments.format_cli_arg("--option", word)
    if passed != f"--option {quoted(word)}":
        raise WorkflowError(
            "this version of Snakemake passes names to its jobs in a way that could run them as commands;"
            " install the one that envs/host.txt names"
        )


quote_arguments()


def check_own_folders(*, on_cluster: bool) -> None:
    """Refuses a folder of the workflow, or a working directory, that cannot be passed to jobs."""
    check_folders(
        ROOT, Path.cwd(), on_cluster=on_cluster, in_containers=uses_containers()
    )


def bind(files: list[str], folders: list[Path]) -> None:
    """Makes the folders of these files, and further folders, visible to containers."""
    settings = workflow.deployment_settings
    bound = bound_folders(Path.cwd(), files, folders)
    settings.apptainer_args = with_options(settings.apptainer_args, bind_options(bound))


def create_block_cache(settings: WorkflowConfig) -> Path:
    """The folder that caches blocks, created if it does not exist: it has to be bound."""
    cache = block_cache(settings)
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def block_cache(settings: WorkflowConfig) -> Path:
    """The folder that caches blocks of streamed volumes."""
    return Path(settings.blocks.cache).resolve()


def check_block_cache(settings: WorkflowConfig) -> None:
    """Refuses a cache whose folder cannot be created."""
    cache = block_cache(settings)
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ConfigError(
            f"`blocks: cache: {cache}` cannot be created: {existing} is no writable folder"
        )


def job_environment(settings: WorkflowConfig) -> str:
    """Environment of every job: settings that change no result.

    As parameters they would run every job again when the cache moves.
    """
    values = {
        "RETRACE_BLOCKS": block_cache(settings),
        "RETRACE_BLOCKS_GIB": settings.blocks.cache_gib,
        "RETRACE_BLOCKS_THREADS": settings.fetch_threads,
        "RETRACE_PYTHON": sys.executable,
        "RETRACE_TERMINAL": int(sys.stderr.isatty()),
    }
    words = [f"{name}={shlex.quote(str(value))}" for name, value in values.items()]
    # Snakemake formats the text: braces are doubled.
    return " ".join(words).replace("{", "{{").replace("}", "}}")


def refusing(function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """The function's value; its refusal ends the run with one message, without a traceback.

    Snakemake ignores an error of its own in an input function if the requested file exists.
    """
    try:
        return function(*args, **named)
    except RetraceError as error:
        refuse(error)


def refuse(error: RetraceError) -> None:
    """Ends the run with the message of an error."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    sys.exit(1)


@cache
def planned(plan_job: PlanJob) -> Callable[[Any], Job]:
    """The job that `plan_job` plans for the wildcards of a rule, planned once."""
    jobs: dict[tuple[Any, ...], Job] = {}

    def job(wildcards: Any) -> Job:
        values = dict(wildcards.items())
        key = tuple(sorted(values.items()))
        if key not in jobs:
            jobs[key] = refusing(plan_job, PLANNER, **values)
            refusing(make_visible, jobs[key])
        return jobs[key]

    return job


VISIBLE: set[str] = set()
"""Files whose folders the containers see, if there are containers."""


def make_visible(job: Job) -> None:
    """Refuses files of a job whose names cannot be passed on, and binds the folders of the others.

    Only what the jobs of this run read is visible to them, not all that any dataset names.
    """
    own = [path for paths in job.files().values() for path in paths]
    for path in (*own, *job.untracked_files()):
        check_path(path, on_cluster=not runs_here())
    if not runs_here():
        check_own_folders(on_cluster=True)
    if PLANNER.uses_containers:
        new = {*own, *PLANNER.outside_files()} - VISIBLE
        VISIBLE.update(new)
        bind(sorted(new), [])


def files_of(plan_job: PlanJob) -> Callable[[Any], dict[str, list[Any]]]:
    """An input function for `unpack`: the files of a job, by role; see rules/identity.smk."""
    job = planned(plan_job)

    def files(wildcards: Any) -> dict[str, list[Any]]:
        runs = mark_outdated(plan_job, wildcards)
        shown: set[str] = set()
        return {
            role: [as_input(path, runs=runs) for path in first_named(paths, shown)]
            for role, paths in job(wildcards).files().items()
        }

    return files


def job_of(plan_job: PlanJob) -> Callable[[Any, Any], str]:
    """A parameter: the job as its program reads it, or the file that holds a long one."""
    job = planned(plan_job)

    def text(wildcards: Any, output: Any) -> str:
        plan = write_plan(producer(str(output[0])), write=not workflow.dryrun)
        return replace(job(wildcards), identity=plan).as_argument(
            write=not workflow.dryrun
        )

    text.plan_job = plan_job
    return text


def target_files(
    files: Callable[[Planner], list[str]],
) -> Callable[[Any], list[str]]:
    """An input function: the files of a target, planned only when it is requested."""

    def requested_files(wildcards: Any) -> list[str]:
        paths = refusing(files, PLANNER)
        for path in paths:
            mark_missing(path)
            refuse_missing(path)
        return [declared_output(path) for path in paths]

    return requested_files


def growing(first: int) -> Callable[[Any, int], int]:
    """A resource that grows with each retry: FIRST, 2 x FIRST, 3 x FIRST ...

    A job that a cluster ended for its memory or its time gets more at the next attempt.
    """

    def amount(wildcards: Any, attempt: int) -> int:
        return first * attempt

    return amount


def source(*parts: str) -> str:
    """A file of this workflow, relative to the working directory."""
    return os.path.relpath(ROOT.joinpath(*parts))


def script(name: str) -> str:
    """The program that a rule runs."""
    return source("workflow", "scripts", f"{name}.py")


def image(name: str) -> str:
    """The container image of that name."""
    return PLANNER.image(name)


def image_input(name: str) -> list[Any]:
    """The image as an input, so that it is built first; empty without containers."""
    return [ancient(image(name))] if PLANNER.uses_containers else []


def pattern(allowed: list[str]) -> str:
    """Names as a pattern for a wildcard, which matches nothing if there are none."""
    return "|".join(map(re.escape, allowed)) or "none"


def family_pattern(family: str) -> str:
    """The networks of a family as a pattern."""
    return pattern(networks_of_family(family))
