"""Plans of Snakemake, read from what it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import warm_python

PROGRAMS = Path(sys.executable).parent
Run = Callable[..., subprocess.CompletedProcess[str]]
IMPATIENT = {"PYTHONPATH": str(Path(__file__).resolve().parent / "impatient")}
"""Environment of a run on a scheduler that asks for its jobs every second."""
LEGACY = ("--use-singularity", "--dry-run", "--printshellcmds", "--config", "engine=legacy")


def planned(output: str) -> Counter[str]:
    """How often each rule is planned, from the first table of a dry run."""
    table = output.split("Job stats:")[1].split("\ntotal")[0]
    return Counter({name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.M)})


def output_of(repository: Path, place: Path, *arguments: str) -> str:
    """Output of a run of Snakemake that succeeds."""
    command = [warm_python.program(), "-m", "snakemake"]
    path = os.pathsep.join([str(PROGRAMS), os.environ["PATH"]])
    run = subprocess.run(
        [
            *command,
            "--snakefile",
            str(repository / "Snakefile"),
            "--directory",
            str(place),
            "--workflow-profile",
            "none",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        cwd=place,
        env={**os.environ, **IMPATIENT, "PATH": path},
    )
    assert run.returncode == 0, run.stdout[-5000:]
    return run.stdout
