"""Prints what can run here: for each dataset and verb, with how many networks.

    targets.py                    one screen: datasets, verbs and networks (`make list`)
    targets.py zfinch             the networks by verb (`make list NAME=zfinch`)
    targets.py evaluate_zfinch_n4 whether this one can run, else the reason

A target is verb_DATASET or verb_DATASET_NETWORK. Nothing is run or written. A dataset whose files
are missing counts as unable; one that is in a bucket is fetched, and counts as able.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from retrace.config.command_line_values import read_config
from retrace.config.yaml_files import WORKFLOW_CONFIG, names
from retrace.errors import ConfigError, run
from retrace.planning.experiment import Planner
from retrace.planning.listing import answer, details, overview, register_verbs, runnable
from retrace.planning.targets import target_names
from retrace.planning.unknown_targets import unknown_target

ROOT = Path(__file__).resolve().parents[2]
MORE = "`make list NAME=DATASET` names the networks, `make list NAME=TARGET` why one cannot run"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="datasets or targets")
    parser.add_argument(
        "--config", nargs="+", default=[], metavar="KEY=VALUE", help="settings, as of Snakemake"
    )
    parser.add_argument(
        "--use-singularity", action="store_true", help="in containers, as the option of Snakemake"
    )
    return parser.parse_args(argv)


def show(planner: Planner, name: str) -> None:
    """Prints what is known of a dataset or a target; ConfigError for another name."""
    if name in names("datasets"):
        print(f"{name}:", *details(runnable(planner, name)), sep="\n")
    elif name in target_names():
        print(answer(planner, name))
    else:
        raise ConfigError(unknown_target(planner, name, names("datasets")))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    args = parse_args(argv)
    register_verbs()
    config = read_config([WORKFLOW_CONFIG / "config.yaml"], args.config)
    planner = Planner(ROOT, config, args.use_singularity)
    for name in args.names:
        show(planner, name)
    if not args.names:
        for line in overview(planner):
            print(line, flush=True)
        print(f"\n{MORE}")


if __name__ == "__main__":
    run(main)
