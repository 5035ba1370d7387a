"""What it costs to flush a store to the disk before its manifest, by ways of flushing.

    python benchmarks/durability.py FOLDER    # on the disk to be measured

Stores of small, usual and large chunks are written and flushed: not at all, file by file, in
threads as `retrace.replacement.sync_tree` does, and with one syncfs for the whole disk. The ways
take turns.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))

from retrace.replacement import sync_folder, sync_tree  # noqa: E402

STORES = {"4 kB": (4096, 1000), "256 kB": (1 << 18, 200), "8 MB": (1 << 23, 10)}
"""Bytes and number of the chunks."""


def file_by_file(folder: Path) -> None:
    """Each file, then each folder."""
    for path in sorted(folder.rglob("*"), key=lambda path: path.is_dir()):
        sync_folder(path)
    sync_folder(folder)


def whole_disk(folder: Path) -> None:
    """All that any program has written to the disk of the folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(handle):
            raise OSError(ctypes.get_errno(), "syncfs")
    finally:
        os.close(handle)


WAYS: dict[str, Callable[[Path], object]] = {
    "not flushed": lambda folder: None,
    "file by file": file_by_file,
    "in threads": sync_tree,
    "in threads, a second time": sync_tree,
    "syncfs": whole_disk,
}


def written(folder: Path, size: int, count: int, content: bytes) -> float:
    """Seconds to write a store of chunks in ten folders."""
    begin = time.monotonic()
    for number in range(10):
        (folder / str(number)).mkdir(parents=True)
    for number in range(count):
        place = folder / str(number % 10) / str(number)
        place.write_bytes(content[number : number + size])
    return time.monotonic() - begin


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table of seconds: median and extremes of the repetitions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)
    content = random.Random(0).randbytes((1 << 23) + 4096)
    print("| chunks | way | write s | flush s | least to most |\n|---|---|---|---|---|")
    for name, (size, count) in STORES.items():
        writes: list[float] = []
        flushes: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(args.repeats):
            for way, flush in WAYS.items():
                with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
                    store = Path(scratch) / "store"
                    writes.append(written(store, size, count, content))
                    if way.endswith("second time"):
                        sync_tree(store)
                    begin = time.monotonic()
                    flush(store)
                    flushes[way].append(time.monotonic() - begin)
                    shutil.rmtree(store)
        for way, seconds in flushes.items():
            cells = [f"{count} of {name}", way, f"{statistics.median(writes):.3f}"]
            middle, least, most = statistics.median(seconds), min(seconds), max(seconds)
            cells += [f"{middle:.3f}", f"{least:.3f} to {most:.3f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
