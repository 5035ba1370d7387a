"""Runs the target that an RO-Crate of this workflow describes, as far as results are missing.

    python workflow/scripts/rerun.py CRATE --directory FOLDER [--dry-run] [-- options of Snakemake]

CRATE: the folder or the zip that `snakemake crate_DATASET_NETWORK` wrote. Its files are compared
with their digests, workflow and configuration are copied into FOLDER, and its target is planned and
run there. Then every result is compared with the one in the RO-Crate.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from retrace.errors import run
from retrace.provenance.crate_files import (
    compare_results,
    place_workflow,
    read_digests,
    read_target,
    unpacked,
)
from retrace.provenance.folders import RUN_CONFIG, check_files, split_options


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring. `options` are Snakemake's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("crate", type=Path, help="folder or zip")
    parser.add_argument("--directory", required=True, type=Path, help="the working directory")
    parser.add_argument("--dry-run", action="store_true", help="only show what is missing")
    own, options = split_options(sys.argv[1:] if argv is None else argv)
    return parser.parse_args(own, argparse.Namespace(options=options))


def rerun(crate: Path, directory: Path, dry_run: bool, options: Sequence[str]) -> int:
    """Plans or runs the target of an RO-Crate's folder; returns Snakemake's exit status."""
    digests = read_digests(crate)
    check_files(crate, digests, "RO-Crate")
    place_workflow(crate, directory, digests)
    target = read_target(crate)
    command = [sys.executable, "-m", "snakemake", target, "--configfile", RUN_CONFIG]
    command += ["--dry-run"] if dry_run else []
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    result = subprocess.run([*command, *options], cwd=directory, env=environment, check=False)
    if result.returncode == 0 and not dry_run:
        print("\n".join(compare_results(directory, digests)), flush=True)
    return result.returncode


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    args = parse_args(argv)
    with unpacked(args.crate) as crate:
        status = rerun(crate, args.directory, args.dry_run, args.options)
    sys.exit(status)


if __name__ == "__main__":
    run(main)
