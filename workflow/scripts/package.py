"""Packs a trained or converted network to run without retrace.

    package.py --settings JSON --model model.safetensors --output FOLDER/package

writes FOLDER/package, a bioimage.io model with ten lines that run it (load.py), and the same as
FOLDER/package.zip. The settings are one JSON object: `network`, `dataset` (name, and voxel_size_nm
if it has voxels), `authors` and `license`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from retrace.command_line import add_job, parse_job
from retrace.config.schema import check
from retrace.errors import run
from retrace.packaging.bioimageio import package_files, write_package
from retrace.planning.package_settings import PackageSettings
from retrace.replacement import declare_with, newest
from retrace.storage.manifest import write_manifest
from retrace.storage.zarr_writer import writing


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `--settings` is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_job(parser, file=["model"])
    parser.add_argument("--output", required=True, type=Path, help="the package's folder")
    return parse_job(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    begin = time.monotonic()
    arguments = parse_args(argv)
    settings = check(PackageSettings, arguments.settings, "--settings")
    output: Path = arguments.output
    files = package_files(arguments.model, settings)
    archive = output.with_suffix(".zip")
    declare_with(output, archive)
    with writing(output) as partial:
        write_package(files, partial, archive)
    write_manifest(
        output,
        inputs=[arguments.model],
        settings=arguments.settings,
        seconds=time.monotonic() - begin,
    )
    size = newest(archive).stat().st_size / 1e6
    print(f"[package] {output}: {len(files)} files, {archive.name} {size:.1f} MB", flush=True)


if __name__ == "__main__":
    run(main)
