"""Compares this project with other programs for the same work, side by side.

    python benchmarks/peers.py                              # all, at least five rounds
    python benchmarks/peers.py --only fragments evaluation

Each file of benchmarks/peers/ is one comparison and also runs alone. Peers run in environments of
their own, which uv makes in work/peers/ from the package index of your configuration, with the
versions in the file. Contenders take turns, so ratios hold on a machine that others use. Work of
the processor runs on one thread and counts processor time; a fetch counts the clock's. "Ahead"
and "behind" mean: in every round. A peer that cannot be installed or fails is named with the
reason.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from machine import describe_machine

FOLDER = Path(__file__).resolve().parent / "peers"
sys.path.append(str(FOLDER))

from side_by_side import HEADING, row  # noqa: E402

COMPARISONS = (
    *("lsd_targets", "fragments", "region_graph", "mutex_watershed"),
    *("evaluation", "precomputed", "fetching", "tiled_prediction"),
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=COMPARISONS)
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each comparison")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    print(f"{describe_machine()}; {args.repeats} rounds\n")
    print(row(HEADING) + "\n|" + "---|" * len(HEADING), flush=True)
    for name in args.only:
        command = [sys.executable, str(FOLDER / f"{name}.py"), "--rows"]
        done = subprocess.run([*command, "--repeats", str(args.repeats)], check=False)
        if done.returncode:
            print(row([name, "", "", "", f"failed with status {done.returncode}", ""]), flush=True)


if __name__ == "__main__":
    main()
