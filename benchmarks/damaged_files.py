"""Reads thousands of damaged files with every reader, and prints what happens.

    python benchmarks/damaged_files.py         # 200 changed files for each reader, as in CI
    python benchmarks/damaged_files.py --inputs 1000 --seed 7 --only n5

The columns are explained in docs/results.md. The program ends with status 1 if a reader has a
fault: tests/fuzzing.py says what counts as one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "workflow" / "scripts"), str(ROOT / "tests")]

from fuzz_readers import READERS  # noqa: E402
from fuzzing import INPUTS, fuzz_all, table  # noqa: E402


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS, help="changed files per reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="part of the names of the readers")
    parser.add_argument("--processes", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--json", type=Path, help="also write the outcomes to this file")
    parser.add_argument("--keep", type=Path, help="keep files and logs in this new folder")
    args = parser.parse_args(argv)
    readers = [reader for reader in READERS if not args.only or args.only in reader.name]
    with tempfile.TemporaryDirectory(prefix="retrace-fuzz-") as scratch:
        keep = args.keep or Path(scratch) / "work"
        keep.mkdir(parents=True)
        begin = time.monotonic()
        outcomes = fuzz_all(readers, args.inputs, args.seed, args.processes, keep)
    print(table(outcomes))
    print(f"\n{time.monotonic() - begin:.0f} s, {args.processes} processes, seed {args.seed}")
    for one in outcomes:
        for fault in one.faults:
            print(f"\n{one.name}: {fault}")
    if args.json:
        args.json.write_text(json.dumps([asdict(one) for one in outcomes]))
    sys.exit(0 if all(one.is_sound for one in outcomes) else 1)


if __name__ == "__main__":
    main()
