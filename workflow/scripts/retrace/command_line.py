"""Command lines: the job of a program, and NAME=PATH for files of volumes or networks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from retrace.errors import AFTER_SUCCESS, ConfigError
from retrace.job import Job
from retrace.records.record import start_job
from retrace.replacement import declare


def named_texts(items: Sequence[str]) -> dict[str, str]:
    """The path or address of each name; ConfigError for an item that is not NAME=PATH.

    Addresses stay as they are: as a path, file:///x would become file:/x.
    """
    texts: dict[str, str] = {}
    for item in items:
        name, equals, path = item.partition("=")
        if not (name and equals and path):
            raise ConfigError(f"{item!r} on the command line is not NAME=PATH")
        if name in texts:
            raise ConfigError(f"{name!r} occurs twice on the command line; use different names")
        texts[name] = path
    return texts


def named_paths(items: Sequence[str]) -> dict[str, Path]:
    """The path of each name; ConfigError for an item that is not NAME=PATH."""
    return {name: Path(path) for name, path in named_texts(items).items()}


def output_file(text: str) -> Path:
    """The path of a file that is to be written; an argparse type."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; name a file")
    return path


def as_number(text: str) -> float:
    """A number of the command line; whole numbers as int. ValueError for other text."""
    number = float(text)
    return (
        int(text) if number.is_integer() and "." not in text and "e" not in text.lower() else number
    )


def add_job(
    parser: argparse.ArgumentParser,
    *,
    file: Sequence[str] = (),
    optional_file: Sequence[str] = (),
    file_list: Sequence[str] = (),
    files_by_name: Sequence[str] = (),
    file_lists_by_name: Sequence[str] = (),
    has_settings: bool = True,
    has_shard: bool = False,
) -> None:
    """Adds the options of a program that runs a job.

    The workflow passes the job as `--job JSON`, or as `--job @FILE`. By hand, `--settings JSON` and
    one option per role are equivalent. `parse_job` returns the arguments.
    """
    help_text = "settings and inputs, as the workflow plans them"
    parser.add_argument("--job", type=Job.parse, metavar="JSON|@FILE", help=help_text)
    if has_settings:
        parser.add_argument(
            "--settings", type=_json, metavar="JSON", help="the settings of the job"
        )
    if has_shard:
        parser.add_argument("--shard", metavar="1-of-8", help="the shard to compute")
    for role in (*file, *optional_file):
        parser.add_argument(_option(role), metavar="FILE")
    for role in file_list:
        parser.add_argument(_option(role), nargs="*", default=[], metavar="FILE")
    for role in (*files_by_name, *file_lists_by_name):
        parser.add_argument(_option(role), nargs="*", default=[], metavar="NAME=FILE")
    readers: dict[str, Callable[[Job, str], Any]] = {
        **dict.fromkeys(file, Job.path),
        **dict.fromkeys(optional_file, Job.optional_path),
        **dict.fromkeys(file_list, Job.paths),
        **dict.fromkeys(files_by_name, Job.named_paths),
        **dict.fromkeys(file_lists_by_name, Job.named_path_lists),
    }
    parser.set_defaults(job_roles=readers, job_needs_settings=has_settings)


def parse_job(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """The arguments, with `settings`, `execution` and the files of each role of the job.

    A role is a path, a path or None, a list of paths, or a dict of paths (or lists of paths) by the
    name of a volume or network, as declared with `add_job`.
    """
    args = parser.parse_args(argv)
    if "job_roles" not in args:
        return args
    job = args.job or _job_of_options(parser, args)
    args.settings, args.execution = job.settings, job.execution
    declare(value for value in vars(args).values() if isinstance(value, Path))
    if job.identity is not None:
        AFTER_SUCCESS.append(start_job(Path(job.identity)).write)
    for role, read in args.job_roles.items():
        setattr(args, role, read(job, role))
    return args


def target_parser(description: str | None, *flags: tuple[str, str]) -> argparse.ArgumentParser:
    """The command line of a program about a target: its name, `--json`, and flags with their help.

    `parse_with_options` reads it.
    """
    given = " ".join(f"[{flag}]" for flag in (*(flag for flag, _ in flags), "--json"))
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"%(prog)s target {given} [-- options of the run]",
    )
    parser.add_argument("target", help="a target of Snakemake, such as evaluate_zfinch_mtlsd")
    for flag, text in (*flags, ("--json", "print one line of JSON for each job")):
        parser.add_argument(flag, action="store_true", help=text)
    return parser


def parse_with_options(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """The arguments, with what follows `--` as `options`: those of Snakemake."""
    own, options = split_options(argv)
    return parser.parse_args(own, argparse.Namespace(options=options))


def split_options(argv: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Arguments before `--`, and those after it, of this program if None.

    argparse itself refuses these after an option of the program (TARGET --json -- OPTIONS).
    """
    words = sys.argv[1:] if argv is None else list(argv)
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]


def _job_of_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Job:
    """The job that single options describe; prints the usage and exits if one is missing."""
    readers: dict[str, Callable[[Job, str], Any]] = args.job_roles
    missing = [_option(r) for r, read in readers.items() if read == Job.path and not vars(args)[r]]
    if args.job_needs_settings and args.settings is None:
        missing.insert(0, "--settings")
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}; or --job")
    inputs = {role: _files(read, vars(args)[role]) for role, read in readers.items()}
    shard = vars(args).get("shard")
    settings = args.settings if args.job_needs_settings else {}
    execution = {} if shard is None else {"shard": shard}
    return Job(settings, {role: files for role, files in inputs.items() if files}, (), execution)


def _files(read: Callable[[Job, str], Any], value: Any) -> Any:
    if read == Job.named_paths:
        return {name: str(path) for name, path in named_paths(value).items()}
    if read == Job.named_path_lists:
        lists: dict[str, list[str]] = {}
        for word in value:
            ((name, path),) = named_paths([word]).items()
            lists.setdefault(name, []).append(str(path))
        return lists
    return value


def _option(role: str) -> str:
    return f"--{role.replace('_', '-')}"


def _json(text: str) -> Any:
    """The value of --settings; ConfigError if it is not JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--settings is not JSON ({error})") from error
