"""Runs targets of the workflow in a folder, for the benchmarks of whole experiments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent


def snakemake(
    folder: Path, targets: Sequence[str], config: Sequence[str], *, cores: int = 1
) -> None:
    """Runs the targets; what they print goes to FOLDER/log.txt.

    Raises subprocess.CalledProcessError if a job fails.
    """
    program = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    options = ["--workflow-profile", "none", "--cores", str(cores), "--nolock", "--quiet", "all"]
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    }
    command = [*program, *targets, *options, "--config", *config]
    with (folder / "log.txt").open("a") as log:
        subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log, check=True)


def link_data(folder: Path, shared: Path) -> None:
    """Makes `folder`; datasets name files in ../shared of the folder that a workflow runs in."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "shared"
    if not link.is_symlink():
        link.symlink_to(shared.resolve())


Row = dict[str, Any]
"""What was run, with its scores."""


def scored(file: Path, wanted: Iterable[Row], run: Callable[[Row], Row]) -> list[Row]:
    """The rows of a JSON file, and what `run` gives for each of `wanted` that has no row yet.

    The file is written after each run, so that an interrupted program goes on.
    """
    rows: list[Row] = json.loads(file.read_text()) if file.exists() else []
    for one in wanted:
        if not any(one.items() <= row.items() for row in rows):
            rows.append(run(one))
            file.write_text(json.dumps(rows, indent=1))
    return rows
