"""Damaged and foreign content: one clear line, from every reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz_readers import READERS

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "damaged_files.py"
INPUTS = 200


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The counts of each reader, from a program of its own: it forks, which threads forbid."""
    file = tmp_path_factory.mktemp("fuzz") / "outcomes.json"
    command = [sys.executable, str(PROGRAM), "--inputs", str(INPUTS), "--json", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert file.is_file(), run.stderr
    return {one["name"]: one for one in json.loads(file.read_text())}


@pytest.mark.parametrize("name", [reader.name for reader in READERS])
def test_damaged_files_are_refused_in_one_line(
    outcomes: dict[str, dict[str, Any]], name: str
) -> None:
    found = outcomes[name]

    assert found["tracebacks"] == found["hangs"] == 0, found["faults"]
    assert found["inputs"] == INPUTS
    assert found["mib"] <= 1024, "memory is bounded by the size of the file"
    if found["checksum"]:
        assert found["other"] == 0, found["faults"]
    assert found["errors"] + found["absent"] + found["same"] + found["other"] == INPUTS


def test_readers_have_names_of_their_own() -> None:
    names = [reader.name for reader in READERS]

    assert len(set(names)) == len(names) >= 41
