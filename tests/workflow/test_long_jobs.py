"""A job that is longer than Linux allows on a command line travels in a file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import tiny_training as tiny
from plans import output_of

PROGRAMS = Path(sys.executable).parent
PART = "{path: a.zarr, array: %s}"
LINUX_LIMIT = 2**17


def write_dataset(folder: Path, ids: range) -> None:
    """A dataset whose masks read a list of background ids of about 200 KiB."""
    assert len(str(list(ids))) > LINUX_LIMIT
    (folder / "config/datasets").mkdir(parents=True, exist_ok=True)
    (folder / "config/datasets/mine.yaml").write_text(
        f"name: mine\nvoxel_size_nm: [10, 10, 10]\nbackground_ids: {list(ids)}\n"
        f"volumes: {{a: {{raw: {PART % 'raw'}, labels: {PART % 'labels'}}}}}\ntrain: [a]\n"
    )


@pytest.mark.parametrize(
    "executor",
    [
        ("--cores", "1"),
        ("--executor", "cluster-generic", "--cluster-generic-submit-cmd", "bash", "--jobs", "1"),
    ],
    ids=["here", "cluster"],
)
def test_a_long_job_runs(repository: Path, tmp_path: Path, executor: tuple[str, ...]) -> None:
    tiny.write_volume(tmp_path / "a.zarr")
    write_dataset(tmp_path, range(100000, 125000))
    jobs = tmp_path / "work/jobs"

    assert "--job @work/jobs/" in output_of(repository, tmp_path, "-n", "-p", "mask_mine")
    assert not jobs.exists(), "a dry run writes nothing"

    output_of(repository, tmp_path, *executor, "mask_mine")
    assert len(list(jobs.glob("*.json"))) == 1
    assert "Nothing to be done" in output_of(repository, tmp_path, "-n", "mask_mine")

    write_dataset(tmp_path, range(100001, 125001))
    assert "background_ids changed from" in output_of(repository, tmp_path, "-n", "mask_mine")
