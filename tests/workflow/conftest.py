"""Fixtures of tests that plan workflows."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import warm_python
from kill import PATIENCE_S
from plans import Run


@pytest.fixture
def snakemake(planning_apptainer: None, repository: Path, tmp_path: Path) -> Run:
    """Runs snakemake in an empty folder; returns the finished process, both streams together."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [warm_python.program(), "-m", "snakemake"]
        command += ["--snakefile", str(repository / "Snakefile")]
        return subprocess.run(
            [*command, "--directory", str(tmp_path), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
        )

    return call
