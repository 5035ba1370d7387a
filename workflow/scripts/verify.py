"""Compares every finished store below some folders with its manifest, byte by byte.

    python workflow/scripts/verify.py                 # data and results
    python workflow/scripts/verify.py results/zfinch

What differs is named and its manifest set aside, so that the next run of the workflow makes it
again and what depends on it, and nothing else. Exit status 1 where anything differed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from retrace.errors import run
from retrace.storage.assemble import differences
from retrace.storage.manifest import INFO

SUFFIX = ".manifest.json"


def finished_stores(folders: Sequence[Path]) -> list[Path]:
    """Every folder that a manifest vouches for."""
    manifests = [path for folder in folders for path in sorted(folder.rglob(f"*{SUFFIX}"))]
    stems = [path.with_name(path.name.removesuffix(SUFFIX)) for path in manifests]
    places = [stem.with_suffix(".zarr") for stem in stems]
    layers = [stem for stem in stems if (stem / INFO).is_file()]
    return [place for place in places if place.is_dir()] + layers


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = [Path("data"), Path("results")]
    parser.add_argument("folders", nargs="*", type=Path, default=default)
    stores = finished_stores(parser.parse_args(argv).folders)
    damaged = differences(stores)
    for text in damaged:
        print(text, file=sys.stderr)
    print(f"{len(stores)} stores, {len(damaged)} damaged", flush=True)
    if damaged:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
