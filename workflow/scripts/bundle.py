"""Packs an experiment into one folder, a bundle, that runs without internet access.

    bundle.py make --settings JSON --files data/... --images ... --wheels ... --output BUNDLE
    python3 BUNDLE/workflow/scripts/bundle.py check
    python3 BUNDLE/workflow/scripts/bundle.py run [--target TARGET] [-- options of Snakemake]

The folder is a complete working directory: the workflow, `objects` with a mirror of the bucket,
`files` with the user's own volumes, the container images, and `wheels` with the packages that
Snakemake needs. `check` and `run` need only Python; `run` also needs Apptainer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from retrace.command_line import add_job, parse_job, split_options
from retrace.errors import run
from retrace.provenance.bundle_files import check_bundle
from retrace.provenance.bundle_runner import run_bundle
from retrace.provenance.bundle_writer import ROOT, write_bundle


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring. `options` are Snakemake's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make", help="create a bundle")
    add_job(making, file=["wheels"], file_list=["files", "images"])
    making.add_argument("--output", required=True, type=Path)
    verbs.add_parser("check", help="compare machine and files with the bundle's description")
    running = verbs.add_parser("run", help="check, install what Snakemake needs, and run")
    running.add_argument("--target", help="instead of the evaluation, e.g. crate_zfinch_mtlsd")
    own, options = split_options(argv)
    args = parse_job(parser, own)
    args.options = options
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    args = parse_args(argv)
    if args.verb == "check":
        check_bundle(ROOT)
    elif args.verb == "run":
        sys.exit(run_bundle(ROOT, args.target, args.options))
    else:
        make(args)


def make(args: argparse.Namespace) -> None:
    """Writes the bundle."""
    # Imported here: models need pydantic, which is not installed where a bundle is checked.
    from retrace.config.pack_model import PackSettings
    from retrace.config.schema import check

    settings = check(PackSettings, args.settings, "--settings")
    write_bundle(
        args.output,
        settings,
        files=args.files,
        images=args.images,
        wheels=args.wheels,
    )


if __name__ == "__main__":
    run(main)
