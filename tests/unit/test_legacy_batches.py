"""States of the legacy engine belong to its programs and its image: no others resume from them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import legacy_batches
import tiny_training as tiny
from conftest import REPOSITORY
from loaded_programs import program
from retrace.job import Job
from retrace.planning import legacy
from retrace.planning.experiment import Planner
from retrace.planning.train_settings import read_train_settings
from retrace.planning.training_folders import snapshot_name
from retrace.storage.volumes import open_volume
from retrace.training import build
from retrace.training.lsd_family import LsdFamilyTask
from run_config import run_config

LEGACY = REPOSITORY / "workflow" / "scripts" / "legacy"


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


def test_snapshots_of_the_legacy_engine_are_volumes_at_their_places(tmp_path: Path) -> None:
    """Its image has no zarr: it writes what came through the pipe, and its predictions."""
    store = tiny.write_volume(tmp_path / "cube.zarr")
    settings = read_train_settings(tiny.settings(store, 1))
    task = build.build_trainer(settings, {}, tmp_path / "none").task
    assert isinstance(task, LsdFamilyTask)
    assert not [name for name in legacy_batches.as_arrays(task, 0, shown=False) if "_raw" in name]
    arrays = legacy_batches.as_arrays(task, 0, shown=True)
    with (tmp_path / "stream").open("wb") as pipe:
        legacy_batches.write_batch(pipe, arrays)
    with (tmp_path / "stream").open("rb") as pipe:
        _, pictures = program(LEGACY / "stream.py").read_batch(pipe, {})
    writer = program(LEGACY / "snapshots.py")
    (tmp_path / "snapshots" / "batch_000000009.zarr.partial").mkdir(parents=True)
    for iteration in range(1, writer.KEEP + 2):
        writer.save(str(tmp_path / "snapshots"), iteration, pictures, tiny.VOXEL_SIZE_NM)

    assert len(list((tmp_path / "snapshots").iterdir())) == writer.KEEP
    last = tmp_path / "snapshots" / snapshot_name(writer.KEEP + 1)
    expected = task.pictures({}, task.batch(0))
    assert expected.keys() == pictures.keys() == {p.name for p in last.iterdir() if p.is_dir()}
    for name, picture in expected.items():
        volume = open_volume(last, name)
        assert volume.box.to_nm(tiny.VOXEL_SIZE_NM).offset == picture.offset_nm
        np.testing.assert_array_equal(volume.read(volume.box), picture.data.numpy())


def test_the_folder_of_states_is_that_of_what_trains(tmp_path: Path) -> None:
    store = tiny.write_volume(tmp_path / "cube.zarr")
    assert state_folder(store, "a") == state_folder(store, "a") != state_folder(store, "b")
