"""Text stays text from the command line to the jobs, also if it looks like a number."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import tiny_training as tiny
from plans import output_of

PROGRAMS = Path(sys.executable).parent
VOLUME = "{raw: {path: a.zarr, array: raw}, labels: {path: a.zarr, array: labels}}"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a dataset whose volumes have numbers as names, unquoted."""
    tiny.write_volume(tmp_path / "a.zarr")
    (tmp_path / "config/datasets").mkdir(parents=True)
    (tmp_path / "config/datasets/mine.yaml").write_text(
        "name: mine\nvoxel_size_nm: [10, 10, 10]\n"
        f"volumes:\n  20190101: {VOLUME}\n  2024_01: {VOLUME}\ntrain: [20190101]\n"
    )
    return tmp_path


@pytest.mark.parametrize("volume", ["20190101", "2024_01"])
def test_volumes_are_chosen_by_names_that_look_like_numbers(
    repository: Path, place: Path, volume: str
) -> None:
    output = output_of(repository, place, "-n", "mask_mine", "--config", f"volumes={volume}")
    assert f"output: results/mine/masks/{volume}.manifest.json" in output


def test_the_name_of_a_run_may_look_like_a_number(repository: Path, place: Path) -> None:
    words = ("train_phantom_sections_seamless_small", "--config", "run=2024_01", "seed=7")
    output = output_of(repository, place, "-n", "--printshellcmds", *words)
    assert '"run": "2024_01"' in output
    assert '"seed": 7' in output


def test_jobs_that_snakemake_starts_get_the_text(repository: Path, place: Path) -> None:
    """Each job is a new process of Snakemake, as on a cluster; `bash` runs its script at once."""
    cluster = ("--executor", "cluster-generic", "--cluster-generic-submit-cmd", "bash")
    words = ("volumes=2024_01", "run=2024_01")
    output_of(repository, place, *cluster, "--jobs", "1", "mask_mine", "--config", *words)
    assert [p.name for p in (place / "results/mine/masks").glob("*.zarr")] == ["2024_01.zarr"]
