"""Compares the bytes of every finished store below some folders with its manifest.

    python workflow/scripts/verify.py                 # data and results
    python workflow/scripts/verify.py results/zfinch

Prints the stores that differ and invalidates their manifests, so that the next run of the workflow
recomputes them and what depends on them, and nothing else. Exit status 1 if a store differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from retrace.errors import run
from retrace.replacement import MANIFEST
from retrace.storage.assemble import damaged_stores
from retrace.storage.manifest import LAYER_INFO


def finished_stores(folders: Sequence[Path]) -> list[Path]:
    """All stores below `folders` that have a manifest."""
    manifests = [path for folder in folders for path in sorted(folder.rglob(f"*{MANIFEST}"))]
    stems = [path.with_name(path.name.removesuffix(MANIFEST)) for path in manifests]
    zarrs = [stem.with_suffix(".zarr") for stem in stems]
    layers = [stem for stem in stems if (stem / LAYER_INFO).is_file()]
    return [store for store in zarrs if store.is_dir()] + layers


def main(argv: Sequence[str] | None = None) -> None:
    """Verifies all stores below the folders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = [Path("data"), Path("results")]
    parser.add_argument("folders", nargs="*", type=Path, default=default)
    stores = finished_stores(parser.parse_args(argv).folders)
    damaged = damaged_stores(stores)
    for message in damaged:
        print(message, file=sys.stderr)
    print(f"{len(stores)} stores, {len(damaged)} damaged", flush=True)
    if damaged:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
