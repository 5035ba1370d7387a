"""Runs benchmark programs one after another: what `make bench` does.

    python benchmarks/bench.py train predict

The machine is named first, and the load before each program: figures of a busy machine are lower.
A program that fails does not keep the others from running. Exit code 1 if one has failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from machine import describe_machine, table

FOLDER = Path(__file__).resolve().parent


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", nargs="+", help="names of programs in benchmarks/")
    return parser.parse_args(argv)


def run(name: str) -> list[str]:
    """Runs a program with its default settings; the row of the summary."""
    print(f"\n== {name}, load {os.getloadavg()[0]:.1f}", flush=True)
    begin = time.monotonic()
    code = subprocess.run([sys.executable, str(FOLDER / f"{name}.py")]).returncode
    return [name, f"{time.monotonic() - begin:.0f} s", f"failed with {code}" if code else "done"]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints what the programs print, and a summary."""
    args = parse_args(argv)
    gpu = torch.device("cuda") if torch.cuda.is_available() else None
    print(describe_machine(gpu), flush=True)
    rows = [run(name) for name in args.programs]
    print("\n" + table(("program", "took", "result"), rows))
    if any(row[2] != "done" for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
