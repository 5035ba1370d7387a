"""Runs a packed experiment on a machine that has Python and Apptainer, without internet access.

Standard library only: it installs the packages that Snakemake needs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from retrace.errors import ConfigError, RetraceError
from retrace.provenance.bundle_files import IMAGES, WHEELS, check_bundle
from retrace.provenance.folders import RUN_CONFIG
from retrace.provenance.foreign_names import check_target

ENVIRONMENT = Path("work/environment")


def run_bundle(folder: Path, target: str | None, options: Sequence[str]) -> int:
    """Checks the bundle and runs its target there; returns Snakemake's exit status.

    `target`: instead of the bundle's own; `options`: of Snakemake. ConfigError without Apptainer.
    """
    facts = check_bundle(folder)
    if not (shutil.which("apptainer") or shutil.which("singularity")):
        raise ConfigError("neither apptainer nor singularity is on the PATH; install one of them")
    python = install(folder)
    for image in (folder / IMAGES).iterdir():
        os.utime(image)  # Copies may have made the recipe newer; the image would be built again.
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    command = [str(python), "-m", "snakemake", "--use-singularity", "--configfile", RUN_CONFIG]
    requested = check_target(target or facts["target"], "--target")
    result = subprocess.run(
        [*command, *options, "--", requested],
        cwd=folder,
        env={**os.environ, "PATH": path},
        check=False,
    )
    return result.returncode


def install(folder: Path) -> Path:
    """Python of an environment with the bundle's wheels, created at the first call."""
    place = folder / ENVIRONMENT
    python = place / "bin" / "python"
    if (place / ".installed").is_file():
        return python
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    wheels = sorted((folder / WHEELS).glob("*.whl"))
    (pip,) = (wheel for wheel in wheels if wheel.name.startswith("pip-"))
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir"]
    result = subprocess.run([python, pip / "pip", "install", *options, *wheels], check=False)
    if result.returncode != 0:
        raise RetraceError(f"the packages in {folder / WHEELS} cannot be installed; see above")
    (place / ".installed").touch()
    return python
