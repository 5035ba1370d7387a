"""A job on the command line: as JSON, or in a file where it is long."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrace.errors import ConfigError
from retrace.job import JOB_FILES, Job

LINUX_LIMIT = 2**17
"""Longest argument of a program, bytes."""


def long_job(stores: int) -> Job:
    names = [f"results/mine/mtlsd/a/shards/edges_{n}-of-{stores}.zarr" for n in range(stores)]
    return Job({"seed": 1}, {"shards": names}, (), {"shard": "1-of-2"})


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("stores", [0, 1, 100, 2000])
def test_a_program_reads_the_job_that_was_planned(stores: int) -> None:
    job = long_job(stores)
    argument = job.as_argument(write=True)
    assert len(argument) < LINUX_LIMIT / 2
    assert Job.parse(argument) == job
    assert argument.startswith("@") == (stores == 2000)


def test_quotes_of_two_shells_count() -> None:
    assert Job({}, {"raw": "a" * 30000}).as_argument(write=True)[0] == "{"
    assert Job({}, {"raw": "'" * 10000}).as_argument(write=True)[0] == "@"


def test_the_file_is_named_by_the_job_and_written_once() -> None:
    first = long_job(2000).as_argument(write=False)
    assert not JOB_FILES.exists()
    assert long_job(2000).as_argument(write=True) == first
    written = Path(first[1:]).stat()
    assert long_job(2000).as_argument(write=True) == first
    assert Path(first[1:]).stat() == written
    assert long_job(2001).as_argument(write=True) != first


def test_a_file_that_is_gone_or_damaged_is_named() -> None:
    argument = long_job(2000).as_argument(write=True)
    Path(argument[1:]).write_text("{")
    with pytest.raises(ConfigError, match="--job: not the JSON of a job"):
        Job.parse(argument)
    Path(argument[1:]).unlink()
    with pytest.raises(ConfigError, match="cannot be read .No such file or directory.; run the"):
        Job.parse(argument)
