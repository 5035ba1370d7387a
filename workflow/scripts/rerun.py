"""Runs the target that an RO-Crate of this workflow describes, as far as results are missing.

    python workflow/scripts/rerun.py CRATE --directory FOLDER --trust [--dry-run] [-- options]

CRATE: the folder or the zip that `snakemake crate_DATASET_NETWORK` wrote. Its files are compared
with their digests, workflow and configuration are copied into FOLDER, and its target is planned and
run there, with further options of Snakemake. Then every result is compared with the one in the
RO-Crate.

Its Snakefile is code, which runs with your permissions as soon as it is planned. Without --trust,
the program says whose code it is and ends.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from retrace.command_line import parse_with_options
from retrace.errors import ConfigError, run
from retrace.planning.program_files import ROOT
from retrace.provenance.crate_files import (
    compare_results,
    origin_of_code,
    place_workflow,
    read_digests,
    read_target,
    unpacked,
)
from retrace.provenance.folders import RUN_CONFIG, check_files, code_files


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring. `options` are Snakemake's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("crate", type=Path, help="folder or zip")
    parser.add_argument("--directory", required=True, type=Path, help="the working directory")
    parser.add_argument("--dry-run", action="store_true", help="only show what is missing")
    parser.add_argument("--trust", action="store_true", help="run the code of the RO-Crate")
    return parse_with_options(parser, argv)


def rerun(args: argparse.Namespace, crate: Path) -> int:
    """Plans or runs the target of an RO-Crate's folder; returns Snakemake's exit status."""
    digests = read_digests(crate)
    check_files(crate, digests, "RO-Crate")
    target = read_target(crate)
    check_trust(args, crate, digests)
    place_workflow(crate, args.directory, digests)
    command = [sys.executable, "-m", "snakemake", "--configfile", RUN_CONFIG]
    command += ["--dry-run"] if args.dry_run else []
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    command += [*args.options, "--", target]
    result = subprocess.run(command, cwd=args.directory, env=environment, check=False)
    if result.returncode == 0 and not args.dry_run:
        print("\n".join(compare_results(args.directory, digests)), flush=True)
    return result.returncode


def check_trust(args: argparse.Namespace, crate: Path, digests: Mapping[str, str]) -> None:
    """Says whose code is going to run; ConfigError unless the user trusts it."""
    for line in origin_of_code(crate, digests, code_files(ROOT, ROOT)):
        print(f"[rerun] {args.crate}: {line}", flush=True)
    if not args.trust:
        raise ConfigError(
            f"{args.crate} contains a Snakefile and programs, which run on this machine with your "
            "permissions, also for --dry-run. If you trust its author, add --trust"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    args = parse_args(argv)
    with unpacked(args.crate) as crate:
        status = rerun(args, crate)
    sys.exit(status)


if __name__ == "__main__":
    run(main)
