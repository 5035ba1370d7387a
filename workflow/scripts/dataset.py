"""Writes the file of a new dataset from what the files of an image and its labels say.

    dataset.py new NAME --raw PATH[:ARRAY] --labels PATH[:ARRAY] [--voxel-size-nm Z,Y,X] ...

Shape, type, voxel size and position are read as `describe.py` shows them, grey values from some
blocks. 70 % of the labelled sections train, 10 % choose the threshold, 20 % are scored, along z.
Prints what was decided and why, and the next command. An existing dataset is never overwritten.
What no file states has to be on the command line.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import get_args

from retrace.command_line import as_number
from retrace.errors import run
from retrace.formats.source import LabelKind
from retrace.planning.new_dataset import Stated, new_file, next_network, write_dataset


def _numbers(text: str) -> list[float]:
    return [as_number(part) for part in text.split(",")]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("new",))
    parser.add_argument("name", metavar="NAME", help="letters, digits and _")
    parser.add_argument("--raw", required=True, metavar="PATH[:ARRAY]")
    parser.add_argument("--labels", required=True, metavar="PATH[:ARRAY]")
    parser.add_argument("--voxel-size-nm", type=_numbers, metavar="Z,Y,X")
    parser.add_argument("--raw-offset-nm", type=_numbers, metavar="Z,Y,X")
    parser.add_argument("--labels-offset-nm", type=_numbers, metavar="Z,Y,X")
    parser.add_argument("--axes", help="order of the stored axes, such as xyz")
    parser.add_argument("--channel", type=int, help="of raw")
    parser.add_argument("--invert", choices=("true", "false"), help="whether 0 is white in raw")
    parser.add_argument("--objects", choices=get_args(LabelKind), help="what label values mean")
    return parser.parse_args(argv)


def stated(args: argparse.Namespace) -> Stated:
    """What the command line says."""
    content = {key: value for key, value in vars(args).items() if key != "verb"}
    content["invert"] = None if args.invert is None else args.invert == "true"
    return Stated(**content)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    words = sys.argv[1:] if argv is None else argv
    wanted = stated(parse_args(words))
    path = new_file(wanted.name)
    proposal = write_dataset(wanted, f"dataset.py {shlex.join(words)}")
    print("\n".join(proposal.decisions))
    print(f"written: {path}; edit it to change any of this")
    network = next_network(proposal)
    print(f"next: snakemake --use-singularity evaluate_{wanted.name}_{network}")
    print(f"      (-n shows the jobs; `make list NAME={wanted.name}` the other networks)")


if __name__ == "__main__":
    run(main)
