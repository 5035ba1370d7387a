"""Runs what an RO-Crate of this workflow describes, as far as it is missing.

    python workflow/scripts/rerun.py CRATE --directory FOLDER [--dry-run] [-- options of Snakemake]

CRATE: the folder or the zip that `snakemake crate_DATASET_NETWORK` made. Its files are compared
with their digests, its workflow and configuration put into FOLDER, and the target it describes is
planned and run there. At the end every result is compared with the crate's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrace.errors import DataError, run
from retrace.provenance.folders import CODE, WORDS, check_files, copied, sha256_of, split_options

METADATA, CONFIG, TARGET = "ro-crate-metadata.json", "run.yaml", "target.json"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("crate", type=Path, help="folder or zip")
    parser.add_argument("--directory", required=True, type=Path, help="the working directory")
    parser.add_argument("--dry-run", action="store_true", help="only show what is missing")
    own, options = split_options(sys.argv[1:] if argv is None else argv)
    return parser.parse_args(own, argparse.Namespace(options=options))


@contextmanager
def unpacked(crate: Path) -> Iterator[Path]:
    """The crate's folder; DataError where it is no crate."""
    if crate.is_dir():
        yield crate
        return
    with tempfile.TemporaryDirectory(prefix="retrace-crate-") as folder:
        try:
            with zipfile.ZipFile(crate) as archive:
                archive.extractall(folder)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{crate} is neither a folder nor a zip ({error})") from error
        yield Path(folder)


def read_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that a crate carries, by path in it; DataError where it is no crate."""
    try:
        graph: list[dict[str, Any]] = json.loads((folder / METADATA).read_text())["@graph"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} is no RO-Crate: {METADATA} cannot be read ({error})") from error
    found = {
        entity["@id"]: entity["sha256"]
        for entity in graph
        if "sha256" in entity and "File" in entity["@type"]
    }
    if not {CONFIG, TARGET, "Snakefile"} <= set(found):
        raise DataError(f"{folder} is no crate of this workflow: it has no {CONFIG} or {TARGET}")
    return found


def is_code(name: str) -> bool:
    """Whether a file of the crate is part of the workflow or its configuration."""
    return name in (*WORDS, CONFIG) or name.split("/")[0] in CODE


def place(crate: Path, directory: Path, digests: Mapping[str, str]) -> None:
    """Puts workflow and configuration into the working directory.

    DataError for a file there that is another: a working directory belongs to one workflow.
    """
    for name, expected in digests.items():
        if not is_code(name):
            continue
        target = directory / name
        if not target.exists():
            copied(crate / name, target)
        elif sha256_of(target) != expected:
            raise DataError(
                f"{target} is not the crate's; name another --directory, or an empty one"
            )


def compared(directory: Path, digests: Mapping[str, str]) -> list[str]:
    """A line for each carried result: as in the crate, another one, or absent."""
    lines = []
    for name, expected in sorted(digests.items()):
        if name.startswith("results/") and not name.endswith(".manifest.json"):
            path = directory / name
            same = path.is_file() and sha256_of(path) == expected
            lines.append(f"{'same' if same else 'other' if path.is_file() else 'absent':8}{name}")
    return lines


def rerun(crate: Path, args: argparse.Namespace) -> int:
    """Plans or runs the crate's target; returns Snakemake's status."""
    digests = read_digests(crate)
    check_files(crate, digests, "crate")
    target = json.loads((crate / TARGET).read_text())["target"]
    place(crate, args.directory, digests)
    command = [sys.executable, "-m", "snakemake", target, "--configfile", CONFIG]
    command += ["--dry-run"] if args.dry_run else []
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [*command, *args.options],
        cwd=args.directory,
        env={**os.environ, "PATH": path},
        check=False,
    )
    if done.returncode == 0 and not args.dry_run:
        print("\n".join(compared(args.directory, digests)), flush=True)
    return done.returncode


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; `argv` without the program's name."""
    args = parse_args(argv)
    with unpacked(args.crate) as crate:
        status = rerun(crate, args)
    sys.exit(status)


if __name__ == "__main__":
    run(main)
