"""Writes a finished experiment as a Workflow Run RO-Crate: a folder, and the same as a zip.

The RO-Crate contains the workflow, its configuration, logs, manifests, and results that are files.
Volumes, predictions and segmentations are named with their digests, fetched ones also with their
address. Profile: Provenance Run Crate 0.5 (w3id.org/ro/wfrun/provenance).

Runs where Snakemake runs, not in the image: it reads Snakemake's records of the jobs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from retrace.command_line import add_job, parse_job
from retrace.config.pack_model import PackSettings
from retrace.config.schema import check
from retrace.errors import run
from retrace.provenance.jobs import check_chain, jobs_behind, read_jobs
from retrace.provenance.recorded_settings import check_settings
from retrace.provenance.run_crate import RunCrate

SCRATCH = Path("work/crate")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_job(parser, file_list=["results"])
    parser.add_argument("--output", required=True, type=Path, help="folder of the RO-Crate")
    parser.add_argument("--zip", required=True, type=Path)
    return parse_job(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    args = parse_args(argv)
    settings = check(PackSettings, args.settings, "--settings")
    jobs = jobs_behind([str(path) for path in args.results], read_jobs())
    check_settings(jobs)
    compared = check_chain(jobs)
    print(f"[crate] {len(jobs)} jobs, {compared} digests compared", flush=True)
    crate = RunCrate(settings.name, settings.target, settings.config, SCRATCH)
    crate.describe_run(settings.target, jobs)
    crate.write(args.output, args.zip)
    print(f"[crate] {args.output} and {args.zip}", flush=True)


if __name__ == "__main__":
    run(main)
