"""States of the legacy engine belong to its programs and its image: no others resume from them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import legacy_batches
import tiny_training as tiny
from retrace.job import Job
from retrace.planning import legacy
from retrace.planning.experiment import Planner
from run_config import run_config


def trainer(**changes: str) -> str:
    """What a planned job of batches says of the other end of the pipe."""
    planner = Planner(Path(), run_config(engine="legacy", **changes), uses_containers=True)
    return str(legacy.batches_job(planner, "phantom", "mtlsd").execution["trainer"])


def state_folder(store: Path, named: str) -> str:
    job = Job(tiny.settings(store, 4), execution={"trainer": named})
    args = ["--job", job.as_json(), "--work", "work", "--output", "pipe"]
    return str(legacy_batches.header(legacy_batches.parse_args(args))["folder"])


def test_an_edited_program_and_another_image_start_states_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "legacy"
    shutil.copytree(legacy.SCRIPTS / "legacy", programs)
    monkeypatch.setattr(legacy, "SCRIPTS", tmp_path)
    before = trainer()
    mknet = programs / "mknet.py"
    mknet.write_text(mknet.read_text() + "# a comment\n")
    assert trainer() == before
    assert trainer(legacy_image="standin") != trainer(legacy_image="lsd_legacy")
    mknet.write_text(mknet.read_text() + "CHANGED = 1\n")
    assert trainer() != before


def test_the_folder_of_states_is_that_of_what_trains(tmp_path: Path) -> None:
    store = tiny.write_volume(tmp_path / "cube.zarr")
    assert state_folder(store, "a") == state_folder(store, "a") != state_folder(store, "b")
